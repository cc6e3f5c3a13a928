"""Which policy a pod is placed by.

A policy is a module of its own with `rank` and `score`. What a node is worth to a request depends on that node alone,
so that it can be kept until the node changes. Which of a node's GPUs it takes first is decided in `fitting`, because
that decides whether several containers fit.
"""

from typing import Final, Protocol

from extender.placement import binpack, spread
from extender.placement.ranks import Rank
from extender.placement.views import NodeView
from fracgpu.annotations import DEFAULT_POLICY, PlacementPolicy
from fracgpu.requests import PodRequest


class Policy(Protocol):
    """How nodes are compared."""

    def rank(self, view: NodeView, request: PodRequest) -> Rank | None:
        """The node's place among the candidates; None where the pod does not fit."""

    def score(self, rank: Rank, view: NodeView, request: PodRequest) -> int:
        """What kube-scheduler is told of a node that is not the best: 1 to 9."""


_POLICIES: Final[dict[PlacementPolicy, Policy]] = {"binpack": binpack, "spread": spread}


def policy_of(request: PodRequest) -> Policy:
    """The one that the pod names, or the default."""
    return _POLICIES[request.policy or DEFAULT_POLICY]
