"""The policy `binpack`: the fullest GPU that has room, then the fullest node, so that large pieces stay whole.

What a node is worth to a request depends on that node alone, so that it can be kept until the node changes.
"""

from bisect import bisect_left
from typing import Final

from extender.placement import numa
from extender.placement.fitting import choose, fullest_with_room, is_plain
from extender.placement.views import NodeView
from fracgpu.requests import PodRequest

MAX_SCORE: Final = 10
"""kube-scheduler's MaxExtenderPriority: for the one best node; no other has more than 9."""

Rank = tuple[int, int]
"""Units left over on the chosen GPUs and on the node; the smaller, the better."""


def rank(view: NodeView, request: PodRequest) -> Rank | None:
    """How well the pod would fit on the node; None where it does not."""
    left_over = _left_over(view, request)
    return None if left_over is None else (left_over, view.free_units)


def score(rank: Rank, view: NodeView, request: PodRequest) -> int:
    """From `MAX_SCORE` - 1 for nothing left over down to 1 for empty GPUs of the node's largest size."""
    whole = max(1, view.sizes[0] * sum(container.gpus for container in request.containers))
    return MAX_SCORE - 1 - (MAX_SCORE - 2) * min(rank[0], whole) // whole


def _left_over(view: NodeView, request: PodRequest) -> int | None:
    if len(request.containers) > 1:
        plan = choose(view, request)
        if plan is None:
            return None
        taken = plan.per_gpu()
        return sum(gpu.free_units - taken[gpu.uuid].units for gpu in view.gpus if gpu.uuid in taken)
    (only,) = request.containers
    if is_plain(only) and not view.is_split:
        first = bisect_left(view.pieces, only.units)
        chosen = view.pieces[first : first + only.gpus]
        return sum(chosen) - only.gpus * only.units if len(chosen) == only.gpus else None
    gpus = numa.offered(view.fullest_first, only) if view.is_split else view.fullest_first
    roomy = fullest_with_room(gpus, only)[: only.gpus]
    return sum(gpu.free_units - gpu.units_for(only) for gpu in roomy) if len(roomy) == only.gpus else None
