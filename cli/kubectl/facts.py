"""What `doctor` looks at, as values; of what could not be read, why. `gathering` reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from cli.kubectl.cluster import Cluster
from cli.kubectl.objects import (
    ConfigMap,
    Definition,
    Named,
    PolicyBinding,
    ProgramPod,
    Registration,
    Secret,
    Workload,
)
from fracgpu.nodes import Node

DEFAULT_NAMESPACE: Final = "fracgpu-system"
"""Where fracgpu is looked for when its registration does not say."""
DEFAULT_PREFIX: Final = "fracgpu"
"""What the names of its parts begin with, in the same case; the chart's nameOverride is another."""
REGISTRATION: Final = "fracgpu"
CRDS: Final = ("gpunodes.fracgpu.io", "sharingpolicies.fracgpu.io")

V_co = TypeVar("V_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Read(Generic[V_co]):
    """What was read.

    Attributes:
        value: it; None where it does not exist, or could not be read.
        unknown: why it could not be read; empty where it could, or does not exist.
    """

    value: V_co | None = None
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer over the API server's proxy: `problem` is what is wrong, empty where it is well."""

    text: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it.

    Attributes:
        namespace: fracgpu's.
        simulator: the version of a simulated cluster; empty for one that is real.
        prefix: what the names of its parts begin with, before a dash.
        definitions: name of a custom resource definition -> it.
        mutating, validating: the webhook's registrations.
        policies, bindings: the admission policies, and where they hold.
        webhook, extender, scheduler, plugin, redis: what runs them.
        scheduler_config: the configuration of the chart's scheduler.
        kube_schedulers: the pods of the cluster's own scheduler.
        secrets: part (webhook, extender, scheduler, plugin, redis) -> its certificate.
        runtime_class: that which the plugin's pods name.
        readiness: part (webhook, extender) -> what it says itself, a pod of it where none is ready.
        metrics: the extender's, likewise.
        cluster: GPUs and pods; None where they could not be read.
        hosts: the Nodes.
    """

    namespace: str = DEFAULT_NAMESPACE
    prefix: str = DEFAULT_PREFIX
    simulator: str = ""
    definitions: Mapping[str, Read[Definition]] = field(default_factory=dict)
    mutating: Read[Registration] = field(default_factory=Read)
    validating: Read[Registration] = field(default_factory=Read)
    policies: Read[list[Named]] = field(default_factory=Read)
    bindings: Read[list[PolicyBinding]] = field(default_factory=Read)
    webhook: Read[Workload] = field(default_factory=Read)
    extender: Read[Workload] = field(default_factory=Read)
    scheduler: Read[Workload] = field(default_factory=Read)
    plugin: Read[Workload] = field(default_factory=Read)
    redis: Read[Workload] = field(default_factory=Read)
    scheduler_config: Read[ConfigMap] = field(default_factory=Read)
    kube_schedulers: Read[list[ProgramPod]] = field(default_factory=Read)
    secrets: Mapping[str, Read[Secret]] = field(default_factory=dict)
    runtime_class: Read[Named] = field(default_factory=Read)
    readiness: Mapping[str, Read[Page]] = field(default_factory=dict)
    metrics: Read[Page] = field(default_factory=Read)
    cluster: Read[Cluster] = field(default_factory=Read)
    hosts: Read[list[Node]] = field(default_factory=Read)
