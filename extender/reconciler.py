"""Keeps index and ledger true: follows pods and GPUNodes, repairs drift, settles what binds left open, rebuilds.

The decisions are `reconciling.judge`; this module collects the facts and carries the repairs out. Every replica runs
one: repairs are compare-and-set in the ledger, so that the same repair made twice happens once.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from extender.binding import Binder, bound_claim, claim_lifetime_seconds
from extender.index import Index
from extender.ledger.claims import Claim, ClaimState
from extender.ledger.ledger import AlreadyClaimedError, Ledger, LedgerLostError
from extender.reconciling import Drift, Facts, Repair, judge
from fracgpu.errors import InputError, PlanError, UnavailableError
from fracgpu.gpunodes import GpuNode
from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.kube.reflector import Change, ChangeKind, Reflector
from fracgpu.kube.resources import GPUNODES, PODS
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, PodUid
from fracgpu.plans import Plan, check_shares
from fracgpu.pods import Pod

_TICK_SECONDS: Final = 0.5  # deadlines are looked at that often
_SWEEP_SECONDS: Final = 10.0  # everything is compared that often, whether or not something was seen to change
_REBUILD_SECONDS: Final = 30.0  # for listing a large cluster; after it, another replica may try
_logger = logging.getLogger(__name__)


class Reconciler:
    """One replica's follower of the cluster.

    Attributes:
        ready: set while the index is complete and the ledger valid: decisions may be made.
    """

    def __init__(self, *, kube: KubeClient, index: Index, ledger: Ledger, binding_timeout_seconds: float) -> None:
        self._kube = kube
        self._index = index
        self._ledger = ledger
        self._rebuild_wait = claim_lifetime_seconds(binding_timeout_seconds)
        self._pods = Reflector(kube, PODS, on_change=self._on_pod, keep=asks_gpu)
        self._nodes = Reflector(kube, GPUNODES, on_change=self._on_node)
        self._granted: dict[PodUid, Claim] = {}  # pod UID -> what the kubelet granted it
        self._ended_at: dict[PodUid, str] = {}  # pod UID -> resourceVersion at which it was seen to have ended
        self._dirty: set[PodUid] = set()  # pods about which something changed since they were judged
        self._wake = asyncio.Event()
        self.ready = asyncio.Event()
        self.binder = Binder(
            index=index,
            ledger=ledger,
            kube=kube,
            find_pod=self._pods.objects.get,
            binding_timeout_seconds=binding_timeout_seconds,
        )

    @property
    def pods(self) -> Iterable[Pod]:
        """The pods of the cluster that ask for GPUs."""
        return self._pods.objects.values()

    @property
    def is_current(self) -> bool:
        """Whether what this replica does not know of the cluster is only what is on its way to it."""
        return self._pods.is_current and self._nodes.is_current

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pods.run(), name="follow-pods")
            tasks.create_task(self._nodes.run(), name="follow-gpunodes")
            tasks.create_task(self._reconcile(), name="reconcile")

    async def _reconcile(self) -> None:
        await self._pods.synced.wait()
        await self._nodes.synced.wait()
        clock = asyncio.get_running_loop().time
        swept = -_SWEEP_SECONDS
        while True:
            try:
                await self._ledger.catch_up()
                if clock() - swept >= _SWEEP_SECONDS:
                    self._dirty.update(self._index.entries, self._granted, (pod.uid for pod in self.pods))
                    swept = clock()
                await self._repair_all()
                if not self.ready.is_set():
                    _logger.info("index complete", extra={"claims": len(self._index.entries)})
                    self.ready.set()
            except LedgerLostError:
                self.ready.clear()
                await self._rebuild()
                swept = -_SWEEP_SECONDS
                continue
            except (UnavailableError, KubeError) as exc:
                _logger.warning("cannot reconcile now", extra={"error": str(exc)})
                await asyncio.sleep(_TICK_SECONDS)
            try:
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def _repair_all(self) -> None:
        overdue = [
            uid
            for uid, entry in self._index.entries.items()
            if entry.claim.state is ClaimState.BINDING and entry.deadline_ms <= self._ledger.now_ms
        ]
        for uid in [*self._dirty, *overdue]:
            self._dirty.discard(uid)  # first: what changes while we wait is looked at in the next round
            try:
                await self._repair(uid)
            except (UnavailableError, KubeError):
                self._dirty.add(uid)
                raise
            except InputError as exc:  # one pod's trouble must not keep the others from being looked at
                _logger.error("cannot be repaired", extra={"uid": uid, "error": str(exc)})

    async def _repair(self, uid: PodUid) -> None:
        await self._look_for_missing(uid)
        repair = judge(self._facts(uid))
        if repair is not None:
            await self._carry_out(uid, repair)
        if uid not in self._index.entries and uid not in self._granted and uid not in self._pods.objects:
            self._ended_at.pop(uid, None)
            self._index.set_ending(uid, ending=False)

    async def _carry_out(self, uid: PodUid, repair: Repair) -> None:
        try:
            if repair.drift is Drift.UNSETTLED and repair.before is not None:
                await self.binder.settle(repair.before)
            elif repair.before is None and repair.after is not None:
                await self._ledger.record(repair.after)
            elif repair.before is not None and repair.after is not None:
                await self._ledger.replace(repair.before, repair.after)
            elif repair.before is not None:
                await self._ledger.release(repair.before)
        except AlreadyClaimedError:
            pass  # another replica, or a request, was faster
        claim = repair.after or repair.before
        expected = repair.drift in (Drift.CONFIRMED, Drift.RELEASED)
        _logger.log(
            logging.INFO if expected else logging.WARNING,
            str(repair.drift) if expected else "ledger repaired",
            extra={"drift": repair.drift, "uid": uid, "pod": claim.pod if claim else "", "node": claim and claim.node},
        )
        await self._ledger.catch_up()

    def _facts(self, uid: PodUid) -> Facts:
        entry = self._index.entries.get(uid)
        pod = self._pods.objects.get(uid)
        return Facts(
            entry=entry,
            planned=bound_claim(pod) if pod is not None else None,
            granted=self._granted.get(uid),
            ended_at=self._ended_at.get(uid, ""),
            node=self._index.nodes.get(entry.claim.node) if entry else None,
            now_ms=self._ledger.now_ms,
        )

    async def _look_for_missing(self, uid: PodUid) -> None:
        """A bound claim of a pod that the watch does not show: it ended before we came, or is too new to be seen."""
        entry = self._index.entries.get(uid)
        if entry is None or uid in self._pods.objects or uid in self._ended_at:
            return
        if entry.claim.state is ClaimState.BINDING:
            return
        selector = f"metadata.name={entry.claim.name},metadata.namespace={entry.claim.namespace}"
        found = await self._kube.list(PODS, field_selector=selector)
        if all(pod.uid != uid for pod in found.items):
            self._set_ended(uid, found.resource_version)

    async def _rebuild(self) -> None:
        """Rebuild a lost ledger from the API server, or wait while another replica does."""
        try:
            token = await self._ledger.begin_rebuild(lifetime_seconds=self._rebuild_wait + _REBUILD_SECONDS)
            if token is None:
                await asyncio.sleep(_TICK_SECONDS)
                return
            _logger.warning("rebuilding the ledger", extra={"wait_seconds": self._rebuild_wait})
            # Bindings that were on their way when the ledger was lost have arrived, or never will, after this.
            await asyncio.sleep(self._rebuild_wait)
            pods = await self._kube.list(PODS)
            nodes = await self._kube.list(GPUNODES)
            claims = rebuilt_claims(pods.items, nodes.items)
            committed = await self._ledger.commit_rebuild(token, claims)
            _logger.warning("ledger rebuilt", extra={"claims": len(claims), "committed": committed})
        except (UnavailableError, KubeError) as exc:
            _logger.warning("cannot rebuild the ledger now", extra={"error": str(exc)})
            await asyncio.sleep(_TICK_SECONDS)

    def _on_pod(self, change: Change[Pod]) -> None:
        pod = change.object
        if change.kind is ChangeKind.DELETED or has_ended(pod):
            self._set_ended(pod.uid, change.resource_version)
        elif pod.metadata.deletion_timestamp is not None:
            self._index.set_ending(pod.uid, ending=True)
        self._touch([pod.uid])

    def _on_node(self, change: Change[GpuNode]) -> None:
        node = change.object
        before = [uid for uid, claim in self._granted.items() if claim.node == node.node]
        for uid in before:
            del self._granted[uid]
        if change.kind is ChangeKind.DELETED:
            self._index.remove_node(node.node)
        else:
            self._index.put_node(node)
            self._granted.update((claim.uid, claim) for claim in granted_claims(node))
        claimed = [claim.uid for claim in self._index.claims_on(node.node)]
        self._touch([*before, *claimed, *(grant.pod_uid for grant in node.status.grants)])

    def _touch(self, uids: Iterable[PodUid]) -> None:
        self._dirty.update(uids)
        self._wake.set()

    def _set_ended(self, uid: PodUid, resource_version: str) -> None:
        self._ended_at.setdefault(uid, resource_version)
        self._index.set_ending(uid, ending=True)


def asks_gpu(pod: Pod) -> bool:
    """Whether a pod is any of fracgpu's business: it has a plan, or a container that names one of our resources."""
    return pod.allocation is not None or any(
        container.limit(name)
        for container in (*pod.containers, *pod.init_containers)
        for name in (RESOURCE_MEMORY, RESOURCE_REPLICA)
    )


def has_ended(pod: Pod) -> bool:
    """Whether a pod that still exists will never use its share again: its phase alone proves nothing."""
    return pod.is_terminal and pod.all_terminated


def granted_claims(node: GpuNode) -> Iterable[Claim]:
    """What pods claim by the kubelet's grants; grants with impossible numbers are left out."""
    for grant in node.status.grants:
        try:
            check_shares(grant.containers)
        except PlanError as exc:
            _logger.error("grant ignored", extra={"node": node.node, "uid": grant.pod_uid, "error": str(exc)})
            continue
        containers = {
            name: tuple(sorted(shares, key=lambda share: share.gpu)) for name, shares in grant.containers.items()
        }
        plan = Plan(node.spec.memory_unit, containers)
        yield Claim(grant.pod_uid, grant.namespace, grant.name, node.node, ClaimState.BOUND, plan)


def rebuilt_claims(pods: Iterable[Pod], nodes: Iterable[GpuNode]) -> list[Claim]:
    """Everything that is taken, from the API server alone: plans of pods that live, and grants that plugins keep."""
    granted = {claim.uid: claim for node in nodes for claim in granted_claims(node)}
    living = {pod.uid: pod for pod in pods if not has_ended(pod)}
    repairs = (
        judge(
            Facts(
                entry=None,
                planned=bound_claim(living[uid]) if uid in living else None,
                granted=granted.get(uid),
                ended_at="",
                node=None,
                now_ms=0,
            )
        )
        for uid in {**living, **granted}
    )
    return [repair.after for repair in repairs if repair is not None and repair.after is not None]
