"""The policy `binpack`: the fullest GPU that has room, then the fullest node, so that large pieces stay whole."""

from typing import Final

from extender.placement.fitting import choose
from extender.placement.views import NodeView
from fracgpu.names import NodeName
from fracgpu.requests import PodRequest

MAX_SCORE: Final = 10
"""kube-scheduler's MaxExtenderPriority."""


def score(views: list[NodeView], request: PodRequest) -> dict[NodeName, int]:
    """Score the nodes from 0 to `MAX_SCORE`: one best node has the maximum, all others less.

    A node on which the pod does not fit has 0. Of equals, the first by name is the best.
    """
    ranks = {view.name: rank for view in views if (rank := _rank(view, request)) is not None}
    if not ranks:
        return {view.name: 0 for view in views}
    best = min(ranks, key=lambda name: (ranks[name], name))
    left_over = {name: rank[0] for name, rank in ranks.items()}
    widest = max(left_over.values()) or 1
    return {
        view.name: MAX_SCORE
        if view.name == best
        else _below_best(left_over[view.name], widest=widest)
        if view.name in ranks
        else 0
        for view in views
    }


def _rank(view: NodeView, request: PodRequest) -> tuple[int, int] | None:
    """Units left over on the chosen GPUs and on the node; the smaller, the better."""
    plan = choose(view, request)
    if plan is None:
        return None
    taken = plan.per_gpu()
    left_over = sum(gpu.free_units - taken[gpu.uuid].units for gpu in view.gpus if gpu.uuid in taken)
    return left_over, view.free_units


def _below_best(left_over: int, *, widest: int) -> int:
    """From MAX_SCORE - 1 for nothing left over down to 1 for the most."""
    return MAX_SCORE - 1 - (left_over * (MAX_SCORE - 2)) // widest
