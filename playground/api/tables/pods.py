"""Pods in a table: the status that ``kubectl get pods`` shows is put together from phase, containers and deletion."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from playground.api.tables.columns import AGE, NAME, NONE, Column, Printer, age_of, name_of, since, wide
from playground.cluster import JsonObject


def _cells(pod: JsonObject, now: datetime) -> list[Any]:
    spec, status = pod.get("spec", {}), pod.get("status", {})
    sidecars = {c["name"] for c in spec.get("initContainers", []) if c.get("restartPolicy") == "Always"}
    state = _State(status.get("reason") or status.get("phase", ""))
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("reason") == "SchedulingGated":
        state.reason = "SchedulingGated"
    inits = status.get("initContainerStatuses", [])
    if _first_steps(state, inits, sidecars=sidecars, count=len(spec.get("initContainers", []))):
        state.count_restarts(inits)
        initialized = _condition(status, "Initialized").get("status") == "True"
    else:
        initialized = True
    if initialized:
        state.restarts, state.restarted = 0, ""
        state.count_restarts([entry for entry in inits if entry["name"] in sidecars])
        _containers(state, status)
    if pod["metadata"].get("deletionTimestamp") and status.get("phase") not in ("Succeeded", "Failed"):
        state.reason = "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    restarts = str(state.restarts)
    if state.restarts and state.restarted:
        restarts = f"{state.restarts} ({since(state.restarted, now)} ago)"
    gates = spec.get("readinessGates", [])
    passed = [gate for gate in gates if _condition(status, gate.get("conditionType", "")).get("status") == "True"]
    ips = [entry.get("ip", "") for entry in status.get("podIPs", [])]
    return [
        name_of(pod),
        f"{state.ready}/{len(spec.get('containers', [])) + len(sidecars)}",
        state.reason,
        restarts,
        age_of(pod, now),
        (ips[0] if ips else status.get("podIP")) or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        f"{len(passed)}/{len(gates)}" if gates else NONE,
    ]


PODS = Printer(
    (
        NAME,
        Column("Ready"),
        Column("Status"),
        Column("Restarts"),
        AGE,
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ),
    _cells,
)


class _State:
    """What is found while the containers are looked at."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.ready = 0
        self.restarts = 0
        self.restarted = ""  # when something last ended and was started again

    def count_restarts(self, statuses: Iterable[JsonObject]) -> None:
        for status in statuses:
            self.restarts += status.get("restartCount", 0)
            ended = (status.get("lastState") or {}).get("terminated") or {}
            self.restarted = max(self.restarted, ended.get("finishedAt") or "")


def _first_steps(state: _State, statuses: list[JsonObject], *, sidecars: set[str], count: int) -> bool:
    """Look at the init containers; whether one of them is still in the way."""
    for index, status in enumerate(statuses):
        current = status.get("state") or {}
        ended, waits = current.get("terminated"), current.get("waiting") or {}
        if ended is not None and not ended.get("exitCode"):
            continue
        if status["name"] in sidecars and status.get("started"):
            state.ready += bool(status.get("ready"))
            continue
        if ended is not None:
            state.reason = f"Init:{_why_ended(ended)}"
        elif waits.get("reason") and waits["reason"] != "PodInitializing":
            state.reason = f"Init:{waits['reason']}"
        else:
            state.reason = f"Init:{index}/{count}"
        return True
    return False


def _containers(state: _State, status: JsonObject) -> None:
    statuses = status.get("containerStatuses", [])
    state.count_restarts(statuses)
    is_running = False
    for entry in reversed(statuses):
        current = entry.get("state") or {}
        ended = current.get("terminated")
        if (current.get("waiting") or {}).get("reason"):
            state.reason = current["waiting"]["reason"]
        elif ended is not None:
            state.reason = _why_ended(ended)
        elif entry.get("ready") and current.get("running") is not None:
            is_running = True
            state.ready += 1
    if state.reason == "Completed" and is_running:
        state.reason = "Running" if _condition(status, "Ready").get("status") == "True" else "NotReady"


def _why_ended(ended: JsonObject) -> str:
    if ended.get("reason"):
        reason: str = ended["reason"]
        return reason
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode', 0)}"


def _condition(status: JsonObject, kind: str) -> JsonObject:
    return next((entry for entry in status.get("conditions", []) if entry["type"] == kind), {})
