"""filter and prioritize as functions on the index: which candidates fit, why the others do not, and their scores.

Filter never picks the node for the scheduler, which alone knows affinity, topology spread and image locality.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, islice
from operator import not_
from typing import Final

from extender.index import Index
from extender.ledger.claims import Claim, ClaimState
from extender.placement.explaining import Explanation, explain
from extender.placement.fitting import choose, fits
from extender.placement.policy import MAX_SCORE
from extender.surveys import UNKNOWN_NODE
from extender.wire import HostPriority
from fracgpu.errors import ConflictError, RequestError
from fracgpu.names import NodeName
from fracgpu.pods import Pod
from fracgpu.requests import PodRequest, request_of

_LOOKED_AT: Final = 200  # nodes with passing claims: some 10 ms; where there are more, the cluster is in full motion


@dataclass(slots=True)
class Filtered:
    """The candidates, sorted out: those that fit, and a reason for each of the others.

    `unresolvable` are nodes that no eviction of pods could make fit.
    """

    fitting: list[NodeName] = field(default_factory=list)
    failed: dict[NodeName, str] = field(default_factory=dict)
    unresolvable: dict[NodeName, str] = field(default_factory=dict)

    @property
    def only(self) -> NodeName | None:
        """The one node that fits, where it is one."""
        return self.fitting[0] if len(self.fitting) == 1 else None


@dataclass(frozen=True, slots=True)
class Prioritized:
    """Scores of the candidates in their order, and the best of them; None where the pod fits on none."""

    scores: Sequence[HostPriority]
    best: NodeName | None = None


class BehindError(ConflictError):
    """kube-scheduler knows of room, or of a node, of which this replica is yet to hear."""

    reason = "Behind"


def filter_nodes(index: Index, pod: Pod, names: Sequence[NodeName], *, may_be_behind: bool = True) -> Filtered:
    """Sort out the candidates for a pod.

    Args:
        index: the cluster.
        pod: asks for GPUs, or not.
        names: the candidates.
        may_be_behind: whether a candidate that kube-scheduler should not have sent means that it knows more.

    Raises:
        ConflictError: nothing fits now, but only because of what will soon have passed: kube-scheduler tries a pod
            again after an error, while one that fits nowhere waits for an event in the cluster.
        BehindError: nothing fits by what we know, which is not all.
    """
    try:
        request = request_of(pod)
    except RequestError as exc:
        return Filtered(unresolvable=dict.fromkeys(names, str(exc)))
    if request is None:
        return Filtered(list(names))
    entry = index.entries.get(pod.uid)
    if entry is not None and entry.claim.state is not ClaimState.HELD:
        return _only_reserved(entry.claim, names)
    result = _sort_out(index, pod, request, names)
    if not result.fitting:
        _raise_if_passing(index, pod, request, result.failed)
        if may_be_behind:
            _raise_if_behind(index, request, result.failed)
            _raise_if_unknown(index, names)
    return result


def prioritize_nodes(index: Index, pod: Pod, names: Sequence[NodeName]) -> Prioritized:
    """Score the candidates; nodes that fracgpu does not know, and pods that ask no GPU, score 0."""
    try:
        request = request_of(pod)
    except RequestError:
        request = None  # filter says why
    if request is None or not names:
        return Prioritized([HostPriority(name, 0) for name in names])
    survey = index.surveys.of(request)
    ranked = list(map(survey.ranks.__getitem__, names))
    special = index.views_for(pod.uid, priority=pod.priority)
    if special:
        ranked = [
            survey.rank_of(found.name, special[found.name]) if found.name in special else found for found in ranked
        ]
    best = min(ranked)
    scores = [found.priority for found in ranked]
    if best.unfit:
        return Prioritized(scores)
    scores[names.index(best.name)] = HostPriority(best.name, MAX_SCORE)
    return Prioritized(scores, best.name)


def hold_for(index: Index, pod: Pod, node: NodeName) -> Claim | None:
    """What to hold for a pod on a node; None where it has no place there, needs none, or has more than a hold."""
    try:
        request = request_of(pod)
    except RequestError:
        return None
    entry = index.entries.get(pod.uid)
    if request is None or (entry is not None and entry.claim.state is not ClaimState.HELD):
        return None
    view = index.views_for(pod.uid, priority=pod.priority).get(node) or index.view(node)
    if view is None or view.unit != index.unit:
        return None
    plan = choose(view, request, order=index.policies.of(request).order(view, request))
    if plan is None:
        return None
    return Claim(pod.uid, pod.metadata.namespace, pod.metadata.name, node, ClaimState.HELD, plan)


def explain_pod(index: Index, pod: Pod) -> Explanation:
    """Where a pod is, or why it waits, in a sentence with numbers."""
    try:
        request = request_of(pod)
    except RequestError as exc:
        return Explanation(str(exc))
    if request is None:
        return Explanation("asks for no GPU")
    entry = index.entries.get(pod.uid)
    if entry is not None and entry.claim.state is not ClaimState.HELD:
        state = "bound to" if entry.claim.state is ClaimState.BOUND else "being bound to"
        return Explanation(f"{state} {entry.claim.node}")
    special = index.views_for(pod.uid, priority=pod.priority)
    views = [special.get(view.name, view) for view in index.views() if view.unit == index.unit]
    return explain(views, request, unit=index.unit)


def _sort_out(index: Index, pod: Pod, request: PodRequest, names: Sequence[NodeName]) -> Filtered:
    survey = index.surveys.of(request)
    refusals = list(map(survey.refusals.__getitem__, names))
    special = index.views_for(pod.uid, priority=pod.priority)
    if special:
        for place, name in enumerate(names):
            if name in special:
                refusals[place] = survey.refusal_of(special[name])
    # Python's loop runs only over the nodes that do not fit: these passes are the longest part of filter.
    result = Filtered(list(compress(names, map(not_, refusals))))
    for name, refusal in compress(zip(names, refusals, strict=True), refusals):
        if refusal is not None:
            (result.failed if refusal.resolvable else result.unresolvable)[name] = refusal.reason
    return result


def _only_reserved(claim: Claim, names: Sequence[NodeName]) -> Filtered:
    """An earlier, unfinished bind reserved a node for the pod: going on there is always safe, elsewhere never."""
    if claim.node not in names:
        raise ConflictError(f"an earlier binding of the pod to {claim.node} is not finished yet; try again")
    failed = {name: f"the pod is being bound to {claim.node}" for name in names if name != claim.node}
    return Filtered([claim.node], failed)


def _raise_if_passing(index: Index, pod: Pod, request: PodRequest, failed: Mapping[NodeName, str]) -> None:
    for name in islice(index.passing.keys() & failed.keys(), _LOOKED_AT):
        passing = index.passing[name] - {pod.uid}
        coming = index.coming_view(name, uid=pod.uid, priority=pod.priority)
        if passing and coming is not None and fits(coming, request):
            pods = ", ".join(sorted(index.entries[uid].claim.pod for uid in passing))
            raise ConflictError(
                f"there is room on {name} as soon as the shares of {pods} are settled or known to be free; try again"
            )
    if len(index.passing) > _LOOKED_AT:
        raise ConflictError(
            f"shares on {len(index.passing)} nodes are about to be settled or known to be free; try again"
        )


def _raise_if_behind(index: Index, request: PodRequest, failed: Iterable[NodeName]) -> None:
    amount = (
        sum(container.gpus * container.units for container in request.containers),
        sum(container.gpus * container.seats for container in request.containers),
    )
    for name in failed:
        if index.is_behind(name, amount):
            raise BehindError(f"kube-scheduler knows of room on {name} that fracgpu is yet to hear of; try again")


def _raise_if_unknown(index: Index, names: Iterable[NodeName]) -> None:
    for name in names:
        if name not in index.nodes:
            # kube-scheduler asks only about nodes that offer the resource: their GPUNode is on its way, or should be.
            raise BehindError(f"nothing fits on the other nodes, and {name} {UNKNOWN_NODE}; try again")
