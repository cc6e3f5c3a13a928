"""How GPUs are to be shared, as administrators declare it: the custom resource SharingPolicy, and its vocabulary.

The same `SharingSpec` may stand in the device plugin's own configuration file. Which of several that name a GPU wins is
decided in `plugin/sharing`; the schema that the API server checks is in deploy/helm/fracgpu/files/crds.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from fracgpu.names import GPUNODE_API_VERSION, SHARINGPOLICY_KIND
from fracgpu.pods import ObjectMeta
from fracgpu.quantities import Mib

IsolationChoice = Literal["auto", "driver-limit", "mps", "preload", "none"]
"""How pods are kept within their shares; `auto` is the strongest that a node has."""


class LabelRequirement(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """metav1.LabelSelectorRequirement."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels fulfil it; as in Kubernetes, NotIn is fulfilled where the label is absent."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case _:
                return self.key not in labels


class LabelSelector(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """metav1.LabelSelector; an empty one matches everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelRequirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels fulfil all of it."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )


class GpuRule(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """How some of a node's GPUs are shared, where they differ from the rest; exactly one of `model` and `uuid` is set.

    Attributes:
        model: a product name, in the way of the annotation fracgpu.io/gpu-model.
        uuid: a GPU's or a MIG instance's.
        replicas: seats of each.
        reserved: MiB of each that are never given away.
        excluded: whether fracgpu leaves these alone.
    """

    model: str = ""
    uuid: str = ""
    replicas: int | None = None
    reserved: Mib | None = msgspec.field(name="reservedMiB", default=None)
    excluded: bool | None = None


class SharingSpec(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What is declared for the nodes of a selector; what it leaves open comes from less specific declarations.

    Attributes:
        node_selector: which nodes, by their labels; None for all.
        replicas: seats of each GPU.
        reserved: MiB of each GPU that are never given away.
        isolation: how pods are kept within their shares.
        memory_unit: the memory unit in MiB that these nodes are expected to count in: checked, never set by this.
        gpus: GPUs that differ.
    """

    node_selector: LabelSelector | None = None
    replicas: int | None = None
    reserved: Mib | None = msgspec.field(name="reservedMiB", default=None)
    isolation: IsolationChoice | None = None
    memory_unit: Mib | None = msgspec.field(name="memoryUnitMiB", default=None)
    gpus: tuple[GpuRule, ...] = ()


class PolicyProblem(Struct, frozen=True, rename="camel"):
    """What keeps a node from following a policy in everything.

    Attributes:
        policy: its name.
        generation: of the policy, when that was found.
        reason: Conflict (another policy of the same specificity says otherwise, and wins), Invalid (these GPUs cannot
            be shared so) or UnitMismatch (the node counts in another unit).
        message: what was found, and what to do.
    """

    policy: str
    generation: int
    reason: Literal["Conflict", "Invalid", "UnitMismatch"]
    message: str


class Condition(Struct, frozen=True, rename="camel"):
    """metav1.Condition."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    observed_generation: int = 0
    last_transition_time: str = ""


class SharingPolicyStatus(Struct, frozen=True, rename="camel"):
    """What has become of a policy.

    Attributes:
        observed_generation: of the policy that this is about.
        conditions: Accepted (no node finds fault with it) and InForce (some node follows it).
        node_count: how many nodes follow it.
        nodes: their names, in order.
    """

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    node_count: int = 0
    nodes: tuple[str, ...] = ()


class SharingPolicy(Struct, frozen=True, rename="camel"):
    """The whole object; cluster-scoped."""

    metadata: ObjectMeta
    spec: SharingSpec = SharingSpec()
    status: SharingPolicyStatus | None = None
    api_version: str = GPUNODE_API_VERSION
    kind: str = SHARINGPOLICY_KIND
