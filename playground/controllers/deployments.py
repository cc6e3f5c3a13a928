"""Deployments: one ReplicaSet for each pod template, scaled so that the newest takes over. Pure.

RollingUpdate follows maxSurge and maxUnavailable, Recreate waits until the old pods are gone. Nothing is undone when an
update does not get ready: ``kubectl rollout undo`` is for people.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil, floor

from playground.cluster import JsonObject
from playground.controllers.plans import (
    Change,
    Plan,
    condition,
    is_active,
    is_ending,
    reference_to,
    template_hash,
    wanted,
)

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"

_NUMBER = re.compile("[0-9]{1,18}")  # of 64 bits, as Kubernetes reads it


def decide(deployment: JsonObject, replica_sets: Sequence[JsonObject], pods: Sequence[JsonObject], *, now: str) -> Plan:
    """Say what a Deployment needs.

    Args:
        deployment: as stored.
        replica_sets: those that belong to it.
        pods: those that belong to these, the ending ones among them.
        now: the time.
    """
    digest = template_hash(deployment["spec"]["template"])
    new = next((rs for rs in replica_sets if _digest(rs) == digest), None)
    old = sorted((rs for rs in replica_sets if rs is not new), key=_revision)
    status = _status(deployment, new, replica_sets, now=now)
    if is_ending(deployment):
        return Plan(status=status)
    revision = _next_revision(new, old)
    annotations = {REVISION: revision}
    if deployment["spec"].get("paused"):
        return Plan(status=status)
    if new is None:
        if _is_recreated(deployment) and (_replicas(old) or any(map(_has_not_ended, pods))):
            return Plan(change=tuple(_scale(rs, 0) for rs in old if rs["spec"]["replicas"]), status=status)
        created = _replica_set(deployment, digest, replicas=_room(deployment, old), revision=revision)
        return Plan(create=(created,), annotations=annotations, status=status)
    changes = [*_relabelled(new, revision), *_scaled(deployment, new, old)]
    return Plan(change=tuple(changes), delete=_past(deployment, old), annotations=annotations, status=status)


def _scaled(deployment: JsonObject, new: JsonObject, old: Sequence[JsonObject]) -> list[Change]:
    replicas = wanted(deployment["spec"])
    if _is_recreated(deployment):
        target = 0 if _replicas(old) else replicas
        changes = [_scale(rs, 0) for rs in old if rs["spec"]["replicas"]]
        return [*changes, *([_scale(new, target)] if target and target != new["spec"]["replicas"] else [])]
    if new["spec"]["replicas"] > replicas:
        return [_scale(new, replicas)]
    if new["spec"]["replicas"] < replicas:
        room = _room(deployment, [*old, new])
        if room > 0:
            return [_scale(new, min(replicas, new["spec"]["replicas"] + room))]
    return _shrunk(deployment, new, old)


def _shrunk(deployment: JsonObject, new: JsonObject, old: Sequence[JsonObject]) -> list[Change]:
    """Take from the old ones what may be missing: first what is not ready anyway, then the oldest."""
    least = wanted(deployment["spec"]) - _unavailable_at_most(deployment)
    unready_new = new["spec"]["replicas"] - _available([new])
    spare = _replicas([*old, new]) - least - unready_new
    targets = {rs["metadata"]["name"]: rs["spec"]["replicas"] for rs in old}
    for rs in old:
        name = rs["metadata"]["name"]
        taken = min(spare, max(0, targets[name] - _available([rs])))
        if taken > 0:
            targets[name] -= taken
            spare -= taken
    ready_spare = _available([*old, new]) - least
    for rs in old:
        name = rs["metadata"]["name"]
        taken = min(spare, ready_spare, targets[name])
        if taken > 0:
            targets[name] -= taken
            spare -= taken
            ready_spare -= taken
    return [
        _scale(rs, targets[rs["metadata"]["name"]])
        for rs in old
        if targets[rs["metadata"]["name"]] < rs["spec"]["replicas"]
    ]


def _room(deployment: JsonObject, replica_sets: Sequence[JsonObject]) -> int:
    """How many more pods there may be now."""
    replicas = wanted(deployment["spec"])
    if _is_recreated(deployment):
        return replicas
    return max(0, min(replicas, replicas + _surge(deployment) - _replicas(replica_sets)))


def _is_recreated(deployment: JsonObject) -> bool:
    return bool(deployment["spec"]["strategy"]["type"] == "Recreate")


def _surge(deployment: JsonObject) -> int:
    rolling = deployment["spec"]["strategy"].get("rollingUpdate", {})
    return _part(rolling.get("maxSurge", "25%"), wanted(deployment["spec"]), rounded_up=True)


def _unavailable_at_most(deployment: JsonObject) -> int:
    rolling = deployment["spec"]["strategy"].get("rollingUpdate", {})
    replicas = wanted(deployment["spec"])
    part = _part(rolling.get("maxUnavailable", "25%"), replicas, rounded_up=False)
    # With neither more nor fewer pods nothing could ever move.
    return min(replicas, part or (0 if _surge(deployment) else 1))


def _part(value: int | str, of: int, *, rounded_up: bool) -> int:
    if isinstance(value, int):
        return value
    share = int(value.removesuffix("%")) * of / 100
    return ceil(share) if rounded_up else floor(share)


def _replica_set(deployment: JsonObject, digest: str, *, replicas: int, revision: str) -> JsonObject:
    metadata, spec = deployment["metadata"], deployment["spec"]
    template = spec["template"]
    labels = {**template.get("metadata", {}).get("labels", {}), HASH_LABEL: digest}
    selector = {**spec["selector"], "matchLabels": {**spec["selector"].get("matchLabels", {}), HASH_LABEL: digest}}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{metadata['name']}-{digest}",
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": {REVISION: revision},
            "ownerReferences": [reference_to(deployment)],
        },
        "spec": {
            "replicas": replicas,
            "selector": selector,
            "template": {**template, "metadata": {**template.get("metadata", {}), "labels": labels}},
        },
    }


def _scale(replica_set: JsonObject, replicas: int) -> Change:
    name, before = replica_set["metadata"]["name"], replica_set["spec"]["replicas"]
    way = "up" if replicas > before else "down"
    message = f"Scaled {way} replica set {name} from {before} to {replicas}"
    return Change(replica_set, {"spec": {"replicas": replicas}}, "ScalingReplicaSet", message)


def _relabelled(new: JsonObject, revision: str) -> list[Change]:
    if new["metadata"].get("annotations", {}).get(REVISION) == revision:
        return []
    return [Change(new, {"metadata": {"annotations": {REVISION: revision}}})]


def _past(deployment: JsonObject, old: Sequence[JsonObject]) -> tuple[JsonObject, ...]:
    """Old ReplicaSets without pods beyond those that are kept to go back to."""
    idle = [rs for rs in old if not rs["spec"]["replicas"] and not rs.get("status", {}).get("replicas")]
    return tuple(idle[: max(0, len(idle) - deployment["spec"]["revisionHistoryLimit"])])


def _status(
    deployment: JsonObject, new: JsonObject | None, replica_sets: Sequence[JsonObject], *, now: str
) -> JsonObject:
    replicas = wanted(deployment["spec"])
    total, updated = _actual(replica_sets), _actual([new] if new else [])
    available = _available(replica_sets)
    before = deployment.get("status", {}).get("conditions", [])
    is_available = available >= replicas - _unavailable_at_most(deployment)
    is_done = bool(new) and updated == total == available == replicas
    which = f'ReplicaSet "{new["metadata"]["name"]}"' if new else "A new ReplicaSet"
    conditions = [
        condition(
            before,
            "Available",
            true=is_available,
            reason="MinimumReplicasAvailable" if is_available else "MinimumReplicasUnavailable",
            message=f"Deployment {'has' if is_available else 'does not have'} minimum availability.",
            now=now,
        ),
        condition(
            before,
            "Progressing",
            true=True,
            reason="NewReplicaSetAvailable" if is_done else "ReplicaSetUpdated",
            message=f"{which} has successfully progressed." if is_done else f"{which} is progressing.",
            now=now,
        ),
    ]
    failures = [entry for rs in replica_sets for entry in rs.get("status", {}).get("conditions", [])]
    return {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": total,
        "updatedReplicas": updated,
        "readyReplicas": available,
        "availableReplicas": available,
        "unavailableReplicas": max(0, _replicas(replica_sets) - available),
        "conditions": [*conditions, *failures[:1]],
    }


def _next_revision(new: JsonObject | None, old: Sequence[JsonObject]) -> str:
    last = max(map(_revision, old), default=0)
    return str(_revision(new) if new and _revision(new) > last else last + 1)


def _revision(replica_set: JsonObject) -> int:
    """Its number; 0 where people have written something else."""
    text = replica_set["metadata"].get("annotations", {}).get(REVISION, "")
    return int(text) if _NUMBER.fullmatch(text) else 0


def _digest(replica_set: JsonObject) -> str:
    digest: str = replica_set["metadata"].get("labels", {}).get(HASH_LABEL, "")
    return digest


def _replicas(replica_sets: Sequence[JsonObject]) -> int:
    return sum(rs["spec"]["replicas"] for rs in replica_sets)


def _actual(replica_sets: Sequence[JsonObject]) -> int:
    return sum(rs.get("status", {}).get("replicas", 0) for rs in replica_sets)


def _available(replica_sets: Sequence[JsonObject]) -> int:
    return sum(rs.get("status", {}).get("availableReplicas", 0) for rs in replica_sets)


def _has_not_ended(pod: JsonObject) -> bool:
    return is_active(pod) or is_ending(pod)
