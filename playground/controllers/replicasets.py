"""ReplicaSets: as many pods as asked for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from playground.cluster import JsonObject
from playground.controllers.plans import Plan, condition, is_active, is_ready, pod_from, wanted


def decide(replica_set: JsonObject, pods: Sequence[JsonObject], *, refusal: str, now: str) -> Plan:
    """Say what a ReplicaSet needs.

    Args:
        replica_set: as stored.
        pods: those that belong to it.
        refusal: why its last pod was not let in; empty if it was.
        now: the time.
    """
    metadata = replica_set["metadata"]
    active = [pod for pod in pods if is_active(pod)]
    missing = wanted(replica_set["spec"]) - len(active)
    ready = sum(map(is_ready, active))
    status: JsonObject = {
        "replicas": len(active),
        "fullyLabeledReplicas": len(active),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "observedGeneration": metadata["generation"],
        "conditions": [],
    }
    if refusal and missing > 0:
        before = replica_set.get("status", {}).get("conditions", [])
        failed = condition(before, "ReplicaFailure", true=True, reason="FailedCreate", message=refusal, now=now)
        status["conditions"] = [failed]
    if missing >= 0:
        return Plan(create=tuple(pod_from(replica_set) for _ in range(missing)), status=status)
    return Plan(delete=tuple(sorted(active, key=_worth)[:-missing]), status=status)


def _worth(pod: JsonObject) -> tuple[bool, bool, bool, int]:
    """Who goes last: what is bound, runs, is ready, and has been there for long."""
    status = pod.get("status", {})
    is_running = status.get("phase") == "Running"
    # The newer ones have higher versions of their creation; times count whole seconds only.
    return bool(pod["spec"].get("nodeName")), is_running, is_ready(pod), -_born(pod)


def _born(pod: JsonObject) -> int:
    return int("".join(filter(str.isdigit, pod["metadata"]["creationTimestamp"])))
