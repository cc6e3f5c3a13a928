"""The interface of a placement policy: how nodes are compared, and the GPUs within one."""

from collections.abc import Callable, Hashable
from typing import Final, Protocol

from extender.placement.fitting import Order
from extender.placement.views import NodeView
from fracgpu.requests import PodRequest

MAX_SCORE: Final = 10
"""kube-scheduler's MaxExtenderPriority: for the one best node; no other has more than 9."""

Rank = tuple[int, int]
"""A node's place among the candidates; the smaller, the better. The second number decides between equals."""


class Policy(Protocol):
    """How a place for a pod is chosen."""

    def rank(self, view: NodeView, request: PodRequest) -> Rank | None:
        """The node's place among the candidates; None where the pod does not fit."""

    def score(self, rank: Rank, view: NodeView, request: PodRequest) -> int:
        """What kube-scheduler is told of a node that is not the best: 1 to 9."""

    def likeness(self, request: PodRequest) -> Callable[[NodeView], Hashable | None]:
        """What nodes have in common that rank and score the same for this request; None where that is not known."""

    def order(self, view: NodeView, request: PodRequest) -> Order:
        """Which of the node's GPUs are taken first."""
