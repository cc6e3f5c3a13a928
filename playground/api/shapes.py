"""How the API server decodes a core object: null is an absent field, and a value of a wrong type is refused.

Pure. What comes out of ``decode`` has, in every field that is listed here, a value of that field's type: nothing that
reads objects has to look again. Fields that are not listed play no part in sharing GPUs and are kept as they are,
without their nulls. The wording is Go's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fracgpu.quantities import parse_quantity
from playground.api.resources import Resource
from playground.cluster import JsonObject

_QUANTITY_HINT = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


class ShapeError(ValueError):
    """A value does not have the type of its field."""


class _Shape(Protocol):
    """A Go type."""

    @property
    def go(self) -> str:
        """Its name in Go."""
        ...

    @property
    def zero(self) -> Any:
        """What Go makes of null where a value must be: in a list or a map."""
        ...

    def decode(self, value: Any, *, struct: str, path: str) -> Any:
        """Return a value that is not null as it is stored; ``struct`` and ``path`` tell where it stands."""
        ...


@dataclass(frozen=True, slots=True)
class _Scalar:
    go: str
    type: type
    zero: Any
    bits: int = 0

    def decode(self, value: Any, *, struct: str, path: str) -> Any:
        if not isinstance(value, self.type) or isinstance(value, bool) is not (self.type is bool):
            is_fraction = self.type is int and isinstance(value, float)
            raise _mismatch(value, self.go, struct=struct, path=path, shows_number=is_fraction)
        if isinstance(value, int) and self.bits and not -(1 << self.bits - 1) <= value < 1 << self.bits - 1:
            raise _mismatch(value, self.go, struct=struct, path=path, shows_number=True)
        return value


@dataclass(frozen=True, slots=True)
class _Quantity:
    go: str = "resource.Quantity"
    zero: Any = "0"

    def decode(self, value: Any, *, struct: str, path: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ShapeError(_QUANTITY_HINT)
        parse_quantity(str(value))
        return value


@dataclass(frozen=True, slots=True)
class _IntOrString:
    go: str = "intstr.IntOrString"
    zero: Any = 0

    def decode(self, value: Any, *, struct: str, path: str) -> Any:
        return value if isinstance(value, str) else _INT32.decode(value, struct=struct, path=path)


@dataclass(frozen=True, slots=True)
class _List:
    item: _Shape

    @property
    def go(self) -> str:
        return f"[]{self.item.go}"

    @property
    def zero(self) -> Any:
        return []

    def decode(self, value: Any, *, struct: str, path: str) -> Any:
        if not isinstance(value, list):
            raise _mismatch(value, self.go, struct=struct, path=path)
        return [
            self.item.decode(self.item.zero if inner is None else inner, struct=struct, path=path) for inner in value
        ]


@dataclass(frozen=True, slots=True)
class _Map:
    item: _Shape
    go: str = "map[string]string"

    @property
    def zero(self) -> Any:
        return {}

    def decode(self, value: Any, *, struct: str, path: str) -> Any:
        if not isinstance(value, dict):
            raise _mismatch(value, self.go, struct=struct, path=path)
        return {
            name: self.item.decode(self.item.zero if inner is None else inner, struct=struct, path=path)
            for name, inner in value.items()
        }


@dataclass(frozen=True, slots=True)
class _Struct:
    """A struct; ``always`` are the fields that Go writes even when they are empty (no ``omitempty``)."""

    name: str
    fields: Mapping[str, _Shape] = field(default_factory=dict)
    always: tuple[str, ...] = ()

    @property
    def go(self) -> str:
        return f"v1.{self.name}"

    @property
    def zero(self) -> Any:
        return {}

    def decode(self, value: Any, *, struct: str, path: str) -> Any:
        if not isinstance(value, dict):
            raise _mismatch(value, self.go, struct=struct, path=path)
        decoded = {name: self.fields[name].zero for name in self.always if value.get(name) is None}
        for name, inner in value.items():
            shape = self.fields.get(name)
            if inner is None:
                continue
            inside = f"{path}.{name}" if path else name
            decoded[name] = shape.decode(inner, struct=self.name, path=inside) if shape else _without_nulls(inner)
        return decoded


def decode(resource: Resource, obj: JsonObject) -> JsonObject:
    """Return an object as the API server stores it.

    Raises:
        ShapeError: a value has another type than its field.
        QuantityError: a quantity is none.
    """
    if resource.custom:  # its schema keeps what it does not know, nulls too
        return {**obj, "metadata": _METADATA.decode(obj["metadata"], struct=resource.kind, path="metadata")}
    shape = _Struct(resource.kind, {"metadata": _METADATA, **_KINDS.get(resource.plural, {})})
    decoded: JsonObject = shape.decode(obj, struct=resource.kind, path="")
    return decoded


def _mismatch(value: Any, go: str, *, struct: str, path: str, shows_number: bool = False) -> ShapeError:
    kinds = {bool: "bool", str: "string", list: "array", dict: "object"}
    kind = kinds.get(type(value), "number") + (f" {value}" if shows_number else "")
    return ShapeError(f"json: cannot unmarshal {kind} into Go struct field {struct}.{path} of type {go}")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


_TEXT = _Scalar("string", str, "")
_BOOL = _Scalar("bool", bool, False)
_INT32 = _Scalar("int32", int, 0, bits=32)
_INT64 = _Scalar("int64", int, 0, bits=64)
_TEXTS = _Map(_TEXT)
_AMOUNTS = _Map(_Quantity(), "v1.ResourceList")


def _named(go: str) -> _Scalar:
    return _Scalar(go, str, "")


def _struct(name: str, /, **fields: _Shape) -> _Struct:
    return _Struct(name, fields)


_METADATA = _struct(
    "ObjectMeta",
    name=_TEXT,
    generateName=_TEXT,
    namespace=_TEXT,
    uid=_named("types.UID"),
    resourceVersion=_TEXT,
    generation=_INT64,
    creationTimestamp=_TEXT,
    deletionTimestamp=_TEXT,
    deletionGracePeriodSeconds=_INT64,
    labels=_TEXTS,
    annotations=_TEXTS,
    finalizers=_List(_TEXT),
    ownerReferences=_List(
        _struct("OwnerReference", apiVersion=_TEXT, kind=_TEXT, name=_TEXT, uid=_named("types.UID"), controller=_BOOL)
    ),
    managedFields=_List(
        _Struct(
            "ManagedFieldsEntry",
            {"manager": _TEXT, "operation": _TEXT, "subresource": _TEXT, "fieldsV1": _Map(_struct("FieldsV1"))},
            always=("manager", "fieldsV1"),
        )
    ),
)
_CONTAINER = _Struct(
    "Container",
    {
        "name": _TEXT,
        "image": _TEXT,
        "imagePullPolicy": _named("v1.PullPolicy"),
        "command": _List(_TEXT),
        "args": _List(_TEXT),
        "workingDir": _TEXT,
        "restartPolicy": _named("v1.ContainerRestartPolicy"),
        "env": _List(
            _Struct("EnvVar", {"name": _TEXT, "value": _TEXT, "valueFrom": _Struct("EnvVarSource")}, always=("name",))
        ),
        "envFrom": _List(_Struct("EnvFromSource")),
        "ports": _List(
            _struct("ContainerPort", name=_TEXT, containerPort=_INT32, hostPort=_INT32, protocol=_TEXT, hostIP=_TEXT)
        ),
        "resources": _struct("ResourceRequirements", limits=_AMOUNTS, requests=_AMOUNTS),
        "volumeMounts": _List(_struct("VolumeMount", name=_TEXT, mountPath=_TEXT, readOnly=_BOOL)),
        "securityContext": _Struct("SecurityContext"),
    },
    always=("name",),
)
_POD_SPEC = _struct(
    "PodSpec",
    containers=_List(_CONTAINER),
    initContainers=_List(_CONTAINER),
    volumes=_List(_struct("Volume", name=_TEXT)),
    restartPolicy=_named("v1.RestartPolicy"),
    terminationGracePeriodSeconds=_INT64,
    activeDeadlineSeconds=_INT64,
    dnsPolicy=_named("v1.DNSPolicy"),
    nodeSelector=_TEXTS,
    nodeName=_TEXT,
    hostNetwork=_BOOL,
    securityContext=_Struct("PodSecurityContext"),
    imagePullSecrets=_List(_struct("LocalObjectReference", name=_TEXT)),
    affinity=_Struct("Affinity"),
    schedulerName=_TEXT,
    tolerations=_List(
        _struct("Toleration", key=_TEXT, operator=_TEXT, value=_TEXT, effect=_TEXT, tolerationSeconds=_INT64)
    ),
    priorityClassName=_TEXT,
    priority=_INT32,
    enableServiceLinks=_BOOL,
    preemptionPolicy=_named("v1.PreemptionPolicy"),
    overhead=_AMOUNTS,
    schedulingGates=_List(_struct("PodSchedulingGate", name=_TEXT)),
)
_CONDITION_FIELDS: Mapping[str, _Shape] = {
    "type": _TEXT,
    "status": _TEXT,
    "reason": _TEXT,
    "message": _TEXT,
    "lastTransitionTime": _TEXT,
    "lastProbeTime": _TEXT,
}
_CONTAINER_STATUSES = _List(
    _Struct(
        "ContainerStatus",
        {
            "name": _TEXT,
            "state": _struct(
                "ContainerState",
                waiting=_Struct("ContainerStateWaiting"),
                running=_Struct("ContainerStateRunning"),
                terminated=_Struct("ContainerStateTerminated"),
            ),
        },
        always=("name",),
    )
)
_POD_STATUS = _struct(
    "PodStatus",
    phase=_named("v1.PodPhase"),
    reason=_TEXT,
    message=_TEXT,
    startTime=_TEXT,
    conditions=_List(_Struct("PodCondition", _CONDITION_FIELDS, always=("type", "status"))),
    containerStatuses=_CONTAINER_STATUSES,
    initContainerStatuses=_CONTAINER_STATUSES,
)
_NODE_STATUS = _struct(
    "NodeStatus",
    capacity=_AMOUNTS,
    allocatable=_AMOUNTS,
    conditions=_List(_Struct("NodeCondition", _CONDITION_FIELDS, always=("type", "status"))),
    addresses=_List(_struct("NodeAddress", type=_TEXT, address=_TEXT)),
)
_SELECTOR = _struct(
    "LabelSelector",
    matchLabels=_TEXTS,
    matchExpressions=_List(
        _Struct(
            "LabelSelectorRequirement",
            {"key": _TEXT, "operator": _named("v1.LabelSelectorOperator"), "values": _List(_TEXT)},
            always=("key", "operator"),
        )
    ),
)
_DISRUPTION_COUNTS = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
_DISRUPTION_STATUS = _Struct(
    "PodDisruptionBudgetStatus",
    {**dict.fromkeys(_DISRUPTION_COUNTS, _INT32), "disruptedPods": _Map(_TEXT, "map[string]v1.Time")},
    always=_DISRUPTION_COUNTS,
)
_TEMPLATE = _struct("PodTemplateSpec", metadata=_METADATA, spec=_POD_SPEC)
_WORKLOAD_FIELDS: Mapping[str, _Shape] = {
    "replicas": _INT32,
    "minReadySeconds": _INT32,
    "revisionHistoryLimit": _INT32,
    "selector": _SELECTOR,
    "template": _TEMPLATE,
}
_REPLICA_COUNTS: Mapping[str, _Shape] = dict.fromkeys(
    ("replicas", "readyReplicas", "availableReplicas", "updatedReplicas", "unavailableReplicas"), _INT32
)
_KINDS: Mapping[str, Mapping[str, _Shape]] = {
    "deployments": {
        "spec": _Struct(
            "DeploymentSpec",
            {
                **_WORKLOAD_FIELDS,
                "paused": _BOOL,
                "progressDeadlineSeconds": _INT32,
                "strategy": _struct(
                    "DeploymentStrategy",
                    type=_named("v1.DeploymentStrategyType"),
                    rollingUpdate=_struct(
                        "RollingUpdateDeployment", maxSurge=_IntOrString(), maxUnavailable=_IntOrString()
                    ),
                ),
            },
        ),
        "status": _Struct("DeploymentStatus", _REPLICA_COUNTS),
    },
    "replicasets": {
        "spec": _Struct("ReplicaSetSpec", _WORKLOAD_FIELDS),
        "status": _Struct("ReplicaSetStatus", _REPLICA_COUNTS),
    },
    "statefulsets": {
        "spec": _Struct(
            "StatefulSetSpec",
            {
                **_WORKLOAD_FIELDS,
                "serviceName": _TEXT,
                "podManagementPolicy": _named("v1.PodManagementPolicyType"),
                "updateStrategy": _struct(
                    "StatefulSetUpdateStrategy",
                    type=_named("v1.StatefulSetUpdateStrategyType"),
                    rollingUpdate=_struct("RollingUpdateStatefulSetStrategy", partition=_INT32),
                ),
            },
        ),
        "status": _Struct("StatefulSetStatus", _REPLICA_COUNTS),
    },
    "jobs": {
        "spec": _struct(
            "JobSpec",
            parallelism=_INT32,
            completions=_INT32,
            backoffLimit=_INT32,
            suspend=_BOOL,
            selector=_SELECTOR,
            template=_TEMPLATE,
        ),
        "status": _struct("JobStatus", active=_INT32, succeeded=_INT32, failed=_INT32),
    },
    "services": {
        "spec": _struct(
            "ServiceSpec",
            type=_named("v1.ServiceType"),
            selector=_TEXTS,
            clusterIP=_TEXT,
            ports=_List(_Struct("ServicePort", {"name": _TEXT, "port": _INT32, "nodePort": _INT32}, always=("port",))),
        ),
    },
    "configmaps": {"data": _TEXTS, "binaryData": _TEXTS},
    "secrets": {"data": _TEXTS, "stringData": _TEXTS, "type": _named("v1.SecretType")},
    "pods": {"spec": _POD_SPEC, "status": _POD_STATUS},
    "nodes": {"spec": _struct("NodeSpec", unschedulable=_BOOL), "status": _NODE_STATUS},
    "poddisruptionbudgets": {
        "spec": _struct("PodDisruptionBudgetSpec", selector=_SELECTOR),
        "status": _DISRUPTION_STATUS,
    },
}
"""Plural -> the fields of its objects besides metadata."""
