"""What each kind's objects begin with, are completed by and checked for: one table, read by the registry.

Pods are admitted by webhooks in between, which is the registry's business; a kind without rules is kept as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from playground.api import kept_kinds, workload_rules
from playground.api.errors import FieldError
from playground.api.pod_defaults import qos_class
from playground.api.resources import Resource
from playground.api.validation import check_pod, check_pod_update, decoded
from playground.cluster import JsonObject

_DEFAULTS = Callable[[JsonObject], JsonObject]
_CHECK = Callable[[JsonObject], list[FieldError]]


class _CheckUpdate(Protocol):
    def __call__(self, new: JsonObject, *, old: JsonObject) -> list[FieldError]: ...


def _as_it_is(obj: JsonObject) -> JsonObject:
    return obj


def _nothing_wrong(_: JsonObject) -> list[FieldError]:
    return []


def _nothing_fixed(new: JsonObject, *, old: JsonObject) -> list[FieldError]:
    return []


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one kind.

    Attributes:
        complete: fills defaults in; doing it twice changes nothing.
        check: says what is wrong with a complete object.
        check_update: says what of a new state may not replace the old one.
        status: what a new object's status is; None for kinds whose status a client may write with the rest.
    """

    complete: _DEFAULTS = _as_it_is
    check: _CHECK = _nothing_wrong
    check_update: _CheckUpdate = _nothing_fixed
    status: Mapping[str, Any] | None = None


_RULES: Mapping[str, Rules] = {
    "pods": Rules(check=check_pod, check_update=check_pod_update),
    "namespaces": Rules(kept_kinds.default_namespace, status={"phase": "Active"}),
    "deployments": Rules(
        workload_rules.default_deployment,
        workload_rules.check_deployment,
        workload_rules.check_selector_update,
        status={},
    ),
    "replicasets": Rules(
        workload_rules.default_replica_set,
        workload_rules.check_replica_set,
        workload_rules.check_selector_update,
        status={"replicas": 0},
    ),
    "statefulsets": Rules(
        workload_rules.default_stateful_set,
        workload_rules.check_stateful_set,
        workload_rules.check_stateful_set_update,
        status={"replicas": 0, "availableReplicas": 0},
    ),
    "jobs": Rules(workload_rules.default_job, workload_rules.check_job, workload_rules.check_job_update, status={}),
    "services": Rules(kept_kinds.default_service, kept_kinds.check_service, status={"loadBalancer": {}}),
    "secrets": Rules(kept_kinds.default_secret),
    "persistentvolumeclaims": Rules(kept_kinds.default_claim, status={"phase": "Pending"}),
}


def rules_of(resource: Resource) -> Rules:
    """The rules of a kind."""
    return _RULES.get(resource.plural, Rules())


def initial(resource: Resource, obj: JsonObject) -> JsonObject:
    """Return a new object with the status that its kind starts with."""
    if resource.plural == "pods":
        return {**obj, "status": {"phase": "Pending", "qosClass": qos_class(obj)}}
    if resource.plural == "nodes":
        status = obj.get("status") or {}
        return {**obj, "status": {"allocatable": status.get("capacity", {}), **status}}
    if resource.plural == "poddisruptionbudgets":
        return decoded(resource, {**obj, "status": {}})  # all of its counts are 0
    status = rules_of(resource).status
    if status is not None:
        return {**obj, "status": dict(status)}
    if resource.has_status:
        return {name: value for name, value in obj.items() if name != "status"}
    return obj
