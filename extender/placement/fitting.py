"""Whether a pod fits on a node, and on which GPUs: best fit, one GPU's share never split over two.

Best fit takes, for each container, the fullest GPUs that still have room, the largest demand first. Where that
leaves a later container without a place, the next choices are tried, so that a pod that fits is found to fit.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Final

from extender.placement.views import GpuView, NodeView
from fracgpu.names import GpuUuid
from fracgpu.plans import Plan, Share
from fracgpu.requests import ContainerRequest, PodRequest

_MAX_TRIES: Final = 2000
"""Bounds the search over a pod of many containers on a node of many GPUs: some milliseconds. Best fit comes first, so
only a pod that fits in none of the first 2000 ways is turned away wrongly."""


def fits(view: NodeView, request: PodRequest) -> bool:
    """Whether the pod has a place on the node now."""
    if len(request.containers) == 1:
        (only,) = request.containers
        if not only.seats:  # the usual case, answered from the sorted pieces alone
            return len(view.pieces) >= only.gpus and view.pieces[only.gpus - 1] >= only.units
    return choose(view, request) is not None


def choose(view: NodeView, request: PodRequest) -> Plan | None:
    """Choose the GPUs of every container; None where the pod does not fit."""
    return _search(view, request, empty=False)


def could_ever_fit(view: NodeView, request: PodRequest) -> bool:
    """Whether the pod would fit if nothing else ran on the node and every GPU were healthy."""
    return _search(view, request, empty=True) is not None


def _search(view: NodeView, request: PodRequest, *, empty: bool) -> Plan | None:
    if empty:
        gpus = {gpu.uuid: GpuView(gpu.uuid, gpu.units, gpu.replicas, gpu.units, gpu.replicas) for gpu in view.gpus}
    else:
        gpus = {gpu.uuid: gpu for gpu in view.gpus}
    hardest_first = sorted(request.containers, key=_demand, reverse=True)
    found = _place(gpus, hardest_first, budget=[_MAX_TRIES])
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


def _place(
    gpus: dict[GpuUuid, GpuView], containers: list[ContainerRequest], *, budget: list[int]
) -> dict[str, tuple[Share, ...]] | None:
    """Place the containers one after the other, coming back to earlier choices while the budget lasts."""
    if not containers:
        return {}
    first, rest = containers[0], containers[1:]
    for chosen in _choices(gpus, first):
        budget[0] -= 1
        if budget[0] < 0:
            return None
        shares = tuple(gpu.share_for(first) for gpu in chosen)
        after = gpus | {gpu.uuid: gpu.without(share) for gpu, share in zip(chosen, shares, strict=True)}
        placed = _place(after, rest, budget=budget)
        if placed is not None:
            return {first.container: shares} | placed
    return None


def _choices(gpus: dict[GpuUuid, GpuView], request: ContainerRequest) -> Iterator[tuple[GpuView, ...]]:
    """The sets of GPUs that have room, the fullest first; of sets that differ in nothing but names only one."""
    roomy = [gpu for gpu in gpus.values() if gpu.has_room_for(gpu.share_for(request))]
    roomy.sort(key=lambda gpu: (gpu.free_units - gpu.share_for(request).units, gpu.free_units, gpu.free_seats))
    seen = set()
    for chosen in combinations(roomy, request.gpus):
        shape = tuple((gpu.units, gpu.replicas, gpu.free_units, gpu.free_seats) for gpu in chosen)
        if shape not in seen:
            seen.add(shape)
            yield chosen


def _demand(request: ContainerRequest) -> tuple[int, int, int]:
    return (request.gpus, request.units, request.seats)
