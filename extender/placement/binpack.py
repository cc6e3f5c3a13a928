"""The policy `binpack`: the fullest GPU that has room, then the fullest node, so that large pieces stay whole."""

from collections.abc import Callable

from extender.placement.fitting import Order, fullest_first
from extender.placement.policy import MAX_SCORE, Rank
from extender.placement.ranks import emptiness, left_over
from extender.placement.views import NodeView
from fracgpu.requests import PodRequest


class Binpack:
    """Best fit."""

    def rank(self, view: NodeView, request: PodRequest) -> Rank | None:
        """The units left over on the chosen GPUs, then on the node; None where the pod does not fit."""
        left = left_over(view, request, spreads=False)
        return None if left is None else (left, view.free_units)

    def score(self, rank: Rank, view: NodeView, request: PodRequest) -> int:
        """From `MAX_SCORE` - 1 for nothing left over down to 1 for empty GPUs of the node's largest size."""
        return MAX_SCORE - 1 - emptiness(rank[0], view, request)

    def likeness(self, request: PodRequest) -> Callable[[NodeView], None]:
        """Not looked for: a rank is quickly computed."""
        return lambda _view: None

    def order(self, view: NodeView, request: PodRequest) -> Order:
        """Those first of which the least is left over."""
        return fullest_first
