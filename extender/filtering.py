"""filter and prioritize as functions on the index: which candidates fit, why the others do not, and their scores.

Filter never picks the node for the scheduler, which alone knows affinity, topology spread and image locality.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from extender.index import Index
from extender.ledger.claims import Claim, ClaimState
from extender.placement import binpack
from extender.placement.explaining import Explanation, explain, why_not
from extender.placement.fitting import could_ever_fit, fits
from extender.wire import HostPriority
from fracgpu.errors import ConflictError, RequestError, UnavailableError
from fracgpu.names import NodeName
from fracgpu.pods import Pod
from fracgpu.requests import PodRequest, request_of

_UNKNOWN_NODE = "has no GPUs known to fracgpu (no GPUNode object: is the device plugin running there?)"


@dataclass(slots=True)
class Filtered:
    """The candidates, sorted out: those that fit, and a reason for each of the others.

    `unresolvable` are nodes that no eviction of pods could make fit.
    """

    fitting: list[NodeName] = field(default_factory=list)
    failed: dict[NodeName, str] = field(default_factory=dict)
    unresolvable: dict[NodeName, str] = field(default_factory=dict)


def filter_nodes(index: Index, pod: Pod, names: Iterable[NodeName]) -> Filtered:
    """Sort out the candidates for a pod.

    Raises:
        ConflictError: nothing fits now, but only because of what will soon have passed: kube-scheduler tries a pod
            again after an error, while one that fits nowhere waits for an event in the cluster.
        UnavailableError: nothing fits now, and a node that offers our resources is not known yet.
    """
    names = list(names)
    result = Filtered()
    try:
        request = request_of(pod)
    except RequestError as exc:
        result.unresolvable = dict.fromkeys(names, str(exc))
        return result
    if request is None:
        result.fitting = names
        return result
    entry = index.entries.get(pod.uid)
    if entry is not None:
        return _only_reserved(entry.claim, names)
    for name in names:
        view = index.view(name)
        if view is None:
            result.unresolvable[name] = _UNKNOWN_NODE
        elif fits(view, request):
            result.fitting.append(name)
        elif could_ever_fit(view, request):
            result.failed[name] = why_not(view, request)
        else:
            result.unresolvable[name] = why_not(view, request)
    if not result.fitting:
        _raise_if_passing(index, request, result.failed)
        _raise_if_unknown(index, names)
    return result


def prioritize_nodes(index: Index, pod: Pod, names: Iterable[NodeName]) -> list[HostPriority]:
    """Score the candidates; nodes that fracgpu does not know, and pods that ask no GPU, score 0."""
    names = list(names)
    scores: dict[NodeName, int] = {}
    try:
        request = request_of(pod)
    except RequestError:
        request = None  # filter says why
    if request is not None:
        scores = binpack.score([view for name in names if (view := index.view(name)) is not None], request)
    return [HostPriority(name, scores.get(name, 0)) for name in names]


def explain_pod(index: Index, pod: Pod) -> Explanation:
    """Where a pod is, or why it waits, in a sentence with numbers."""
    try:
        request = request_of(pod)
    except RequestError as exc:
        return Explanation(str(exc))
    if request is None:
        return Explanation("asks for no GPU")
    entry = index.entries.get(pod.uid)
    if entry is not None:
        state = "bound to" if entry.claim.state is ClaimState.BOUND else "being bound to"
        return Explanation(f"{state} {entry.claim.node}")
    return explain(index.views(), request, unit=index.unit)


def _only_reserved(claim: Claim, names: list[NodeName]) -> Filtered:
    """An earlier, unfinished bind reserved a node for the pod: going on there is always safe, elsewhere never."""
    if claim.node not in names:
        raise ConflictError(f"an earlier binding of the pod to {claim.node} is not finished yet; try again")
    failed = {name: f"the pod is being bound to {claim.node}" for name in names if name != claim.node}
    return Filtered([claim.node], failed)


def _raise_if_passing(index: Index, request: PodRequest, failed: Iterable[NodeName]) -> None:
    for name in failed:
        coming = index.coming_view(name)
        if coming is not None and fits(coming, request) and (passing := index.passing_on(name)):
            pods = ", ".join(claim.pod for claim in passing)
            raise ConflictError(
                f"there is room on {name} as soon as the shares of {pods} are settled or known to be free; try again"
            )


def _raise_if_unknown(index: Index, names: Iterable[NodeName]) -> None:
    unknown = [name for name in names if index.view(name) is None]
    if unknown:
        # kube-scheduler asks only about nodes that offer the resource: their GPUNode is on its way, or should be.
        raise UnavailableError(f"nothing fits on the other nodes, and {unknown[0]} {_UNKNOWN_NODE}; try again")
