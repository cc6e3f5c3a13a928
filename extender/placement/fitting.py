"""Whether a pod fits on a node, and on which GPUs: one GPU's share is never split over two.

Containers are placed one after the other, the largest demand first, each on the GPUs with room that come first in an
order: usually the fullest (best fit); the policies have their own. Where that leaves a later container without a place,
the next choices are tried, so that a pod that fits is found to fit. Between nodes the policies choose.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from extender.placement import numa
from extender.placement.views import GpuView, NodeView
from fracgpu.names import GpuUuid
from fracgpu.plans import Plan, Share
from fracgpu.requests import ContainerRequest, PodRequest

Order = Callable[[Collection[GpuView], ContainerRequest], list[GpuView]]
"""Of a node's GPUs, with what is free of them by now, those with room for a container, the preferred ones first."""

_MAX_TRIES: Final = 500
"""Bounds the search over a pod of many containers on a node of many GPUs: some milliseconds. The best comes first, so
only a pod that fits in none of the first 500 ways is turned away wrongly."""


def fits(view: NodeView, request: PodRequest) -> bool:
    """Whether the pod has a place on the node now."""
    if len(request.containers) > 1:
        return choose(view, request) is not None
    (only,) = request.containers
    if view.is_split:
        return sum(gpu.has_room_for(only) for gpu in numa.offered(view.fullest_first, only)) >= only.gpus
    if is_plain(only):  # the usual case, answered from the pieces alone
        return len(view.pieces) >= only.gpus and view.pieces[-only.gpus] >= only.units
    room = 0
    for gpu in reversed(view.fullest_first):
        room += gpu.has_room_for(only)
        if room == only.gpus:
            return True
    return False


def fullest_first(gpus: Iterable[GpuView], request: ContainerRequest) -> list[GpuView]:
    """The GPUs that have room for one GPU of the request, those first of which the least is left over."""
    return sorted((gpu for gpu in gpus if gpu.has_room_for(request)), key=lambda gpu: _left_over(gpu, request))


def emptiest_first(gpus: Iterable[GpuView], request: ContainerRequest) -> list[GpuView]:
    """The same GPUs, those first of which the most is left over."""
    roomy = (gpu for gpu in gpus if gpu.has_room_for(request))
    return sorted(roomy, key=lambda gpu: _left_over(gpu, request), reverse=True)


def choose(view: NodeView, request: PodRequest, *, order: Order = fullest_first) -> Plan | None:
    """Choose the GPUs of every container; None where the pod does not fit."""
    gpus = {gpu.uuid: gpu for gpu in view.fullest_first}
    containers = list(request.containers)
    if not view.is_split:  # else the order in which the kubelet admits them decides what it offers to each
        containers.sort(key=_demand, reverse=True)
    found = _Search(order, is_split=view.is_split).place(gpus, containers)
    if found is None and order is not fullest_first:  # by which `fits` says that it fits
        found = _Search(fullest_first, is_split=view.is_split).place(gpus, containers)
    if found is None:
        return None
    return Plan(
        view.unit,
        {
            # Sorted, as grants are: the same shares compare equal wherever they come from.
            container.container: tuple(sorted(found[container.container], key=lambda share: share.gpu))
            for container in request.containers
        },
    )


def could_be(plan: Plan, request: PodRequest, view: NodeView) -> bool:
    """Whether a plan gives every container what it asks for, out of what is free on the node."""
    gpus = {gpu.uuid: gpu for gpu in view.fullest_first}
    asked = {container.container: container for container in request.containers}
    if plan.unit != view.unit or plan.containers.keys() != asked.keys() or not plan.per_gpu().keys() <= gpus.keys():
        return False
    for name, shares in plan.containers.items():
        wanted = asked[name]
        if len({share.gpu for share in shares}) != wanted.gpus or len(shares) != wanted.gpus:
            return False
        if any(
            not gpus[share.gpu].has_room_for(wanted) or gpus[share.gpu].share_for(wanted) != share for share in shares
        ):
            return False
    if not all(gpus[gpu].can_give(share) for gpu, share in plan.per_gpu().items()):
        return False
    return not view.is_split or _is_offered(plan, request, gpus)


def could_ever_fit(view: NodeView, request: PodRequest) -> bool:
    """Whether the pod would fit if nothing else ran on the node and every GPU were healthy.

    Whatever the kubelet makes of NUMA nodes: what it offers may be the right GPU only while others are full.
    """
    if len(request.containers) == 1 and is_plain(request.containers[0]):
        (only,) = request.containers
        return len(view.sizes) >= only.gpus and view.sizes[only.gpus - 1] >= only.units
    return fits(NodeView.of(view.name, unit=view.unit, gpus=(gpu.emptied().anywhere() for gpu in view.gpus)), request)


def is_plain(request: ContainerRequest) -> bool:
    """Whether only free memory decides where the container may go: it asks for units, of any GPU."""
    return not request.seats and request.selector is None


def _left_over(gpu: GpuView, request: ContainerRequest) -> tuple[int, int, int]:
    return gpu.free_units - gpu.units_for(request), gpu.free_units, gpu.free_seats


class _Search:
    """The search for the places of a pod's containers on one node."""

    def __init__(self, order: Order, *, is_split: bool) -> None:
        self._order = order
        self._is_split = is_split
        self._tries_left = _MAX_TRIES

    def place(
        self, gpus: dict[GpuUuid, GpuView], containers: list[ContainerRequest]
    ) -> dict[str, tuple[Share, ...]] | None:
        """Place the containers one after the other, coming back to earlier choices while the tries last."""
        if not containers:
            return {}
        first, rest = containers[0], containers[1:]
        for chosen in self._choices(
            numa.offered(gpus.values(), first) if self._is_split else gpus.values(), first, rest
        ):
            self._tries_left -= 1
            if self._tries_left < 0:
                return None
            shares = tuple(gpu.share_for(first) for gpu in chosen)
            after = gpus | {gpu.uuid: gpu.without(share) for gpu, share in zip(chosen, shares, strict=True)}
            placed = self.place(after, rest)
            if placed is not None:
                return {first.container: shares} | placed
        return None

    def _choices(
        self, gpus: Collection[GpuView], request: ContainerRequest, rest: list[ContainerRequest]
    ) -> Iterator[tuple[GpuView, ...]]:
        """The sets of GPUs that have room, the best first; of sets that differ in nothing that matters only one."""
        choosy = [container for container in rest if container.selector is not None]
        alike: dict[object, list[GpuView]] = {}  # all that matters of a GPU -> the GPUs with just that
        for gpu in self._order(gpus, request):
            traits = (gpu.units, gpu.replicas, gpu.free_units, gpu.free_seats, gpu.numa_node, gpu.seat_units)
            alike.setdefault((traits, *map(gpu.is_acceptable, choosy)), []).append(gpu)
        return _taken_from(list(alike.values()), request.gpus)


def _taken_from(groups: list[list[GpuView]], count: int) -> Iterator[tuple[GpuView, ...]]:
    """Each way to take so many from groups of equals, as many as possible from the first groups first."""
    if count == 0:
        yield ()
    elif sum(map(len, groups)) >= count:
        first, rest = groups[0], groups[1:]
        for here in range(min(len(first), count), -1, -1):
            for others in _taken_from(rest, count - here):
                yield (*first[:here], *others)


def _is_offered(plan: Plan, request: PodRequest, gpus: dict[GpuUuid, GpuView]) -> bool:
    """Whether the kubelet lets every container, one after the other, have the GPUs that the plan gives it."""
    gpus = dict(gpus)
    for container in request.containers:
        offered = {gpu.uuid for gpu in numa.offered(gpus.values(), container)}
        for share in plan.containers[container.container]:
            if share.gpu not in offered:
                return False
            gpus[share.gpu] = gpus[share.gpu].without(share)
    return True


def _demand(request: ContainerRequest) -> tuple[int, int, int]:
    return (request.gpus, request.units, request.seats)
