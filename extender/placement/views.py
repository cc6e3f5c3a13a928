"""A node as placement sees it: its GPUs with what is free of each, as values that never change.

The index makes a new view of a node when one of its claims or GPUs changes; a decision reads one view from start to
end. Free amounts are below zero on an overdrawn GPU: what the kubelet gave away is recorded even above the limit.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from fracgpu.hosts import HostAmount
from fracgpu.names import GpuUuid, NodeName
from fracgpu.plans import Share
from fracgpu.quantities import Mib, seat_units
from fracgpu.requests import ContainerRequest

_UNKNOWN_MEMORY: Final = Mib(0)


class HostRoom(NamedTuple):
    """CPU and memory of a node: what pods may have, 0 if not known; and what is left, below 0 if they ask for more."""

    size: HostAmount
    free: HostAmount


@dataclass(frozen=True, slots=True)
class GpuView:
    """One GPU: capacity (`units`, `replicas` seats) and what is free of it.

    A GPU is `usable` while it is healthy; one that is not offers nothing, and keeps what it has given. `product` is
    NVML's name of the model, `memory` all that the card has, in MiB, whatever is offered of it.

    `numa_node` is set where the kubelet was told it, and then `seat_units` are the units that seats have taken with
    them: the kubelet, which counts device IDs, takes these for free.
    """

    uuid: GpuUuid
    units: int
    replicas: int
    free_units: int
    free_seats: int
    usable: bool = True
    product: str = ""
    numa_node: int | None = None
    seat_units: int = 0
    memory: Mib = _UNKNOWN_MEMORY

    @property
    def is_overdrawn(self) -> bool:
        """Whether more is taken of it than it has."""
        return self.free_units < 0 or self.free_seats < 0

    def share_for(self, request: ContainerRequest) -> Share:
        """What one GPU of the request takes here, whether or not it is free and acceptable.

        A GPU of another replica count than the request is bound to takes more than it has, and so never fits.
        """
        return Share(self.uuid, self.units_for(request), request.seats)

    def units_for(self, request: ContainerRequest) -> int:
        """The units of `share_for`."""
        if not request.seats:
            return request.units
        if request.seats > self.replicas or request.replicas not in (None, self.replicas):
            return self.units + 1
        return seat_units(request.seats, replicas=self.replicas, units=self.units)

    def has_room_for(self, request: ContainerRequest) -> bool:
        """Whether one GPU of the request could be this one, with what is free of it now."""
        return (
            self.usable
            and request.seats <= self.free_seats
            and self.units_for(request) <= self.free_units
            and self.is_acceptable(request)
        )

    def is_acceptable(self, request: ContainerRequest) -> bool:
        """Whether the request would take this GPU if all of it were free."""
        return request.selector is None or request.selector.accepts(
            uuid=self.uuid, product=self.product, memory=self.memory
        )

    def can_give(self, share: Share) -> bool:
        """Whether this share of it is free."""
        return self.usable and share.units <= self.free_units and share.seats <= self.free_seats

    def without(self, share: Share) -> "GpuView":
        """The GPU after this share has been taken: of memory alone, or of seats with their units."""
        return GpuView(
            self.uuid,
            self.units,
            self.replicas,
            self.free_units - share.units,
            self.free_seats - share.seats,
            self.usable,
            self.product,
            self.numa_node,
            self.seat_units + share.units if share.seats and self.numa_node is not None else self.seat_units,
            self.memory,
        )

    def anywhere(self) -> "GpuView":
        """The GPU if the kubelet had not been told its NUMA node."""
        return replace(self, numa_node=None, seat_units=0)

    def emptied(self) -> "GpuView":
        """The GPU if nothing were taken of it and it were healthy."""
        return replace(self, free_units=self.units, free_seats=self.replicas, usable=True, seat_units=0)


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node: the unit that its memory is counted in, and its GPUs in NVML's order.

    Most questions need only the rest.

    Attributes:
        name: the node's.
        unit: in MiB.
        gpus: all of them.
        fullest_first: the usable GPUs, those with the fewest free units and then seats first.
        pieces: free units of the usable GPUs, smallest first; 0 of an overdrawn one.
        sizes: units of all GPUs when empty, largest first.
        free_units: free units of all usable GPUs together.
        is_split: whether the kubelet chooses between NUMA nodes before it asks the plugin: see `numa`.
        host: its CPU and memory; None where they are not known.
    """

    name: NodeName
    unit: Mib
    gpus: tuple[GpuView, ...]
    fullest_first: tuple[GpuView, ...]
    pieces: tuple[int, ...]
    sizes: tuple[int, ...]
    free_units: int
    is_split: bool = False
    host: HostRoom | None = None

    @classmethod
    def of(cls, name: NodeName, *, unit: Mib, gpus: Iterable[GpuView], host: HostRoom | None = None) -> "NodeView":
        """Build a view, with what is derived from its GPUs."""
        gpus = tuple(gpus)
        fullest_first = sorted((gpu for gpu in gpus if gpu.usable), key=lambda gpu: (gpu.free_units, gpu.free_seats))
        pieces = tuple(sorted(0 if gpu.is_overdrawn else gpu.free_units for gpu in fullest_first))
        return cls(
            name,
            unit,
            gpus,
            fullest_first=tuple(fullest_first),
            pieces=pieces,
            sizes=tuple(sorted((gpu.units for gpu in gpus), reverse=True)),
            free_units=sum(pieces),
            is_split=len({gpu.numa_node for gpu in gpus}) > 1,
            host=host,
        )

    def without(self, taken: Iterable[Share]) -> "NodeView":
        """The node after these shares, each a pod's or a part of it, have been taken."""
        gpus = {gpu.uuid: gpu for gpu in self.gpus}
        for share in taken:
            if (gpu := gpus.get(share.gpu)) is not None:
                gpus[share.gpu] = gpu.without(share)
        return NodeView.of(self.name, unit=self.unit, gpus=gpus.values(), host=self.host)

    def anywhere(self) -> "NodeView":
        """The node if the kubelet had not been told the NUMA nodes of its GPUs."""
        return NodeView.of(self.name, unit=self.unit, gpus=(gpu.anywhere() for gpu in self.gpus), host=self.host)
