"""The policy `binpack`: the fullest GPU that has room, then the fullest node, so that large pieces stay whole."""

from extender.placement.ranks import MAX_SCORE, Rank, emptiness, left_over
from extender.placement.views import NodeView
from fracgpu.requests import PodRequest


def rank(view: NodeView, request: PodRequest) -> Rank | None:
    """The units left over on the chosen GPUs, then on the node; None where the pod does not fit."""
    left = left_over(view, request)
    return None if left is None else (left, view.free_units)


def score(rank: Rank, view: NodeView, request: PodRequest) -> int:
    """From `MAX_SCORE` - 1 for nothing left over down to 1 for empty GPUs of the node's largest size."""
    return MAX_SCORE - 1 - emptiness(rank[0], view, request)
