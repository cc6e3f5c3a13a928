"""bind: reserve the GPUs in the ledger, then write pod, node and plan in one Binding.

The order makes it safe to die at any point: what is reserved and not yet bound carries a deadline, after which the
pod is read again (`settle`). Repeating a bind is harmless. A Binding whose outcome is not known keeps its reservation
until the deadline has passed, which is longer than a Binding may take.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from extender.index import Index
from extender.ledger.claims import Claim, ClaimState, Entry
from extender.ledger.connecting import CALL_TIMEOUT_SECONDS
from extender.ledger.ledger import AlreadyClaimedError, Ledger
from extender.observing import bound_claim
from extender.placement.fitting import choose, could_be
from extender.placement.views import NodeView
from extender.wire import BindingArgs
from fracgpu.errors import (
    ConflictError,
    FracgpuError,
    NoRoomError,
    RequestError,
    UnavailableError,
)
from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.kube.resources import PODS
from fracgpu.names import ANNOTATION_ALLOCATION, NodeName, PodUid
from fracgpu.plans import Plan, encode_plan
from fracgpu.pods import Pod
from fracgpu.process.tracing import span
from fracgpu.requests import PodRequest, request_of

_ATTEMPTS: Final = 3  # somebody else may change the pod's claim that often before the scheduler is asked again
_RESERVATIONS: Final = 64  # other pods may take the chosen GPUs that often: each time one of them was placed
_logger = logging.getLogger(__name__)


def claim_lifetime_seconds(binding_timeout_seconds: float) -> float:
    """How long a reservation is kept before the pod is read again: longer than its Binding can take.

    Twice the Binding's own timeout covers what the API server, which is told of it, still does after we gave up
    waiting; the rest is the time from reserving to sending (`Binder._bind`).
    """
    return 2 * binding_timeout_seconds + CALL_TIMEOUT_SECONDS


class Binder:
    """Answers bind, and settles what a bind left open.

    Args:
        index: the cluster as this replica knows it.
        ledger: what all replicas agree on.
        kube: the API server.
        find_pod: gives a pod that asks for GPUs by its UID, as it was last seen.
        binding_timeout_seconds: for a Binding at the API server.
        on_bound: told of each pod that was bound; it must not wait for anything.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        *,
        index: Index,
        ledger: Ledger,
        kube: KubeClient,
        find_pod: Callable[[PodUid], Pod | None],
        binding_timeout_seconds: float,
        on_bound: Callable[[Claim], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = index
        self._ledger = ledger
        self._kube = kube
        self._find_pod = find_pod
        self._timeout = binding_timeout_seconds
        self._on_bound = on_bound
        self._clock = clock

    async def bind(self, args: BindingArgs) -> Claim:
        """Bind a pod to the node that kube-scheduler chose.

        Returns:
            What the pod has now.

        Raises:
            FracgpuError: the pod is not bound, or not known to be; the sentence says why.
        """
        for _ in range(_ATTEMPTS):
            try:
                return await self._bind(args)
            except AlreadyClaimedError:
                continue  # somebody else changed the pod's claim under our hands: look again
        raise ConflictError("the pod is being bound by another replica; try again")

    async def settle(self, claim: Claim, *, may_have_happened: bool = True, may_come: bool = False) -> bool:
        """Find out what became of a Binding whose deadline has passed, and make the ledger agree with the pod.

        Args:
            claim: what the ledger holds.
            may_have_happened: False where the Binding is known not to have.
            may_come: whether an earlier one of the same claim may still arrive; then nothing is dropped.

        Returns:
            Whether the ledger was changed.

        Raises:
            KubeError: the pod cannot be read now.
            UnavailableError: the ledger cannot be written now.
        """
        try:
            pod = await self._kube.get(PODS, claim.name, namespace=claim.namespace, timeout_seconds=self._timeout)
        except KubeError as exc:
            if exc.status != 404:
                raise
            pod = None
        after = _outcome(claim, pod if pod is not None and pod.uid == claim.uid else None)
        try:
            if after is not None and may_have_happened:
                is_changed = await self._ledger.correct(claim, after)
            else:
                is_changed = not may_come and await self._ledger.release(claim)
        except AlreadyClaimedError:
            return False  # somebody else settled it
        _logger.info("settled", extra={"pod": claim.pod, "uid": claim.uid, "bound": after is not None})
        return is_changed

    async def _bind(self, args: BindingArgs) -> Claim:
        entry = self._claim_of(args.pod_uid)
        if entry is not None and self._is_doubtful(entry.claim, node=args.node):
            entry = await self._settle_earlier(entry)
        if entry is not None and entry.claim.node != args.node:
            raise ConflictError(f"the pod is bound to {entry.claim.node} already, and cannot be bound to {args.node}")
        if entry is not None and entry.claim.state is ClaimState.BOUND:
            return entry.claim
        with span("reserve", uid=args.pod_uid, namespace=args.pod_namespace, pod=args.pod_name, node=args.node):
            claim, began = await self._reserve(args, entry.claim if entry else None)
        if self._clock() - began > CALL_TIMEOUT_SECONDS:
            # A Binding sent now could arrive when the reservation is over: see `claim_lifetime_seconds`.
            raise ConflictError("it took too long to reserve the GPUs in time for a Binding; try again")
        await self._write(claim, is_first=entry is None)
        return claim

    def _is_doubtful(self, claim: Claim, *, node: NodeName) -> bool:
        """Whether the pod has to be read before this claim is believed.

        It is an unfinished one of another node, or of a pod that is not bound as far as we have heard.
        """
        if claim.state is ClaimState.BINDING:
            return claim.node != node
        pod = self._find_pod(claim.uid)
        return pod is not None and not pod.spec.node_name

    def _claim_of(self, uid: PodUid) -> Entry | None:
        """The pod's claim, if it is more than a hold: a hold is advice, and no reservation."""
        entry = self._index.entries.get(uid)
        return None if entry is None or entry.claim.state is ClaimState.HELD else entry

    async def _settle_earlier(self, entry: Entry) -> Entry | None:
        """Go on only when it is known what an earlier bind has come to."""
        lifetime = claim_lifetime_seconds(self._timeout)
        is_under_way = entry.claim.state is ClaimState.BINDING
        if is_under_way and not entry.is_overdue(now_ms=self._ledger.now_ms, lifetime_seconds=lifetime):
            raise ConflictError(f"an earlier binding of the pod to {entry.claim.node} is not finished yet; try again")
        await self.settle(entry.claim)
        await self._ledger.catch_up()
        return self._claim_of(entry.claim.uid)

    async def _reserve(self, args: BindingArgs, unfinished: Claim | None) -> tuple[Claim, float]:
        """Reserve the pod's GPUs; returns the claim, and when asking for it began, by the clock."""
        lifetime = claim_lifetime_seconds(self._timeout)
        began = self._clock()
        if unfinished is not None:
            await self._ledger.reserve(unfinished, limits=self._index.limits(unfinished), lifetime_seconds=lifetime)
            return unfinished, began
        pod = self._find_pod(args.pod_uid) or await self._kube.get(
            PODS, args.pod_name, namespace=args.pod_namespace, timeout_seconds=self._timeout
        )
        if pod.uid != args.pod_uid:
            raise ConflictError(f"the pod was replaced by another of the same name (UID {pod.uid})")
        for _ in range(_RESERVATIONS):
            try:
                claim = self._claim(pod, args.node)
            except NoRoomError:
                if await self._ledger.catch_up():
                    raise  # nobody has freed anything that this replica does not know of
                continue
            began = self._clock()
            try:
                await self._ledger.reserve(claim, limits=self._index.limits(claim), lifetime_seconds=lifetime)
            except NoRoomError:
                continue  # another pod was faster: the ledger's answer told us what it took
            return claim, began
        raise ConflictError(f"other pods took the free GPUs of {args.node} {_RESERVATIONS} times in a row; try again")

    def _claim(self, pod: Pod, node: NodeName) -> Claim:
        request = _request_of(pod)
        view = self._view(pod, node)
        plan = self._held_plan(pod, request, view)
        if plan is None and view is not None:
            plan = choose(view, request, order=self._index.policies.of(request).order(view, request))
        refusal = self._index.surveys.of(request).refusal_of(view)
        if plan is None or refusal is not None:
            raise NoRoomError(f"{node} {refusal.reason if refusal else 'has no room'}")
        return Claim(pod.uid, pod.metadata.namespace, pod.metadata.name, node, ClaimState.BINDING, plan)

    def _view(self, pod: Pod, node: NodeName) -> NodeView | None:
        """The node as the pod finds it."""
        return self._index.views_for(pod.uid, priority=pod.priority).get(node) or self._index.view(node)

    def _held_plan(self, pod: Pod, request: PodRequest, view: NodeView | None) -> Plan | None:
        """What the pod holds on the node, if that is what it asks for and the GPUs are still good for it.

        Nobody can have taken it meanwhile; but a hold says only what the caller of prioritize said of the pod.
        """
        entry = self._index.entries.get(pod.uid)
        if entry is None or view is None or entry.claim.node != view.name or entry.claim.state is not ClaimState.HELD:
            return None
        return entry.claim.plan if could_be(entry.claim.plan, request, view) else None

    async def _write(self, claim: Claim, *, is_first: bool) -> None:
        """POST the Binding and bring the ledger to its outcome."""
        try:
            with span("Binding", uid=claim.uid, namespace=claim.namespace, pod=claim.name, node=claim.node):
                await self._kube.bind(
                    namespace=claim.namespace,
                    name=claim.name,
                    uid=claim.uid,
                    node=claim.node,
                    annotations={ANNOTATION_ALLOCATION: encode_plan(claim.plan)},
                    timeout_seconds=self._timeout,
                )
        except KubeError as exc:
            if exc.outcome_unknown:
                raise UnavailableError(f"it is not known whether the pod was bound ({exc}); try again") from exc
            # Refused for good: but 409 also says that an earlier try of ours got through.
            await self.settle(claim, may_have_happened=not is_first or exc.status == 409, may_come=not is_first)
            await self._ledger.catch_up()
            now = self._index.entries.get(claim.uid)
            if now is None or now.claim != claim.bound():
                raise
        else:
            await self._confirm(claim)
        self._on_bound(claim)

    async def _confirm(self, claim: Claim) -> None:
        """The pod is bound, whatever happens here: a ledger that misses it now hears of it from the reconciler."""
        try:
            await self._ledger.confirm(claim)
        except AlreadyClaimedError:
            pass  # the reconciler saw the bound pod before we heard of it
        except FracgpuError as exc:
            _logger.warning("bound, but not yet confirmed", extra={"pod": claim.pod, "error": str(exc)})


def _outcome(claim: Claim, pod: Pod | None) -> Claim | None:
    """What a claim is to become, from its pod as it is now; None where nothing is taken.

    Where the pod is gone the Binding may have happened before: its containers may live, and the share is free when
    the node's plugin says so. Where it is bound to that node, its annotation is believed only if it is a plan.
    """
    if pod is None:
        return claim.bound()
    if not pod.spec.node_name:
        return None
    return bound_claim(pod) or (claim.bound() if pod.spec.node_name == claim.node else None)


def _request_of(pod: Pod) -> PodRequest:
    request = request_of(pod)
    if request is None:
        raise RequestError("the pod asks for no GPU; fracgpu binds only pods that do (see managedResources)")
    return request
