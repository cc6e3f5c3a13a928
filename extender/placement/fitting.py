"""Whether a pod fits on a node, and on which GPUs: best fit, one GPU's share never split over two.

Best fit takes, for each container, the fullest GPUs that still have room, the largest demand first. Where that
leaves a later container without a place, the next choices are tried, so that a pod that fits is found to fit.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from extender.placement import numa
from extender.placement.views import GpuView, NodeView
from fracgpu.names import GpuUuid
from fracgpu.plans import Plan, Share
from fracgpu.requests import ContainerRequest, PodRequest

_MAX_TRIES: Final = 500
"""Bounds the search over a pod of many containers on a node of many GPUs: some milliseconds. Best fit comes first, so
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


def choose(view: NodeView, request: PodRequest) -> Plan | None:
    """Choose the GPUs of every container; None where the pod does not fit."""
    gpus = {gpu.uuid: gpu for gpu in view.fullest_first}
    containers = list(request.containers)
    if not view.is_split:  # else the order in which the kubelet admits them decides what it offers to each
        containers.sort(key=_demand, reverse=True)
    found = _place(gpus, containers, is_split=view.is_split, budget=[_MAX_TRIES])
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


def fullest_with_room(gpus: Iterable[GpuView], request: ContainerRequest) -> list[GpuView]:
    """The GPUs that have room for one GPU of the request, those first of which the least is left over."""
    roomy = [gpu for gpu in gpus if gpu.has_room_for(request)]
    roomy.sort(key=lambda gpu: (gpu.free_units - gpu.units_for(request), gpu.free_units, gpu.free_seats))
    return roomy


def _place(
    gpus: dict[GpuUuid, GpuView], containers: list[ContainerRequest], *, is_split: bool, budget: list[int]
) -> dict[str, tuple[Share, ...]] | None:
    """Place the containers one after the other, coming back to earlier choices while the budget lasts."""
    if not containers:
        return {}
    first, rest = containers[0], containers[1:]
    for chosen in _choices(numa.offered(gpus.values(), first) if is_split else gpus.values(), first):
        budget[0] -= 1
        if budget[0] < 0:
            return None
        shares = tuple(gpu.share_for(first) for gpu in chosen)
        after = gpus | {gpu.uuid: gpu.without(share) for gpu, share in zip(chosen, shares, strict=True)}
        placed = _place(after, rest, is_split=is_split, budget=budget)
        if placed is not None:
            return {first.container: shares} | placed
    return None


def _choices(gpus: Iterable[GpuView], request: ContainerRequest) -> Iterator[tuple[GpuView, ...]]:
    """The sets of GPUs that have room, the fullest first; of sets that differ in nothing but names only one."""
    alike: dict[object, list[GpuView]] = {}  # all that matters of a GPU -> the GPUs with just that
    for gpu in fullest_with_room(gpus, request):
        traits = (gpu.units, gpu.replicas, gpu.free_units, gpu.free_seats, gpu.numa_node, gpu.seat_units)
        alike.setdefault(traits, []).append(gpu)
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
