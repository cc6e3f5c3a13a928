"""GPUs as NVML describes them: plain data."""

from dataclasses import dataclass

from fracgpu.names import GpuUuid
from fracgpu.quantities import Mib


@dataclass(frozen=True, slots=True)
class MigPlace:
    """Where a MIG instance lies.

    Attributes:
        parent: the GPU that it is a part of.
        position: NVML's index among the parent's MIG devices.
        gpu_instance: the number of its GPU instance.
        compute_instance: the number of its compute instance within that.
    """

    parent: GpuUuid
    position: int
    gpu_instance: int
    compute_instance: int


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU, or one MIG instance, which is a GPU of its own with its own memory.

    Attributes:
        uuid: its name for ever, ``GPU-...``; of a MIG instance ``MIG-...``, as long as it exists.
        index: NVML's index on this node, of a MIG instance its parent's; may change with a reboot.
        product: NVML's product name; empty where it could not be read.
        memory: video memory in MiB, rounded down; 0 where it could not be read.
        numa_node: the NUMA node it hangs on, where the driver tells.
        problem: why it must not be used; empty for a GPU that answers.
        minor: N of ``/dev/nvidiaN``, of a MIG instance its parent's; None where it could not be read.
        mig: where a MIG instance lies; None for a whole GPU.
    """

    uuid: GpuUuid
    index: int
    product: str
    memory: Mib
    numa_node: int | None = None
    problem: str = ""
    minor: int | None = None
    mig: MigPlace | None = None

    @property
    def index_name(self) -> str:
        """How NVIDIA's tools call it by index: ``0``, or ``0:1`` for a MIG instance."""
        return str(self.index) if self.mig is None else f"{self.index}:{self.mig.position}"
