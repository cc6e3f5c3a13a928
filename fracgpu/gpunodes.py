"""The custom resource GPUNode: what a node's GPUs are (spec) and what the kubelet has given away of them (status).

Written by the device plugin of that node only; read by the extender and by people with kubectl. The schema that the
API server checks is in deploy/crds.
"""

import msgspec
from msgspec import Struct

from fracgpu.names import GPUNODE_API_VERSION, GPUNODE_KIND, GpuUuid, NodeName, PodUid
from fracgpu.plans import Share
from fracgpu.pods import ObjectMeta
from fracgpu.quantities import DEFAULT_MEMORY_UNIT, Mib


class Gpu(Struct, frozen=True, rename="camel"):
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
    """

    uuid: GpuUuid
    index: int
    product: str
    memory: Mib = msgspec.field(name="memoryMiB")
    units: int
    replicas: int
    healthy: bool = True
    numa_node: int | None = None


class GpuNodeSpec(Struct, frozen=True, rename="camel"):
    """The GPUs of a node, and the unit in which their memory is counted."""

    memory_unit: Mib = msgspec.field(name="memoryUnitMiB", default=DEFAULT_MEMORY_UNIT)
    gpus: tuple[Gpu, ...] = ()


class Grant(Struct, frozen=True, rename="camel"):
    """What the kubelet really gave a pod, by pod UID; kept until the pod's processes have ended.

    `containers` maps container name -> shares, as in a plan.
    """

    pod_uid: PodUid = msgspec.field(name="podUID")
    namespace: str
    name: str
    containers: dict[str, tuple[Share, ...]]


class GpuNodeStatus(Struct, frozen=True, rename="camel"):
    """The grants of a node.

    Attributes:
        observed_pods: the resourceVersion up to which the plugin has seen this node's pods. That a pod has no grant
            means something only if the plugin had seen that pod.
        grants: one entry per pod that holds a share.
        ended_pods: UIDs of pods that the plugin has seen end, the last of them: what it has said of their grants
            since is final, however far `observed_pods` has come.
    """

    observed_pods: str = ""
    grants: tuple[Grant, ...] = ()
    ended_pods: tuple[PodUid, ...] = ()


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
