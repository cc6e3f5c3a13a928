"""Nodes in a table."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from playground.api.tables.columns import AGE, NAME, NONE, UNKNOWN, Column, Printer, age_of, name_of, wide
from playground.cluster import JsonObject

_ROLE = "node-role.kubernetes.io/"
_OLD_ROLE = "kubernetes.io/role"


def _cells(node: JsonObject, now: datetime) -> list[Any]:
    status = node.get("status", {})
    ready = [entry for entry in status.get("conditions", []) if entry["type"] == "Ready"]
    states = [("Ready" if ready[0]["status"] == "True" else "NotReady") if ready else "Unknown"]
    if node.get("spec", {}).get("unschedulable"):
        states.append("SchedulingDisabled")
    labels = node["metadata"].get("labels") or {}
    roles = {label.removeprefix(_ROLE) for label in labels if label.startswith(_ROLE) and label != _ROLE}
    roles |= {labels[_OLD_ROLE]} if labels.get(_OLD_ROLE) else set()
    info = status.get("nodeInfo", {})
    return [
        name_of(node),
        ",".join(states),
        ",".join(sorted(roles)) or NONE,
        age_of(node, now),
        info.get("kubeletVersion", ""),
        _address(status, "InternalIP"),
        _address(status, "ExternalIP"),
        info.get("osImage") or UNKNOWN,
        _kernel(info),
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


NODES = Printer(
    (
        NAME,
        Column("Status"),
        Column("Roles"),
        AGE,
        Column("Version"),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ),
    _cells,
)


def _kernel(info: JsonObject) -> str:
    kernel, architecture = info.get("kernelVersion") or UNKNOWN, info.get("architecture")
    return f"{kernel} ({architecture})" if architecture and kernel != UNKNOWN else kernel


def _address(status: JsonObject, kind: str) -> str:
    return next((entry["address"] for entry in status.get("addresses", []) if entry["type"] == kind), NONE)
