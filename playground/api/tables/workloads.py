"""Deployments, ReplicaSets, StatefulSets and Jobs in tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from playground.api.tables.columns import (
    AGE,
    NAME,
    Column,
    Printer,
    age_of,
    duration,
    name_of,
    selector_text,
    wide,
)
from playground.cluster import JsonObject

_TEMPLATE = (wide("Containers"), wide("Images"))


def _deployment(obj: JsonObject, now: datetime) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    return [
        name_of(obj),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        age_of(obj, now),
        *_template(obj),
        selector_text(spec.get("selector")),
    ]


def _replica_set(obj: JsonObject, now: datetime) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    return [
        name_of(obj),
        spec.get("replicas", 0),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        age_of(obj, now),
        *_template(obj),
        selector_text(spec.get("selector")),
    ]


def _stateful_set(obj: JsonObject, now: datetime) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    return [name_of(obj), ready, age_of(obj, now), *_template(obj)]


def _job(obj: JsonObject, now: datetime) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    succeeded, parallelism = status.get("succeeded", 0), spec.get("parallelism") or 0
    if spec.get("completions") is not None:
        completions = f"{succeeded}/{spec['completions']}"
    else:
        completions = f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"
    return [
        name_of(obj),
        _job_status(obj),
        completions,
        _job_duration(status, now),
        age_of(obj, now),
        *_template(obj),
        selector_text(spec.get("selector")),
    ]


DEPLOYMENTS = Printer(
    (NAME, Column("Ready"), Column("Up-to-date"), Column("Available"), AGE, *_TEMPLATE, wide("Selector")), _deployment
)
REPLICASETS = Printer(
    (
        NAME,
        *(Column(name, type="integer") for name in ("Desired", "Current", "Ready")),
        AGE,
        *_TEMPLATE,
        wide("Selector"),
    ),
    _replica_set,
)
STATEFULSETS = Printer((NAME, Column("Ready"), AGE, *_TEMPLATE), _stateful_set)
JOBS = Printer(
    (NAME, Column("Status"), Column("Completions"), Column("Duration"), AGE, *_TEMPLATE, wide("Selector")), _job
)


def _template(obj: JsonObject) -> list[str]:
    containers = obj.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])
    return [",".join(entry["name"] for entry in containers), ",".join(entry.get("image", "") for entry in containers)]


def _job_status(obj: JsonObject) -> str:
    true = {entry["type"] for entry in obj.get("status", {}).get("conditions", []) if entry["status"] == "True"}
    for condition in ("Complete", "Failed"):
        if condition in true:
            return condition
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for condition in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if condition in true:
            return condition
    return "Running"


def _job_duration(status: JsonObject, now: datetime) -> str:
    if not status.get("startTime"):
        return ""
    ended = datetime.fromisoformat(status["completionTime"]) if status.get("completionTime") else now
    return duration(int((ended - datetime.fromisoformat(status["startTime"])).total_seconds()))
