"""What a controller decides: objects to make, change and delete, and the status to write."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from playground.cluster import JsonObject

MAX_REPLICAS = 5000
"""Pods of one workload that are made: more is a typing mistake."""

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # what Kubernetes uses, so that no words come out


@dataclass(frozen=True, slots=True)
class Change:
    """A merge patch to an object that belongs to the workload, and what to tell of it (empty: nothing)."""

    obj: JsonObject
    patch: JsonObject
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen now; the rest follows when it has.

    Attributes:
        create: pods or ReplicaSets, in this order.
        change: what to change of those that are there.
        delete: those to delete, in this order.
        annotations: what the workload's own annotations are to say.
        status: the workload's status.
    """

    create: tuple[JsonObject, ...] = ()
    change: tuple[Change, ...] = ()
    delete: tuple[JsonObject, ...] = ()
    annotations: Mapping[str, str] | None = None
    status: Mapping[str, Any] | None = None


def pod_from(
    owner: JsonObject, *, name: str = "", labels: Mapping[str, str] | None = None, spec: JsonObject | None = None
) -> JsonObject:
    """A pod of a workload's template; without a name it gets one with random letters behind the owner's."""
    template = owner["spec"]["template"]
    written = template.get("metadata", {})
    metadata = {
        **{field: written[field] for field in ("labels", "annotations") if field in written},
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [reference_to(owner)],
        **({"name": name} if name else {"generateName": f"{owner['metadata']['name']}-"}),
    }
    if labels:
        metadata["labels"] = {**metadata.get("labels", {}), **labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**template["spec"], **(spec or {})}}


def reference_to(owner: JsonObject) -> JsonObject:
    """The owner reference of what a workload makes."""
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def template_hash(template: JsonObject) -> str:
    """Letters that tell one pod template from another."""
    digest = hashlib.sha256(msgspec.json.encode(template, order="deterministic")).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:10])


def is_active(pod: JsonObject) -> bool:
    """Whether a pod counts: it has not ended and is not being deleted."""
    ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return not ended and not is_ending(pod)


def is_ending(obj: JsonObject) -> bool:
    """Whether an object is being deleted."""
    return "deletionTimestamp" in obj["metadata"]


def is_ready(pod: JsonObject) -> bool:
    """Whether a pod's containers run."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def wanted(spec: JsonObject, field: str = "replicas") -> int:
    """How many pods a workload asks for, within reason."""
    return min(int(spec.get(field, 1)), MAX_REPLICAS)


def condition(
    before: Iterable[JsonObject], kind: str, *, true: bool, reason: str, message: str, now: str
) -> JsonObject:
    """A condition, with the time at which it last turned; ``now`` as metav1.Time."""
    status = str(true)
    old = next((entry for entry in before if entry["type"] == kind), {})
    if (old.get("status"), old.get("reason"), old.get("message")) == (status, reason, message):
        return old
    turned = old.get("lastTransitionTime", now) if old.get("status") == status else now
    times = {"lastTransitionTime": turned, "lastUpdateTime": now}
    return {"type": kind, "status": status, "reason": reason, "message": message, **times}
