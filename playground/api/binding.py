"""What a Binding does to a pod: node, annotations and the PodScheduled condition in one write. Pure."""

from __future__ import annotations

from playground.api.errors import bad_request, conflict, stale, wrong_uid
from playground.api.resources import Key
from playground.cluster import JsonObject


def bound_pod(key: Key, pod: JsonObject, binding: JsonObject, *, time: str) -> JsonObject:
    """Return ``pod`` as ``binding`` makes it; ``time`` is now, as metav1.Time.

    Raises:
        ApiStatusError: 400 for a Binding that cannot be read, 409 if the pod is another one, being deleted, bound
            already, or still gated.
    """
    meta = binding.get("metadata") or {}
    target = binding.get("target") or {}
    if meta.get("name", "") != key.name:
        raise bad_request("name in URL does not match name in Binding object")
    if target.get("kind", "Node") not in ("", "Node"):
        raise bad_request('target.kind: Unsupported value: supported values: "Node", "<empty>"')
    if not target.get("name"):
        raise bad_request("target.name: Required value")
    uid, version = meta.get("uid"), meta.get("resourceVersion")
    if uid and uid != pod["metadata"]["uid"]:
        raise wrong_uid(key, wanted=uid, actual=pod["metadata"]["uid"])
    if version and version != pod["metadata"]["resourceVersion"]:
        raise stale(key)
    spec = pod["spec"]
    if "deletionTimestamp" in pod["metadata"]:
        why = f"pod {key.name} is being deleted, cannot be assigned to a host"
    elif spec.get("nodeName"):
        why = f'pod {key.name} is already assigned to node "{spec["nodeName"]}"'
    elif spec.get("schedulingGates"):
        why = f"pod {key.name} has non-empty .spec.schedulingGates"
    else:
        why = ""
    if why:
        raise conflict(key, why, subresource="binding")
    metadata = dict(pod["metadata"])
    for kind in ("annotations", "labels"):
        if meta.get(kind):
            metadata[kind] = {**(metadata.get(kind) or {}), **meta[kind]}
    status = {name: value for name, value in pod.get("status", {}).items() if name != "nominatedNodeName"}
    scheduled = {
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": time,
    }
    others = [item for item in status.get("conditions", []) if item["type"] != "PodScheduled"]
    status["conditions"] = [*others, scheduled]
    return {**pod, "metadata": metadata, "spec": {**spec, "nodeName": target["name"]}, "status": status}
