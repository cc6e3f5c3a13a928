"""What every node says to one request, kept until the node changes: the reason why a decision costs dictionary lookups.

Pods come in kinds: those of one Deployment ask the same. A survey of a kind holds each node's refusal (for filter) and
rank (for prioritize), computed when first asked for; the index tells which nodes have changed since. No I/O.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeVar

from extender.placement.explaining import reason_key, why_not
from extender.placement.fitting import could_ever_fit, fits
from extender.placement.policies import Policies
from extender.placement.policy import Policy
from extender.placement.views import NodeView
from extender.wire import HostPriority
from fracgpu.names import NodeName
from fracgpu.quantities import Mib
from fracgpu.requests import PodRequest

UNKNOWN_NODE: Final = "has no GPUs known to fracgpu (no GPUNode object: is the device plugin running there?)"
KEPT_KINDS: Final = 12
"""Surveys that are kept: about 2 MB each for 5000 nodes, and more kinds of pods than usually wait at once."""

_MAX_CHANGES: Final = 100_000  # after which all surveys are made anew

_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a node does not fit, and whether an eviction of pods could change that."""

    reason: str
    resolvable: bool


class Ranked(NamedTuple):
    """A node among the candidates; the smallest of them, compared as a tuple, is the best.

    Attributes:
        unfit: whether the pod does not fit there.
        rank, rank_of_equals: the two numbers of the policy's rank, the smaller, the better.
        name: the node's: of equals, the first by name is the best.
        priority: its answer to prioritize as one that is not the best.
    """

    unfit: bool
    rank: int
    rank_of_equals: int
    name: NodeName
    priority: HostPriority


_UNKNOWN: Final = Refusal(UNKNOWN_NODE, resolvable=False)


class _Kept(dict[NodeName, _V]):
    """Node name -> what `compute` says of the node, computed when first looked up.

    Names that no node has are not kept: there is no end to them.
    """

    __slots__ = ("_compute", "_view")

    def __init__(
        self, view: Callable[[NodeName], NodeView | None], compute: Callable[[NodeName, NodeView | None], _V]
    ) -> None:
        super().__init__()
        self._view = view
        self._compute = compute

    def __missing__(self, name: NodeName) -> _V:
        view = self._view(name)
        if view is None:
            return self._compute(name, None)
        # Under the node's own name, and not this request's copy of it.
        found = self[view.name] = self._compute(view.name, view)
        return found


class Survey:
    """One request's refusals and ranks.

    Attributes:
        refusals: node name -> why it does not fit, None where it does; a lookup never fails.
        ranks: node name -> its place among the candidates; a lookup never fails.
    """

    def __init__(
        self, request: PodRequest, *, view: Callable[[NodeName], NodeView | None], unit: Mib, policy: Policy
    ) -> None:
        self._request = request
        self._unit = unit
        self._policy = policy
        self._likeness = policy.likeness(request)
        self._seen = 0  # of the changes of nodes
        self._worths: dict[Hashable, tuple[int, int, int] | None] = {}  # likeness of nodes -> see `_worth_of`
        self._reasons: dict[int, str] = {}  # see `reason_key` -> reason
        self._refusals: dict[tuple[str, bool], Refusal] = {}  # reason, resolvable -> refusal
        self.refusals = _Kept(view, lambda _, view: self.refusal_of(view))
        self.ranks = _Kept(view, self.rank_of)

    def catch_up(self, changed: Sequence[NodeName]) -> None:
        """Forget what nodes that have changed since the last time said.

        Args:
            changed: every node that has changed, since the survey was made and before, in order, each perhaps often.
        """
        if len(changed) - self._seen > len(self.refusals) + len(self.ranks):
            self.refusals.clear()
            self.ranks.clear()
        else:
            for name in changed[self._seen :]:
                self.refusals.pop(name, None)
                self.ranks.pop(name, None)
        self._seen = len(changed)

    def forget_ranks(self) -> None:
        """What nodes are worth has changed: the mix of requests is another."""
        self.ranks.clear()

    def forget_alike(self) -> None:
        """The question is answered: what helped was that of many nodes at once many are alike."""
        self._worths.clear()

    def refusal_of(self, view: NodeView | None) -> Refusal | None:
        """Why a node does not fit, seen in this way; None where it does."""
        if view is None:
            return _UNKNOWN
        if view.unit != self._unit:
            return Refusal(_foreign_unit(view, self._unit), resolvable=False)
        if fits(view, self._request):
            return None
        key = reason_key(view, self._request)
        if key is None:
            reason = why_not(view, self._request)
        else:
            reason = self._reasons.get(key) or self._reasons.setdefault(key, why_not(view, self._request))
        key_of_refusal = (reason, could_ever_fit(view, self._request))
        found = self._refusals.get(key_of_refusal)
        if found is None:
            found = self._refusals[key_of_refusal] = Refusal(*key_of_refusal)
        return found

    def rank_of(self, name: NodeName, view: NodeView | None) -> Ranked:
        """What a node is worth, seen in this way."""
        if view is None or view.unit != self._unit:
            return _unfit(name)
        likeness = self._likeness(view)
        if likeness is None:
            worth = self._worth_of(view)
        else:
            try:
                worth = self._worths[likeness]
            except KeyError:
                worth = self._worths[likeness] = self._worth_of(view)
        if worth is None:
            return _unfit(name)
        rank, rank_of_equals, score = worth
        return Ranked(False, rank, rank_of_equals, name, HostPriority(name, score))

    def _worth_of(self, view: NodeView) -> tuple[int, int, int] | None:
        """The two numbers of a node's rank, and its score; None where the pod does not fit."""
        rank = self._policy.rank(view, self._request)
        return None if rank is None else (*rank, self._policy.score(rank, view, self._request))


def _unfit(name: NodeName) -> Ranked:
    return Ranked(True, 0, 0, name, HostPriority(name, 0))


class Surveys:
    """The surveys of the kinds of pods seen last."""

    def __init__(
        self,
        *,
        view: Callable[[NodeName], NodeView | None],
        unit: Mib,
        policies: Policies,
        kept: int = KEPT_KINDS,
    ) -> None:
        self._most = kept
        self._view = view
        self._unit = unit
        self._policies = policies
        self._weights = policies.fills.mix.weights  # by which the ranks were made
        self._last: Survey | None = None  # that was asked for
        self._changed: list[NodeName] = []  # nodes, each time that one has changed
        self._kept: OrderedDict[PodRequest, Survey] = OrderedDict()  # kind -> survey, last used last

    def of(self, request: PodRequest) -> Survey:
        """The survey of a request, perhaps a new one."""
        if self._weights is not self._policies.fills.mix.weights:
            self._weights = self._policies.fills.mix.weights
            for survey in self._kept.values():
                survey.forget_ranks()
        kind = _kind_of(request)
        found = self._kept.get(kind)
        if found is None:
            policy = self._policies.of(request)
            found = self._kept[kind] = Survey(request, view=self._view, unit=self._unit, policy=policy)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(kind)
        found.catch_up(self._changed)
        if self._last is not None:
            self._last.forget_alike()
        self._last = found
        return found

    def forget(self, name: NodeName) -> None:
        """A node has changed: each kind of pods hears of it when it is next asked for."""
        self._changed.append(name)
        if len(self._changed) >= _MAX_CHANGES:
            self.clear()

    def clear(self) -> None:
        """Everything has changed."""
        self._kept.clear()
        self._changed.clear()
        self._last = None


def _kind_of(request: PodRequest) -> PodRequest:
    """What requests have in common to which every node says the same: of one container the name does not matter."""
    if len(request.containers) != 1:
        return request
    return replace(request, containers=(replace(request.containers[0], container=""),))


def _foreign_unit(view: NodeView, unit: Mib) -> str:
    return (
        f"counts memory in units of {view.unit} MiB, while this cluster counts in {unit} MiB: "
        "give its device plugin the same --memory-unit-mib"
    )
