"""The ``scale`` subresource of workloads: their replicas, whatever kind they are. Pure."""

from __future__ import annotations

from playground.api.errors import bad_request
from playground.api.tables.columns import NONE, selector_text
from playground.cluster import JsonObject


def scale_of(obj: JsonObject) -> JsonObject:
    """Return a workload's Scale."""
    metadata = obj["metadata"]
    fields = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    selector = selector_text(obj["spec"].get("selector"))
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in fields},
        "spec": {"replicas": obj["spec"].get("replicas", 0)},
        "status": {
            "replicas": obj.get("status", {}).get("replicas", 0),
            **({} if selector == NONE else {"selector": selector}),
        },
    }


def scaled(obj: JsonObject, scale: JsonObject) -> JsonObject:
    """Return a workload with the replicas of a Scale, and its resourceVersion as a precondition where it names one.

    Raises:
        ApiStatusError: 400 for a Scale without a number.
    """
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise bad_request('Scale in version "v1" cannot be handled as a Scale: spec.replicas is not a number')
    version = (scale.get("metadata") or {}).get("resourceVersion") or obj["metadata"]["resourceVersion"]
    metadata = {**obj["metadata"], "resourceVersion": version}
    return {**obj, "metadata": metadata, "spec": {**obj["spec"], "replicas": replicas}}
