"""What a pod would leave over on the GPUs that it gets, by which `binpack` and `spread` compare nodes."""

from bisect import bisect_left

from extender.placement import numa
from extender.placement.fitting import choose, emptiest_first, fullest_first, is_plain
from extender.placement.policy import MAX_SCORE
from extender.placement.views import NodeView
from fracgpu.requests import PodRequest


def left_over(view: NodeView, request: PodRequest, *, spreads: bool) -> int | None:
    """Units left on the GPUs that the pod would get on the node; None where it does not fit.

    Args:
        view: the node.
        request: what the pod asks; nothing for one without a GPU.
        spreads: whether it takes the emptiest GPUs, and not the fullest.
    """
    order = emptiest_first if spreads else fullest_first
    if not request.containers:
        return 0
    if len(request.containers) > 1:
        plan = choose(view, request, order=order)
        if plan is None:
            return None
        taken = plan.per_gpu()
        return sum(gpu.free_units - taken[gpu.uuid].units for gpu in view.gpus if gpu.uuid in taken)
    (only,) = request.containers
    if is_plain(only) and not view.is_split:
        if spreads:
            chosen = view.pieces[-only.gpus :]
            fit = chosen[0] >= only.units if chosen else False
        else:
            first = bisect_left(view.pieces, only.units)
            chosen, fit = view.pieces[first : first + only.gpus], True
        return sum(chosen) - only.gpus * only.units if fit and len(chosen) == only.gpus else None
    gpus = numa.offered(view.fullest_first, only) if view.is_split else view.fullest_first
    roomy = order(gpus, only)[: only.gpus]
    return sum(gpu.free_units - gpu.units_for(only) for gpu in roomy) if len(roomy) == only.gpus else None


def emptiness(left: int, view: NodeView, request: PodRequest) -> int:
    """How much is left over, from 0 for nothing to `MAX_SCORE` - 2 for GPUs of the node's largest size, untouched."""
    whole = max(1, max(view.sizes, default=0) * sum(container.gpus for container in request.containers))
    return (MAX_SCORE - 2) * min(left, whole) // whole
