"""The custom resource GPUNode: what a node's GPUs are (spec) and what the kubelet has given away of them (status).

Written by the device plugin of that node only; read by the extender and by people with kubectl. The schema that the
API server checks is in deploy/helm/fracgpu/files/crds.
"""

from typing import Any

import msgspec
from msgspec import Struct

from fracgpu.names import GPUNODE_API_VERSION, GPUNODE_KIND, GpuUuid, NodeName, PodUid
from fracgpu.plans import Share
from fracgpu.pods import ObjectMeta
from fracgpu.quantities import DEFAULT_MEMORY_UNIT, Mib
from fracgpu.sharing import PolicyProblem


class PendingShares(Struct, frozen=True, rename="camel"):
    """What a GPU, or with another memory unit a whole node, is to offer once nothing of it is granted any more."""

    units: int
    replicas: int


class Gpu(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One GPU of a node.

    Attributes:
        uuid: as NVML says it.
        index: NVML's index on that node.
        product: NVML's product name.
        memory: video memory in MiB.
        units: memory units it offers (U): after the reserved memory, rounded down.
        replicas: seats it offers (R).
        healthy: false takes it out of placement; what runs on it goes on.
        numa_node: the NUMA node it hangs on, where the machine tells.
        problem: why it is not healthy, as a sentence; empty for a healthy one.
        parent: of a MIG instance the UUID of the GPU that it is a part of; empty for a whole GPU.
        pending: what it will offer when its grants have ended; None where that is what it offers now.
    """

    uuid: GpuUuid
    index: int
    product: str
    memory: Mib = msgspec.field(name="memoryMiB")
    units: int
    replicas: int
    healthy: bool = True
    numa_node: int | None = None
    problem: str = ""
    parent: str = ""
    pending: PendingShares | None = None


class GpuNodeSpec(Struct, frozen=True, rename="camel"):
    """The GPUs of a node, and the unit in which their memory is counted.

    Attributes:
        memory_unit: the unit in force, in MiB.
        gpus: in NVML's order.
        pending_memory_unit: the unit, in MiB, that the administrator has set, where it comes into force only when
            nothing on the node is granted any more; None otherwise.
        numa_hints: whether the kubelet is told the GPUs' NUMA nodes, and therefore may choose between them by itself.
    """

    memory_unit: Mib = msgspec.field(name="memoryUnitMiB", default=DEFAULT_MEMORY_UNIT)
    gpus: tuple[Gpu, ...] = ()
    pending_memory_unit: Mib | None = msgspec.field(name="pendingMemoryUnitMiB", default=None)
    numa_hints: bool = False


class Grant(Struct, frozen=True, rename="camel"):
    """What the kubelet really gave a pod, by pod UID; kept until the pod's processes have ended.

    `containers` maps container name -> shares, as in a plan.
    """

    pod_uid: PodUid = msgspec.field(name="podUID")
    namespace: str
    name: str
    containers: dict[str, tuple[Share, ...]]


class UsedMemory(Struct, frozen=True, rename="camel"):
    """How much of a GPU's memory a container was seen to use, in MiB, rounded up.

    `container` is empty where it is only known to which pod the processes belong.
    """

    pod_uid: PodUid = msgspec.field(name="podUID")
    container: str
    gpu: GpuUuid
    used: Mib = msgspec.field(name="usedMiB")


class IsolationStatus(Struct, frozen=True, rename="camel"):
    """How pods are kept within their shares on a node.

    Attributes:
        mechanism: driver-limit, mps, preload or none.
        enforced: whether something really keeps a container from taking more; false is advice only.
        message: what that means here, and why it is not more, as a sentence.
    """

    mechanism: str
    enforced: bool
    message: str = ""


class SharingStatus(Struct, frozen=True, rename="camel"):
    """Which SharingPolicies a node follows, and what is wrong with those that name it."""

    policies: tuple[str, ...] = ()
    problems: tuple[PolicyProblem, ...] = ()


class GpuNodeStatus(Struct, frozen=True, rename="camel"):
    """The grants of a node, and what is used of them.

    Attributes:
        observed_pods: the resourceVersion up to which the plugin has seen this node's pods. That a pod has no grant
            means something only if the plugin had seen that pod.
        grants: one entry per pod that holds a share.
        ended_pods: UIDs of pods that the plugin has seen end, the last of them: what it has said of their grants
            since is final, however far `observed_pods` has come.
        isolation: how pods are kept within their shares; None until that is known.
        sharing: where the node's sharing is declared; None until that is known.
        usage: what pods with a grant use, one entry for each that could be measured; None where nothing could be, and
            where the plugin is of a version that does not say. Values that hardly moved are not written for their own
            sake (see `plugin.usage.reporting`).
        usage_time: when that was measured, by RFC 3339 in UTC.
    """

    observed_pods: str = ""
    grants: tuple[Grant, ...] = ()
    ended_pods: tuple[PodUid, ...] = ()
    isolation: IsolationStatus | None = None
    sharing: SharingStatus | None = None
    usage: tuple[UsedMemory, ...] | None = None
    usage_time: str | None = None


class GpuNode(Struct, frozen=True, rename="camel"):
    """The whole object."""

    metadata: ObjectMeta
    spec: GpuNodeSpec = GpuNodeSpec()
    status: GpuNodeStatus = GpuNodeStatus()
    api_version: str = GPUNODE_API_VERSION
    kind: str = GPUNODE_KIND

    @property
    def node(self) -> NodeName:
        """The node that this object is about: it has the same name."""
        return NodeName(self.metadata.name)


def written(part: GpuNodeSpec | GpuNodeStatus) -> dict[str, Any]:
    """A part of the object as JSON to be written, without what is unknown: null is a value to the API server."""
    found: dict[str, Any] = _without_null(msgspec.to_builtins(part))
    return found


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_null(inner) for inner in value]
    return value
