"""What a pod would leave over on a node, by which policies compare nodes."""

from bisect import bisect_left
from typing import Final

from extender.placement import numa
from extender.placement.fitting import choose, is_plain, with_room
from extender.placement.views import NodeView
from fracgpu.annotations import DEFAULT_POLICY
from fracgpu.requests import PodRequest

MAX_SCORE: Final = 10
"""kube-scheduler's MaxExtenderPriority: for the one best node; no other has more than 9."""

Rank = tuple[int, int]
"""A node's place among the candidates; the smaller, the better. The second number decides between equals."""


def left_over(view: NodeView, request: PodRequest) -> int | None:
    """Units left on the GPUs that the pod would get on the node, by its policy; None where it does not fit."""
    if len(request.containers) > 1:
        plan = choose(view, request)
        if plan is None:
            return None
        taken = plan.per_gpu()
        return sum(gpu.free_units - taken[gpu.uuid].units for gpu in view.gpus if gpu.uuid in taken)
    (only,) = request.containers
    if is_plain(only) and not view.is_split:
        if (request.policy or DEFAULT_POLICY) == "spread":
            chosen = view.pieces[-only.gpus :]
            fit = chosen[0] >= only.units if chosen else False
        else:
            first = bisect_left(view.pieces, only.units)
            chosen, fit = view.pieces[first : first + only.gpus], True
        return sum(chosen) - only.gpus * only.units if fit and len(chosen) == only.gpus else None
    gpus = numa.offered(view.fullest_first, only) if view.is_split else view.fullest_first
    roomy = with_room(gpus, only, policy=request.policy)[: only.gpus]
    return sum(gpu.free_units - gpu.units_for(only) for gpu in roomy) if len(roomy) == only.gpus else None


def emptiness(left: int, view: NodeView, request: PodRequest) -> int:
    """How much is left over, from 0 for nothing to `MAX_SCORE` - 2 for GPUs of the node's largest size, untouched."""
    whole = max(1, view.sizes[0] * sum(container.gpus for container in request.containers))
    return (MAX_SCORE - 2) * min(left, whole) // whole
