"""preempt as a function on the index: whom to evict, node by node, so that a pod fits on GPUs and not only in sums.

kube-scheduler offers, for each node, victims that it chose by the node's sum of units; its answer may name other pods
of that node, and those are evicted. What kube-scheduler does with the answer (v1.36, pkg/scheduler/extender.go and
framework/preemption) decides what may be said:

- a victim whose UID it does not believe on that node makes the whole attempt fail: only running pods are named;
- so does a node without victims: such nodes are left out, and a node that is left out is no candidate;
- the first victim of a node is taken for its most important one.

Where only the sum of the units has room and no single GPU, kube-scheduler sees no need to evict and does not ask.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Protocol

from extender.ledger.claims import Claim, ClaimState
from extender.placement.fitting import fits
from extender.placement.victims import Candidate, by_importance, choose_victims, count_violations
from extender.placement.views import NodeView
from extender.wire import ExtenderPreemptionArgs, MetaPod, MetaVictims, Victims
from fracgpu.disruption import PodDisruptionBudget
from fracgpu.errors import RequestError
from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.plans import Share
from fracgpu.pods import Pod
from fracgpu.requests import PodRequest, request_of


class Nodes(Protocol):
    """What is asked of the index."""

    @property
    def passing(self) -> Mapping[NodeName, Set[PodUid]]:
        """Node name -> pods whose claims there will soon be settled or gone."""

    def claims_on(self, name: NodeName) -> list[Claim]:
        """The claims on a node."""

    def preemption_view(self, name: NodeName, *, uid: PodUid, priority: int) -> NodeView | None:
        """The node as this pod will find it if it evicts nobody; None for a node without GPUs."""


@dataclass(frozen=True, slots=True)
class _Offer:
    """Whom kube-scheduler would evict from a node, as it came; `pods` are those of them that came whole."""

    uids: tuple[PodUid, ...]
    violations: int
    pods: Mapping[PodUid, Pod]


class _Budgets:
    """The disruption budgets of the cluster, by what they cover."""

    def __init__(self, budgets: Iterable[PodDisruptionBudget]) -> None:
        self.allowed: dict[str, int] = {}  # budget -> how many of its pods may be evicted now
        self._by_namespace: defaultdict[str, list[PodDisruptionBudget]] = defaultdict(list)  # namespace -> its budgets
        # Namespace and labels -> budgets that select them: the pods of one workload differ in little else.
        self._selecting: dict[tuple[str, frozenset[tuple[str, str]]], list[PodDisruptionBudget]] = {}
        for budget in budgets:
            self.allowed[budget.key] = budget.disruptions_allowed
            self._by_namespace[budget.metadata.namespace].append(budget)

    def covering(self, pod: Pod) -> tuple[str, ...]:
        """The budgets that the eviction of this pod draws on."""
        namespace = pod.metadata.namespace
        key = (namespace, frozenset((pod.metadata.labels or {}).items()))
        selecting = self._selecting.get(key)
        if selecting is None:
            selecting = [budget for budget in self._by_namespace.get(namespace, ()) if budget.selects(pod)]
            self._selecting[key] = selecting
        return tuple(budget.key for budget in selecting if budget.covers(pod))


def preempt(
    nodes: Nodes,
    args: ExtenderPreemptionArgs,
    *,
    pods: Mapping[str, Pod],
    budgets: Iterable[PodDisruptionBudget],
) -> Iterator[tuple[NodeName, MetaVictims | None]]:
    """Choose the victims on every node that kube-scheduler offers.

    Offered victims that hold no GPU stay, since they are in the way for another reason, such as CPU. The others are
    replaced by those that the pod's request needs.

    Args:
        nodes: the index.
        args: the pod that would evict others, and whom kube-scheduler would evict for it.
        pods: UID -> pod, of all that ask for GPUs.
        budgets: all of the cluster.

    Yields:
        Every node that was offered, with the victims after whose end the pod will fit there; None where there are none
        to be named. Each is decided when it is asked for: all of a large cluster together may take a second.
    """
    offers = _offers(args)
    try:
        request = request_of(args.pod)
    except RequestError:
        return  # it can never be placed, and filter says why
    attempt = _Attempt(nodes, args.pod, request, pods=pods, budgets=_Budgets(budgets)) if request else None
    for name, offer in offers.items():
        yield name, attempt.victims_on(name, offer) if attempt else _as_offered(offer)


class _Attempt:
    """One pod's wish to evict others."""

    def __init__(
        self, nodes: Nodes, pod: Pod, request: PodRequest, *, pods: Mapping[str, Pod], budgets: _Budgets
    ) -> None:
        self._nodes = nodes
        self._pod = pod
        self._request = request
        self._pods = pods
        self._budgets = budgets

    def victims_on(self, name: NodeName, offer: _Offer) -> MetaVictims | None:
        """Whom to evict from a node; None where that does not help or is not needed."""
        view = self._nodes.preemption_view(name, uid=self._pod.uid, priority=self._pod.priority)
        if view is None:
            return None
        passing = self._nodes.passing.get(name, frozenset())
        claims = [claim for claim in self._nodes.claims_on(name) if claim.uid != self._pod.uid]
        ending = [claim for claim in claims if claim.uid in passing and claim.state is ClaimState.BOUND]
        # Held for pods that kube-scheduler has placed and not bound yet: its sum counts them, and so do we.
        view = view.without(_taken(claim for claim in claims if claim.state is ClaimState.HELD))
        chosen: tuple[Candidate, ...] = ()
        if not fits(view, self._request):
            chosen = self._choose(view, [claim for claim in claims if claim not in ending], offer)
            if not chosen:
                return None
        elif fits(view.without(_taken(ending)), self._request):
            # There is room even beside pods that are ending, which kube-scheduler's sum still counts, and it wants to
            # evict all the same: for CPU, memory or a port. How much of these a pod with a GPU holds is not known
            # here; without all that was offered, this one might wait for ever.
            return _as_offered(offer)
        claimed = {claim.uid for claim in claims}
        kept = [self._offered(uid, offer) for uid in offer.uids if uid not in claimed]
        return self._answer([*kept, *chosen], offer)

    def _choose(self, view: NodeView, claims: Iterable[Claim], offer: _Offer) -> tuple[Candidate, ...]:
        """The pods with a GPU that have to go; none where even all who may be evicted are not enough."""
        candidates = [
            self._candidate(pod, offered=claim.uid in offer.uids, shares=claim.per_gpu())
            for claim in claims
            if (pod := self._pods.get(claim.uid)) is not None and self._may_evict(pod, claim, offer)
        ]
        found = choose_victims(view, self._request, candidates, allowed=self._budgets.allowed)
        return found.pods if found else ()

    def _may_evict(self, pod: Pod, claim: Claim, offer: _Offer) -> bool:
        """Whether a pod has a lower priority, and kube-scheduler believes it on the node of its claim."""
        # kube-scheduler follows no pod whose phase says that it ended, though its containers may still run.
        if pod.metadata.deletion_timestamp is not None or pod.is_terminal or pod.priority >= self._pod.priority:
            return False
        if claim.state is ClaimState.BOUND:
            return pod.spec.node_name == claim.node
        return claim.uid in offer.uids  # on its way there

    def _candidate(self, pod: Pod, *, offered: bool, shares: Mapping[GpuUuid, Share]) -> Candidate:
        started = pod.metadata.creation_timestamp or ""
        return Candidate(pod.uid, pod.priority, started, shares, self._budgets.covering(pod), offered)

    def _offered(self, uid: PodUid, offer: _Offer) -> Candidate:
        """An offered victim; of one that is not known here the priority is taken to be Kubernetes' default, 0."""
        pod = offer.pods.get(uid) or self._pods.get(uid)
        return Candidate(uid, offered=True) if pod is None else self._candidate(pod, offered=True, shares={})

    def _answer(self, victims: list[Candidate], offer: _Offer) -> MetaVictims | None:
        uids = [pod.uid for pod in by_importance(victims)]
        if set(uids) == set(offer.uids):
            return _as_offered(offer)
        return _meta_victims(uids, self._violations(victims, offer))

    def _violations(self, victims: list[Candidate], offer: _Offer) -> int:
        """How many of the victims violate a disruption budget.

        Of those that came by UID only and hold no GPU, neither labels nor budgets are known here: what kube-scheduler
        counted beyond the pods that are known is theirs.
        """
        allowed = self._budgets.allowed
        unknown = [pod for pod in victims if pod.uid not in offer.pods and pod.uid not in self._pods]
        known = count_violations((self._offered(uid, offer) for uid in offer.uids), allowed=allowed)
        return count_violations(victims, allowed=allowed) + min(len(unknown), max(0, offer.violations - known))


def _offers(args: ExtenderPreemptionArgs) -> dict[NodeName, _Offer]:
    """What kube-scheduler offers, in whichever form it came; nothing where Go wrote null."""
    if args.node_name_to_meta_victims:
        return {
            name: _Offer(tuple(pod.uid for pod in victims.pods or () if pod), victims.violations, {})
            for name, victims in args.node_name_to_meta_victims.items()
            if victims is not None
        }
    return {
        name: _whole_offer(victims)
        for name, victims in (args.node_name_to_victims or {}).items()
        if victims is not None
    }


def _whole_offer(victims: Victims) -> _Offer:
    pods = {pod.uid: pod for pod in victims.pods or () if pod}
    return _Offer(tuple(pods), victims.violations, pods)


def _taken(claims: Iterable[Claim]) -> Iterator[Share]:
    return (share for claim in claims for share in claim.per_gpu().values())


def _as_offered(offer: _Offer) -> MetaVictims | None:
    return _meta_victims(offer.uids, offer.violations)


def _meta_victims(uids: Collection[PodUid], violations: int) -> MetaVictims | None:
    return MetaVictims([MetaPod(uid) for uid in uids], violations) if uids else None
