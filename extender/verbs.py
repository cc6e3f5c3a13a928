"""kube-scheduler's verbs on one replica's index and ledger, from decoded body to answer; HTTP is `app`'s part."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from extender.deciding import Facts, deciding
from extender.filtering import BehindError, Filtered, explain_pod, filter_nodes, hold_for, prioritize_nodes
from extender.index import Index
from extender.ledger.claims import Claim
from extender.ledger.ledger import AlreadyClaimedError, Ledger
from extender.metrics import Metrics
from extender.placement.explaining import Explanation
from extender.preempting import preempt
from extender.reconciler import Reconciler
from extender.surveys import Survey
from extender.wire import (
    BindingArgs,
    BindingResult,
    ExtenderPreemptionResult,
    FilterResult,
    NodeList,
    candidates,
    decode_binding_args,
    decode_extender_args,
    decode_preemption_args,
)
from fracgpu.errors import ConflictError, FracgpuError, NoRoomError, RequestError, UnavailableError
from fracgpu.names import NodeName, PodUid
from fracgpu.pods import Pod
from fracgpu.requests import request_of

_T = TypeVar("_T")
_BEHIND_SECONDS: Final = 30.0  # far more than any event takes, or a plugin to publish its GPUNode
_REMEMBERED: Final = 10_000
_ATTEMPTS: Final = 3  # other replicas may be faster that often
_SEARCHED: Final = 2  # nodes on which places for several containers are searched for in one go
_SLICE: Final = 10  # nodes on which victims are chosen in one go: some 10 ms, so that binds go on meanwhile
_logger = logging.getLogger(__name__)


class Extender:
    """The verbs, on one replica's index and ledger.

    Args:
        index: the cluster as this replica knows it.
        ledger: what all replicas agree on.
        reconciler: keeps both true.
        metrics: what is counted.
        hold_seconds: for how long the best node is held for a pod between prioritize and bind; 0 holds nothing.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        *,
        index: Index,
        ledger: Ledger,
        reconciler: Reconciler,
        metrics: Metrics,
        hold_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = index
        self._ledger = ledger
        self._reconciler = reconciler
        self._hold_seconds = hold_seconds
        self._clock = clock
        self._behind_since: dict[PodUid, float] = {}  # pod UID -> when it was first told so, and ever since
        self.metrics = metrics

    async def filter(self, body: bytes) -> FilterResult:
        """Which candidates fit, and why the others do not."""
        args = decode_extender_args(body)
        with _deciding("filter", args.pod) as facts:
            self._require_ready()
            names, nodes = candidates(args)
            facts["nodes_in"] = len(names)
            await self._look_ahead(args.pod, names, at=lambda survey: survey.refusals)
            # kube-scheduler does not ask for priorities where only one node is left: that one is held here.
            found = await self._decide(
                args.pod, lambda: self._filter(args.pod, names), best=lambda found: found.only, holds_first=False
            )
            if not found.fitting and not self._reconciler.is_current:
                # A pod that fits nowhere waits for the next event in the cluster: not to be said of an old picture.
                raise UnavailableError("the API server cannot be followed at the moment; try again")
            self.metrics.filters.labels("fits" if found.fitting else "none").inc()
            facts["nodes_ok"] = len(found.fitting)
        if _logger.isEnabledFor(logging.DEBUG):
            for name, reason in (found.failed | found.unresolvable).items():
                _logger.debug("node dropped", extra={"uid": args.pod.uid, "node": name, "reason": reason})
        result = FilterResult(failed_nodes=found.failed, failed_and_unresolvable_nodes=found.unresolvable)
        if nodes is None:
            return msgspec.structs.replace(result, node_names=found.fitting)
        return msgspec.structs.replace(result, nodes=NodeList([nodes[name] for name in found.fitting]))

    async def prioritize(self, body: bytes) -> object:
        """Scores of the candidates; the best of them is held."""
        args = decode_extender_args(body)
        with _deciding("prioritize", args.pod) as facts:
            self._require_ready()
            names, _ = candidates(args)
            facts["nodes_in"] = len(names)
            await self._look_ahead(args.pod, names, at=lambda survey: survey.ranks)
            found = await self._decide(
                args.pod,
                lambda: prioritize_nodes(self._index, args.pod, names),
                best=lambda found: found.best,
                holds_first=True,
            )
            facts["node"] = found.best
        return found.scores

    async def _look_ahead(
        self, pod: Pod, names: Sequence[NodeName], *, at: Callable[[Survey], Mapping[NodeName, object]]
    ) -> None:
        """Have every node say what it says to a pod of several containers, and let others in between.

        Their places are searched for, which takes some milliseconds a node; what was found is kept for the decision.
        """
        with contextlib.suppress(RequestError):  # filter says so
            request = request_of(pod)
            if request is not None and len(request.containers) > 1:
                kept = at(self._index.surveys.of(request))
                for count, name in enumerate(names, start=1):
                    kept[name]
                    if count % _SEARCHED == 0:
                        await asyncio.sleep(0)

    async def _decide(
        self, pod: Pod, decide: Callable[[], _T], *, best: Callable[[_T], NodeName | None], holds_first: bool
    ) -> _T:
        """Decide on the ledger's present state, and hold a place for the pod.

        The decision is made on what this replica knows, and stands if that was all there is to know. Where a place
        will most likely be held (`holds_first`), holding it says so, in one call. Else Redis is asked meanwhile.
        """
        knows_all = False
        for _ in range(_ATTEMPTS):
            asking = None
            if not (knows_all or holds_first):
                asking = asyncio.create_task(self._ledger.catch_up())
                await asyncio.sleep(0)  # the question is on its way
            try:
                found: _T | FracgpuError = decide()
            except (ConflictError, UnavailableError) as exc:
                found = exc
            claim = None if isinstance(found, FracgpuError) else self._hold_on(best(found), pod)
            if asking is not None:
                stands = await asking
            else:
                stands = claim is not None or knows_all or await self._ledger.catch_up()
            if stands and claim is not None:
                stands = await self._hold(claim)
            if stands:
                if isinstance(found, FracgpuError):
                    raise found
                return found
            knows_all = True  # what the last answer brought was all there was
        # Other replicas write all the time: a decision on that is as good as one can be.
        self.metrics.holds.labels("given_up").inc()
        return decide()

    def _hold_on(self, node: NodeName | None, pod: Pod) -> Claim | None:
        return hold_for(self._index, pod, node) if node is not None and self._hold_seconds else None

    def _filter(self, pod: Pod, names: Sequence[NodeName]) -> Filtered:
        """Sort out the candidates; tell a pod for some seconds only that we are yet to hear of something.

        Else a lasting difference between GPUNodes and what the kubelets offer would keep pods from being preempted for.
        """
        try:
            found = filter_nodes(self._index, pod, names)
        except BehindError:
            now = self._clock()
            if now - self._behind_since.setdefault(pod.uid, now) < _BEHIND_SECONDS:
                raise
            return filter_nodes(self._index, pod, names, may_be_behind=False)
        finally:
            if len(self._behind_since) > _REMEMBERED:
                self._behind_since.clear()
        self._behind_since.pop(pod.uid, None)
        return found

    async def _hold(self, claim: Claim) -> bool:
        """Hold shares; False where the ledger had changed, and the choice is to be made anew."""
        limits = self._index.limits(claim)
        try:
            is_current = await self._ledger.hold(claim, limits=limits, lifetime_seconds=self._hold_seconds)
        except AlreadyClaimedError:
            return False
        except NoRoomError:
            self.metrics.holds.labels("full").inc()
            return True  # a hold is advice: without one, bind decides
        self.metrics.holds.labels("held" if is_current else "behind").inc()
        return is_current

    async def preempt(self, body: bytes) -> ExtenderPreemptionResult:
        """Whom to evict instead of those whom kube-scheduler would."""
        args = decode_preemption_args(body)
        with _deciding("preempt", args.pod) as facts:
            self._require_ready()
            await self._ledger.catch_up()
            if not self._reconciler.is_current:
                raise UnavailableError("the API server cannot be followed at the moment, and nobody is evicted blindly")
            answer, count = {}, 0
            decisions = preempt(self._index, args, pods=self._reconciler.pods_by_uid, budgets=self._reconciler.budgets)
            for count, (name, victims) in enumerate(decisions, start=1):
                if victims is not None:
                    answer[name] = victims
                if count % _SLICE == 0:
                    await asyncio.sleep(0)
            self.metrics.preemptions.labels("victims" if answer else "none").inc()
            facts |= {"nodes_in": count, "nodes_ok": len(answer)}
        return ExtenderPreemptionResult(answer)

    async def bind(self, body: bytes) -> BindingResult:
        """Bind a pod."""
        # Shielded: a scheduler that hangs up must not stop a bind between its two writes.
        await asyncio.shield(self._bind(decode_binding_args(body)))
        return BindingResult()

    async def _bind(self, args: BindingArgs) -> None:
        with deciding("bind", namespace=args.pod_namespace, name=args.pod_name, uid=args.pod_uid) as facts:
            facts["node"] = args.node
            self._require_ready()
            claim = await self._reconciler.binder.bind(args)
            facts["gpus"] = {gpu: share.units for gpu, share in claim.per_gpu().items()}

    async def explain(self, namespace: str, name: str) -> Explanation | None:
        """Where a pod is or why it waits; None for a pod that is not there or asks for no GPU."""
        self._require_ready()
        await self._ledger.catch_up()
        for pod in self._reconciler.pods:
            if pod.metadata.namespace == namespace and pod.metadata.name == name:
                return explain_pod(self._index, pod)
        return None

    async def is_ready(self) -> bool:
        """Whether this replica can decide now."""
        try:
            self._require_ready()
            await self._ledger.catch_up()
        except UnavailableError:
            return False
        return True

    def _require_ready(self) -> None:
        if not self._reconciler.ready.is_set():
            raise UnavailableError("the extender has not read the cluster's state yet; try again")


def _deciding(verb: str, pod: Pod) -> contextlib.AbstractContextManager[Facts]:
    return deciding(verb, namespace=pod.metadata.namespace, name=pod.metadata.name, uid=pod.uid)
