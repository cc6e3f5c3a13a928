"""Short words for pods and reviews as kube-apiserver sends them, and a reader of JSON Patches."""

import copy
from base64 import b64decode
from typing import Any

import msgspec

from fracgpu.quantities import Mib
from webhook.pods import AdmittedPod
from webhook.policy import Policy

POLICY = Policy(unit=Mib(512), replicas=4)


def container(
    name: str = "main",
    limits: dict[str, Any] | None = None,
    *,
    requests: dict[str, Any] | None = None,
    env: tuple[str, ...] = (),
    restart: str = "",
) -> dict[str, Any]:
    """A container as in a manifest; members that are not given are absent."""
    made: dict[str, Any] = {"name": name, "image": "example.com/app:1"}
    resources = {key: value for key, value in (("limits", limits), ("requests", requests)) if value is not None}
    if resources:
        made["resources"] = resources
    if env:
        made["env"] = [{"name": variable, "value": "x"} for variable in env]
    if restart:
        made["restartPolicy"] = restart
    return made


def pod(
    annotations: dict[str, str] | None = None, *containers: dict[str, Any], init: tuple[dict[str, Any], ...] = ()
) -> dict[str, Any]:
    """A pod as in a manifest, by default with the one container ``main``; short annotation keys are fracgpu's."""
    made: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "team-a"},
        "spec": {"containers": list(containers) or [container()]},
    }
    if annotations is not None:
        made["metadata"]["annotations"] = {
            key if "/" in key else f"fracgpu.io/{key}": value for key, value in annotations.items()
        }
    if init:
        made["spec"]["initContainers"] = list(init)
    return made


def typed(manifest: dict[str, Any]) -> AdmittedPod:
    return msgspec.convert(manifest, AdmittedPod)


def review(manifest: object, *, operation: str = "CREATE") -> dict[str, Any]:
    """An AdmissionReview of a pod."""
    return {
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "186e27b2-329a-4841-b7f4-af82ab6cfc1a",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "team-a",
            "operation": operation,
            "object": manifest,
            "oldObject": None,
        },
    }


def operations_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    """The JSON Patch of an AdmissionResponse; empty if it has none."""
    if "patch" not in response:
        return []
    assert response["patchType"] == "JSONPatch"
    operations: list[dict[str, Any]] = msgspec.json.decode(b64decode(response["patch"], validate=True))
    return operations


def patched(manifest: dict[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
    """Apply a JSON Patch by RFC 6902, of which only ``add`` to an object that exists is allowed here."""
    result = copy.deepcopy(manifest)
    for operation in operations:
        assert operation["op"] == "add"
        *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
        place: Any = result
        for part in parents:
            place = place[int(part) if isinstance(place, list) else part]
        assert isinstance(place, dict)
        place[last] = copy.deepcopy(operation["value"])
    return result
