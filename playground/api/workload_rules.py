"""What the API server fills into Deployments, ReplicaSets, StatefulSets and Jobs, and what it refuses in them. Pure.

The wording is kube-apiserver's. Of a pod template that is refused which a pod would be refused for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from playground.api.errors import FieldError, invalid_value, required, unsupported_value
from playground.api.pod_defaults import default_template
from playground.api.validation import check_pod_spec
from playground.cluster import JsonObject

_HISTORY = 10
_PERCENT_HINT = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for "
    "validation is '[0-9]+%')"
)
_MUTABLE_STATEFULSET = (
    *("replicas", "ordinals", "template", "updateStrategy"),
    *("revisionHistoryLimit", "persistentVolumeClaimRetentionPolicy", "minReadySeconds"),
)
_JOB_NAME = ("batch.kubernetes.io/job-name", "job-name")
_JOB_UID = ("batch.kubernetes.io/controller-uid", "controller-uid")


def default_deployment(obj: JsonObject) -> JsonObject:
    """Return a Deployment with its defaults."""
    spec = _with_template(obj)
    strategy = {"type": "RollingUpdate", **spec.get("strategy", {})}
    if strategy["type"] == "RollingUpdate":
        strategy["rollingUpdate"] = {
            "maxUnavailable": "25%",
            "maxSurge": "25%",
            **(strategy.get("rollingUpdate") or {}),
        }
    defaults = {"replicas": 1, "revisionHistoryLimit": _HISTORY, "progressDeadlineSeconds": 600}
    return {**obj, "spec": {**defaults, **spec, "strategy": strategy}}


def default_replica_set(obj: JsonObject) -> JsonObject:
    """Return a ReplicaSet with its defaults."""
    return {**obj, "spec": {"replicas": 1, **_with_template(obj)}}


def default_stateful_set(obj: JsonObject) -> JsonObject:
    """Return a StatefulSet with its defaults."""
    spec = _with_template(obj)
    update = {"type": "RollingUpdate", **spec.get("updateStrategy", {})}
    if update["type"] == "RollingUpdate":
        update["rollingUpdate"] = {"partition": 0, **(update.get("rollingUpdate") or {})}
    defaults = {
        "replicas": 1,
        "podManagementPolicy": "OrderedReady",
        "revisionHistoryLimit": _HISTORY,
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
    }
    return {**obj, "spec": {**defaults, **spec, "updateStrategy": update}}


def default_job(obj: JsonObject) -> JsonObject:
    """Return a Job with its defaults; it has its UID by now, by which it knows its pods."""
    spec = _with_template(obj)
    # With parallelism alone the pods work off a queue of their own, and nobody counts completions.
    completions = {} if "parallelism" in spec else {"completions": 1}
    defaults = {
        "parallelism": 1,
        **completions,
        "backoffLimit": 6,
        "manualSelector": False,
        "completionMode": "NonIndexed",
        "suspend": False,
        "podReplacementPolicy": "TerminatingOrFailed",
    }
    spec = {**defaults, **spec}
    metadata = obj["metadata"]
    if not spec["manualSelector"]:
        uid = metadata["uid"]
        labels = dict.fromkeys(_JOB_UID, uid) | dict.fromkeys(_JOB_NAME, metadata.get("name", ""))
        template = spec["template"].get("metadata", {})
        own = {**template, "labels": {**template.get("labels", {}), **labels}}
        spec["template"] = {**spec["template"], "metadata": own}
        spec["selector"] = {"matchLabels": {_JOB_UID[0]: uid}}
    if not metadata.get("labels"):
        metadata = {**metadata, "labels": spec["template"].get("metadata", {}).get("labels", {})}
    return {**obj, "metadata": metadata, "spec": spec}


def check_deployment(obj: JsonObject) -> list[FieldError]:
    """Check a Deployment, defaults filled in."""
    wrong = _check_strategy(obj["spec"]["strategy"])
    return [*_check_counts(obj, "replicas"), *_check_template(obj, ("Always",)), *wrong]


def check_replica_set(obj: JsonObject) -> list[FieldError]:
    """Check a ReplicaSet, defaults filled in."""
    return [*_check_counts(obj, "replicas"), *_check_template(obj, ("Always",))]


check_stateful_set = check_replica_set


def check_job(obj: JsonObject) -> list[FieldError]:
    """Check a Job, defaults filled in."""
    errors = _check_counts(obj, "parallelism", "completions", "backoffLimit")
    return [*errors, *_check_template(obj, ("OnFailure", "Never"))]


def check_selector_update(new: JsonObject, *, old: JsonObject) -> list[FieldError]:
    """Check that a Deployment or a ReplicaSet still means the same pods."""
    selector = new["spec"].get("selector")
    if selector == old["spec"].get("selector"):
        return []
    return [invalid_value("spec.selector", selector, "field is immutable")]


def check_stateful_set_update(new: JsonObject, *, old: JsonObject) -> list[FieldError]:
    """Check that an update of a StatefulSet leaves alone what may not change."""
    fixed = [{k: v for k, v in obj["spec"].items() if k not in _MUTABLE_STATEFULSET} for obj in (new, old)]
    if fixed[0] == fixed[1]:
        return []
    named = ", ".join(f"'{field}'" for field in _MUTABLE_STATEFULSET[:-1])
    message = (
        f"Forbidden: updates to statefulset spec for fields other than {named} and '{_MUTABLE_STATEFULSET[-1]}' "
        "are forbidden"
    )
    return [FieldError("spec", "FieldValueForbidden", message)]


def check_job_update(new: JsonObject, *, old: JsonObject) -> list[FieldError]:
    """Check that an update of a Job leaves its pods as they are; it has to be made anew to change them."""
    return [
        invalid_value(f"spec.{field}", new["spec"].get(field), "field is immutable")
        for field in ("completions", "selector", "template", "completionMode")
        if new["spec"].get(field) != old["spec"].get(field)
    ]


def labels_match(selector: JsonObject, labels: Mapping[str, str]) -> bool:
    """Whether labels fulfil a LabelSelector."""
    if any(labels.get(label) != value for label, value in selector.get("matchLabels", {}).items()):
        return False
    return all(_holds(term, labels) for term in selector.get("matchExpressions", []))


def _holds(term: JsonObject, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(term["key"]), term.get("values", [])
    if term["operator"] == "In":
        return value in values
    if term["operator"] == "NotIn":
        return value not in values
    exists = value is not None
    return exists if term["operator"] == "Exists" else not exists


def _with_template(obj: JsonObject) -> JsonObject:
    spec: JsonObject = dict(obj.get("spec", {}))
    return {**spec, "template": default_template(spec.get("template", {}))}


def _check_counts(obj: JsonObject, *fields: str) -> list[FieldError]:
    return [
        invalid_value(f"spec.{field}", obj["spec"][field], "must be greater than or equal to 0")
        for field in fields
        if obj["spec"].get(field, 0) < 0
    ]


def _check_template(obj: JsonObject, policies: Sequence[str]) -> list[FieldError]:
    selector, template = obj["spec"].get("selector"), obj["spec"]["template"]
    labels = template.get("metadata", {}).get("labels")
    errors = [required("spec.selector")] if selector is None else []
    if selector == {}:
        errors.append(invalid_value("spec.selector", {}, "empty selector is invalid"))
    if selector is None or not labels_match(selector, labels or {}):
        hint = "`selector` does not match template `labels`"
        errors.append(invalid_value("spec.template.metadata.labels", labels, hint))
    found = check_pod_spec(template["spec"], field="spec.template.spec")
    found = [error for error in found if not error.field.endswith(".restartPolicy")]
    policy, field = template["spec"]["restartPolicy"], "spec.template.spec.restartPolicy"
    if policy not in policies and policy == "Always":  # it may be the default
        found.append(required(field, f"valid values: {', '.join(json.dumps(choice) for choice in policies)}"))
    elif policy not in policies:
        found.append(unsupported_value(field, policy, policies))
    return [*errors, *found]


def _check_strategy(strategy: JsonObject) -> list[FieldError]:
    kind, field = strategy["type"], "spec.strategy.rollingUpdate"
    if kind == "Recreate":
        message = "Forbidden: may not be specified when strategy `type` is 'Recreate'"
        return [FieldError(field, "FieldValueForbidden", message)] if "rollingUpdate" in strategy else []
    if kind != "RollingUpdate":
        return [unsupported_value("spec.strategy.type", kind, ("Recreate", "RollingUpdate"))]
    missing, surge = (strategy["rollingUpdate"][bound] for bound in ("maxUnavailable", "maxSurge"))
    errors = [*_check_bound(missing, f"{field}.maxUnavailable"), *_check_bound(surge, f"{field}.maxSurge")]
    if _bound(missing) == _bound(surge) == 0:
        errors.append(invalid_value(f"{field}.maxUnavailable", missing, "may not be 0 when `maxSurge` is 0"))
    if isinstance(missing, str) and _bound(missing) > 100:
        errors.append(invalid_value(f"{field}.maxUnavailable", missing, "must not be greater than 100%"))
    return errors


def _check_bound(value: int | str, field: str) -> list[FieldError]:
    if isinstance(value, str):
        return [] if re.fullmatch("[0-9]+%", value) else [invalid_value(field, value, _PERCENT_HINT)]
    return [] if value >= 0 else [invalid_value(field, value, "must be greater than or equal to 0")]


def _bound(value: int | str) -> int:
    """The number in a bound, which may be refused for something else; 0 where there is none."""
    text = str(value)
    return int(text.removesuffix("%")) if re.fullmatch("[0-9]{1,18}%|[+-]?[0-9]{1,18}", text) else 0
