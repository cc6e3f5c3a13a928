"""bind: reserve the GPUs in the ledger, then write pod, node and plan in one Binding.

The order makes it safe to die at any point: what is reserved and not yet bound carries a deadline, after which the
pod is read again (`settle`). Repeating a bind is harmless. A Binding whose outcome is not known keeps its reservation
until the deadline has passed, which is longer than a Binding may take.
"""

import logging
from collections.abc import Callable
from typing import Final

from extender.index import Index
from extender.ledger.claims import Claim, ClaimState, Entry
from extender.ledger.ledger import CALL_TIMEOUT_SECONDS, AlreadyClaimedError, Ledger
from extender.placement.explaining import why_not
from extender.placement.fitting import choose
from extender.wire import BindingArgs
from fracgpu.errors import (
    ConflictError,
    FracgpuError,
    InputError,
    NoRoomError,
    PlanError,
    RequestError,
    UnavailableError,
)
from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.kube.resources import PODS
from fracgpu.names import ANNOTATION_ALLOCATION, RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid, NodeName, PodUid
from fracgpu.plans import Plan, decode_plan, encode_plan
from fracgpu.pods import Pod
from fracgpu.quantities import parse_count
from fracgpu.requests import gpu_resource_names, request_of

_ATTEMPTS: Final = 3  # other replicas may be faster that often before the scheduler is asked to try again
_logger = logging.getLogger(__name__)


def claim_lifetime_seconds(binding_timeout_seconds: float) -> float:
    """How long a reservation is kept before the pod is read again: longer than its Binding can take.

    Twice the Binding's own timeout covers what the API server still does after we gave up waiting.
    """
    return 2 * binding_timeout_seconds + CALL_TIMEOUT_SECONDS


class Binder:
    """Answers bind, and settles what a bind left open."""

    def __init__(
        self,
        *,
        index: Index,
        ledger: Ledger,
        kube: KubeClient,
        find_pod: Callable[[PodUid], Pod | None],
        binding_timeout_seconds: float,
    ) -> None:
        self._index = index
        self._ledger = ledger
        self._kube = kube
        self._find_pod = find_pod
        self._timeout = binding_timeout_seconds

    async def bind(self, args: BindingArgs) -> None:
        """Bind a pod to the node that kube-scheduler chose.

        Raises:
            FracgpuError: the pod is not bound, or not known to be; the sentence says why.
        """
        for _ in range(_ATTEMPTS):
            try:
                return await self._bind(args)
            except AlreadyClaimedError:
                continue  # somebody else changed the pod's claim under our hands: look again
        raise ConflictError("the pod is being bound by another replica; try again")

    async def settle(self, claim: Claim) -> None:
        """Find out what became of a Binding whose deadline has passed, and make the ledger agree with the pod.

        Raises:
            KubeError: the pod cannot be read now.
            UnavailableError: the ledger cannot be written now.
        """
        try:
            pod = await self._kube.get(PODS, claim.name, namespace=claim.namespace)
        except KubeError as exc:
            if exc.status != 404:
                raise
            pod = None
        bound = bound_claim(pod) if pod is not None and pod.uid == claim.uid else None
        try:
            if bound is None:
                await self._ledger.release(claim)
            else:
                await self._ledger.replace(claim, bound)
        except AlreadyClaimedError:
            return  # somebody else settled it
        _logger.info("settled", extra={"pod": claim.pod, "uid": claim.uid, "bound": bound is not None})

    async def _bind(self, args: BindingArgs) -> None:
        await self._ledger.catch_up()
        entry = self._index.entries.get(args.pod_uid)
        if entry is not None and entry.claim.state is ClaimState.BINDING and entry.claim.node != args.node:
            entry = await self._settle_earlier(entry)
        if entry is not None and entry.claim.node != args.node:
            raise ConflictError(f"the pod is bound to {entry.claim.node} already, and cannot be bound to {args.node}")
        if entry is not None and entry.claim.state is ClaimState.BOUND:
            return
        claim = await self._reserve(args, entry.claim if entry else None)
        await self._write(claim)

    async def _settle_earlier(self, entry: Entry) -> Entry | None:
        """An earlier bind chose another node: go on only when it is known to have come to nothing."""
        if entry.deadline_ms > self._ledger.now_ms:
            raise ConflictError(f"an earlier binding of the pod to {entry.claim.node} is not finished yet; try again")
        await self.settle(entry.claim)
        await self._ledger.catch_up()
        return self._index.entries.get(entry.claim.uid)

    async def _reserve(self, args: BindingArgs, unfinished: Claim | None) -> Claim:
        lifetime = claim_lifetime_seconds(self._timeout)
        if unfinished is not None:
            await self._ledger.reserve(unfinished, limits=self._limits(unfinished), lifetime_seconds=lifetime)
            return unfinished
        pod = self._find_pod(args.pod_uid) or await self._kube.get(
            PODS, args.pod_name, namespace=args.pod_namespace, timeout_seconds=self._timeout
        )
        if pod.uid != args.pod_uid:
            raise ConflictError(f"the pod was replaced by another of the same name (UID {pod.uid})")
        for _ in range(_ATTEMPTS):
            claim = self._claim(pod, args.node)
            try:
                await self._ledger.reserve(claim, limits=self._limits(claim), lifetime_seconds=lifetime)
            except NoRoomError:
                await self._ledger.catch_up()  # another replica was faster: what is free now?
                continue
            return claim
        raise ConflictError(f"other pods took the free GPUs of {args.node} {_ATTEMPTS} times in a row; try again")

    def _claim(self, pod: Pod, node: NodeName) -> Claim:
        request = request_of(pod)
        if request is None:
            raise RequestError("the pod asks for no GPU; fracgpu binds only pods that do (see managedResources)")
        view = self._index.view(node)
        if view is None:
            raise NoRoomError(f"{node} has no GPUs known to fracgpu")
        plan = choose(view, request)
        if plan is None:
            raise NoRoomError(f"{node} {why_not(view, request)}")
        return Claim(pod.uid, pod.metadata.namespace, pod.metadata.name, node, ClaimState.BINDING, plan)

    def _limits(self, claim: Claim) -> dict[GpuUuid, tuple[int, int]]:
        view = self._index.view(claim.node)
        sizes = {gpu.uuid: (gpu.units, gpu.replicas) for gpu in view.gpus} if view else {}
        return {gpu: sizes.get(gpu, (0, 0)) for gpu in claim.per_gpu()}

    async def _write(self, claim: Claim) -> None:
        """POST the Binding and bring the ledger to its outcome."""
        try:
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
            await self.settle(claim)
            await self._ledger.catch_up()
            now = self._index.entries.get(claim.uid)
            if now is None or now.claim != claim.bound():
                raise
        else:
            await self._confirm(claim)
        _logger.info("bound", extra={"pod": claim.pod, "uid": claim.uid, "node": claim.node})

    async def _confirm(self, claim: Claim) -> None:
        """The pod is bound, whatever happens here: a ledger that misses it now hears of it from the reconciler."""
        try:
            await self._ledger.replace(claim, claim.bound())
        except AlreadyClaimedError:
            pass  # the reconciler saw the bound pod before we heard of it
        except FracgpuError as exc:
            _logger.warning("bound, but not yet confirmed", extra={"pod": claim.pod, "error": str(exc)})


def bound_claim(pod: Pod) -> Claim | None:
    """What a pod claims by the plan that its Binding carried; None where it is not bound, or not by fracgpu.

    Whoever may edit a pod may edit its annotation, so a plan is believed only as far as it is what the pod asks for:
    the same containers, each with as many units or seats as its limit says.
    """
    if not pod.spec.node_name or pod.allocation is None:
        return None
    try:
        plan = decode_plan(pod.allocation)
        if not _is_asked_for(plan, pod):
            raise PlanError("the allocation annotation is not what the pod's limits ask for")
    except InputError as exc:
        _logger.warning("allocation annotation ignored", extra={"pod": pod.key, "error": str(exc)})
        return None
    return Claim(pod.uid, pod.metadata.namespace, pod.metadata.name, pod.spec.node_name, ClaimState.BOUND, plan)


def _is_asked_for(plan: Plan, pod: Pod) -> bool:
    asked = {
        container.name: (parse_count(container.limit(RESOURCE_MEMORY)), parse_count(container.limit(RESOURCE_REPLICA)))
        for container in (*pod.containers, *pod.init_containers)
        if gpu_resource_names(container)
    }
    planned = {}
    for name, shares in plan.containers.items():
        units, seats = sum(share.units for share in shares), sum(share.seats for share in shares)
        planned[name] = (0 if seats else units, seats)  # seats take their units with them, which no limit counts
    return asked == planned
