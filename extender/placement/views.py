"""A node as placement sees it: its GPUs with what is free of each, as values that never change.

The index makes a new view of a node when one of its claims or GPUs changes; a decision reads one view from start to
end. Free amounts are below zero on an overdrawn GPU: what the kubelet gave away is recorded even above the limit.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from fracgpu.names import GpuUuid, NodeName
from fracgpu.plans import Share
from fracgpu.quantities import Mib, seat_units
from fracgpu.requests import ContainerRequest


@dataclass(frozen=True, slots=True)
class GpuView:
    """One GPU: capacity (`units`, `replicas` seats) and what is free of it.

    A GPU is `usable` while it is healthy; one that is not offers nothing, and keeps what it has given.
    """

    uuid: GpuUuid
    units: int
    replicas: int
    free_units: int
    free_seats: int
    usable: bool = True

    def share_for(self, request: ContainerRequest) -> Share:
        """What one GPU of the request takes here, whether or not it is free.

        A GPU of another replica count than the request is bound to takes more than it has, and so never fits.
        """
        if not request.seats:
            return Share(self.uuid, request.units)
        if request.seats > self.replicas or request.replicas not in (None, self.replicas):
            return Share(self.uuid, self.units + 1, request.seats)
        return Share(self.uuid, seat_units(request.seats, replicas=self.replicas, units=self.units), request.seats)

    def has_room_for(self, share: Share) -> bool:
        """Whether this share of it is free."""
        return self.usable and share.units <= self.free_units and share.seats <= self.free_seats

    def without(self, share: Share) -> "GpuView":
        """The GPU after this share has been taken."""
        return GpuView(
            self.uuid,
            self.units,
            self.replicas,
            self.free_units - share.units,
            self.free_seats - share.seats,
            self.usable,
        )


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node: the unit that its memory is counted in, and its GPUs in NVML's order.

    `pieces` holds the free units of every usable GPU, largest first: most questions need nothing else.
    """

    name: NodeName
    unit: Mib
    gpus: tuple[GpuView, ...]
    pieces: tuple[int, ...]

    @classmethod
    def of(cls, name: NodeName, *, unit: Mib, gpus: Iterable[GpuView]) -> "NodeView":
        """Build a view, with its pieces."""
        gpus = tuple(gpus)
        pieces = sorted((max(0, gpu.free_units) for gpu in gpus if gpu.usable), reverse=True)
        return cls(name, unit, gpus, tuple(pieces))

    @property
    def free_units(self) -> int:
        """Free units of all usable GPUs together."""
        return sum(self.pieces)
