"""What a container is lent, and how it gets to see it.

Plain data between the desk, the kubelet's interface and the parts that make a container see its GPUs (`injection`)
and keep it within its share (`isolation`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fracgpu.quantities import Mib
from plugin.gpus.cards import Card


@dataclass(frozen=True, slots=True)
class LentShare:
    """A container's share of one GPU.

    Attributes:
        card: the GPU.
        units: memory units of it, also where it was asked for in seats.
        seats: seats of it; 0 where it was asked for in memory.
        memory: what the units amount to.
        gpu_units: units that the whole GPU offers.
        gpu_seats: seats that the whole GPU offers (R).
    """

    card: Card
    units: int
    seats: int
    memory: Mib
    gpu_units: int
    gpu_seats: int


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount of a folder or file of the host."""

    host_path: str
    container_path: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device node of the host; `permissions` is some of ``rwm``."""

    host_path: str
    container_path: str
    permissions: str = "rw"


@dataclass(frozen=True, slots=True)
class Edits:
    """What the runtime is to change of a container: the fields of the kubelet's ContainerAllocateResponse."""

    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    cdi_devices: tuple[str, ...] = ()

    def plus(self, other: "Edits") -> "Edits":
        """Both; where both say something of one variable or annotation, the other wins."""
        return Edits(
            {**self.env, **other.env},
            tuple(dict.fromkeys((*self.mounts, *other.mounts))),
            tuple(dict.fromkeys((*self.devices, *other.devices))),
            {**self.annotations, **other.annotations},
            tuple(dict.fromkeys((*self.cdi_devices, *other.cdi_devices))),
        )
