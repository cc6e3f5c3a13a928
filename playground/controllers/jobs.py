"""Jobs: pods until enough of them have succeeded, or too many have failed. Pure.

A container of the playground runs until it is deleted, so a Job completes only where something makes its containers
end. Left out: indexed completion, deadlines, suspension of what runs already, pod failure policies, removal after a
time.
"""

from __future__ import annotations

from collections.abc import Sequence

from playground.cluster import JsonObject
from playground.controllers.plans import Plan, condition, is_active, is_ending, is_ready, pod_from, wanted


def decide(job: JsonObject, pods: Sequence[JsonObject], *, now: str) -> Plan:
    """Say what a Job needs; ``pods`` are those that belong to it, and ``now`` is the time."""
    spec, before = job["spec"], job.get("status", {})
    active = [pod for pod in pods if is_active(pod)]
    succeeded, failed = (_ended(pods, phase) for phase in ("Succeeded", "Failed"))
    status: JsonObject = {
        "active": len(active),
        "ready": sum(map(is_ready, active)),
        "terminating": sum(is_ending(pod) for pod in pods),
        "succeeded": succeeded,
        "failed": failed,
        "startTime": before.get("startTime", now),
        "conditions": before.get("conditions", []),
    }
    if is_ending(job) or before.get("conditions"):
        return Plan(delete=tuple(active) if before.get("conditions") else (), status=status)
    completions = spec.get("completions")
    is_complete = succeeded >= completions if completions is not None else bool(succeeded) and not active
    if is_complete:
        status |= {"completionTime": now, "conditions": [_over("Complete", "CompletionsReached", "", now)]}
        return Plan(delete=tuple(active), status={**status, "active": 0, "ready": 0})
    if failed > spec["backoffLimit"]:
        message = "Job has reached the specified backoff limit"
        status["conditions"] = [_over("Failed", "BackoffLimitExceeded", message, now)]
        return Plan(delete=tuple(active), status={**status, "active": 0, "ready": 0})
    if spec.get("suspend"):
        return Plan(delete=tuple(active), status=status)
    room = wanted(spec, "parallelism")
    if completions is not None:
        room = min(room, completions - succeeded)
    elif succeeded:
        room = len(active)  # work off the queue: once one has succeeded no more are started
    missing = room - len(active)
    if missing < 0:
        return Plan(delete=tuple(active[missing:]), status=status)
    return Plan(create=tuple(pod_from(job) for _ in range(missing)), status=status)


def _ended(pods: Sequence[JsonObject], phase: str) -> int:
    return sum(pod.get("status", {}).get("phase") == phase for pod in pods)


def _over(kind: str, reason: str, message: str, now: str) -> JsonObject:
    made = condition((), kind, true=True, reason=reason, message=message, now=now)
    return {**{name: value for name, value in made.items() if name != "lastUpdateTime"}, "lastProbeTime": now}
