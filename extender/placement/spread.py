"""The policy `spread`: the GPU with the most free memory, then the node with the most, whatever their sizes."""

from collections.abc import Callable

from extender.placement.fitting import Order, emptiest_first
from extender.placement.policy import Rank
from extender.placement.ranks import emptiness, left_over
from extender.placement.views import NodeView
from fracgpu.requests import PodRequest


class Spread:
    """Worst fit."""

    def rank(self, view: NodeView, request: PodRequest) -> Rank | None:
        """The units left over on the chosen GPUs, then on the node, the most first; None where the pod does not fit."""
        left = left_over(view, request, spreads=True)
        return None if left is None else (-left, -view.free_units)

    def score(self, rank: Rank, view: NodeView, request: PodRequest) -> int:
        """From 1 for nothing left over up to `MAX_SCORE` - 1 for empty GPUs of the node's largest size."""
        return 1 + emptiness(-rank[0], view, request)

    def likeness(self, request: PodRequest) -> Callable[[NodeView], None]:
        """Not looked for: a rank is quickly computed."""
        return lambda _view: None

    def order(self, view: NodeView, request: PodRequest) -> Order:
        """Those first of which the most is left over."""
        return emptiest_first
