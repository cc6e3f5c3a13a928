"""Keeps index and ledger true: follows pods and GPUNodes, repairs drift, settles what binds left open, rebuilds.

The decisions are `reconciling.judge`; this module collects the facts and carries the repairs out. Every replica runs
one: repairs are compare-and-set in the ledger, so that the same repair made twice happens once.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from extender.binding import Binder, claim_lifetime_seconds
from extender.index import Index
from extender.ledger.claims import Claim, ClaimState, Entry
from extender.ledger.ledger import AlreadyClaimedError, Ledger, LedgerLostError
from extender.metrics import Metrics
from extender.observing import (
    asks_gpu,
    bound_claim,
    granted_claims,
    has_ended,
    load_of,
    nomination_of,
    rebuilt_claims,
    reduced,
    reduced_host,
    reduced_node,
)
from extender.policyreporter import PolicyReporter
from extender.reconciling import Drift, Facts, Repair, judge
from extender.telling import ASSIGNED, COMPONENT, CORRECTED, plan_in_words, why_corrected
from fracgpu.disruption import PodDisruptionBudget
from fracgpu.errors import InputError, UnavailableError
from fracgpu.gpunodes import GpuNode
from fracgpu.hosts import NOTHING, amount_of
from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.kube.events import EventType
from fracgpu.kube.recording import EventRecorder
from fracgpu.kube.reflector import Change, ChangeKind, Reflector
from fracgpu.kube.resources import GPUNODES, NODES, PODDISRUPTIONBUDGETS, PODS
from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.nodes import Node
from fracgpu.pods import Pod

_TICK_SECONDS: Final = 0.5  # deadlines are looked at that often
_GATHER_SECONDS: Final = 0.05  # what changes within this is looked at in one go: events come in swarms
_SWEEP_SECONDS: Final = 10.0  # everything is compared that often, whether or not something was seen to change
_SLICE: Final = 25  # pods that are looked at in one go: under 1 ms, so that no request waits for a sweep
_REBUILD_SECONDS: Final = 12.0  # without a word from the replica that rebuilds, another may try
_logger = logging.getLogger(__name__)


class Reconciler:
    """One replica's follower of the cluster.

    Attributes:
        ready: set while the index is complete and the ledger valid: decisions may be made.
    """

    def __init__(
        self, *, kube: KubeClient, index: Index, ledger: Ledger, metrics: Metrics, binding_timeout_seconds: float
    ) -> None:
        self._kube = kube
        self._index = index
        self._ledger = ledger
        self._metrics = metrics
        self._claim_lifetime = claim_lifetime_seconds(binding_timeout_seconds)
        self._pods = Reflector(kube, PODS, on_change=self._on_pod, keep=reduced)
        self._nodes = Reflector(kube, GPUNODES, on_change=self._on_node, keep=reduced_node)
        self._hosts = Reflector(kube, NODES, on_change=self._on_host, keep=reduced_host)
        self._gpu_pods: dict[str, Pod] = {}  # UID -> pod that asks for GPUs
        self._budgets = Reflector(kube, PODDISRUPTIONBUDGETS, on_change=lambda _: None)
        self._policies = PolicyReporter(kube=kube, nodes=index.nodes, nodes_known=self._nodes.synced)
        self._planned: dict[PodUid, Claim] = {}  # pod UID -> what its Binding wrote, while the pod exists
        self._granted: dict[PodUid, Claim] = {}  # pod UID -> what the kubelet granted it
        self._granted_on: dict[NodeName, tuple[PodUid, ...]] = {}  # node -> pods that it grants something
        self._ended_at: dict[PodUid, str] = {}  # pod UID -> resourceVersion at which it was seen to have ended
        self._dirty: set[PodUid] = set()  # pods about which something changed since they were judged
        self._overdrawn: dict[GpuUuid, NodeName] = {}  # GPU of which more is taken than it has -> its node
        self._wake = asyncio.Event()
        self.ready = asyncio.Event()
        self.binder = Binder(
            index=index,
            ledger=ledger,
            kube=kube,
            find_pod=self._gpu_pods.get,
            binding_timeout_seconds=binding_timeout_seconds,
            on_bound=self._tell_assigned,
        )
        self._events = EventRecorder(
            kube,
            component=COMPONENT,
            instance=socket.gethostname(),
            on_outcome=lambda outcome: metrics.events.labels(outcome).inc(),
        )

    @property
    def pods(self) -> Iterable[Pod]:
        """The pods of the cluster that ask for GPUs."""
        return self._gpu_pods.values()

    @property
    def pods_by_uid(self) -> Mapping[str, Pod]:
        """The same by UID."""
        return self._gpu_pods

    @property
    def budgets(self) -> Iterable[PodDisruptionBudget]:
        """The disruption budgets of the cluster.

        Nothing waits for them: where they cannot be read (without the right to, say) preemption goes on as if there
        were none, and the log says so every minute. kube-scheduler, too, only prefers not to violate them.
        """
        return self._budgets.objects.values()

    @property
    def is_current(self) -> bool:
        """Whether what this replica does not know of the cluster is only what is on its way to it."""
        return self._pods.is_current and self._nodes.is_current

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        with contextlib.suppress(UnavailableError):  # first, so that what follows can share its claims
            await self._ledger.catch_up()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pods.run(), name="follow-pods")
            tasks.create_task(self._nodes.run(), name="follow-gpunodes")
            tasks.create_task(self._hosts.run(), name="follow-nodes")
            tasks.create_task(self._budgets.run(), name="follow-budgets")
            tasks.create_task(self._policies.run(), name="follow-policies")
            tasks.create_task(self._events.run(), name="events")
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
                    self._dirty.update(self._index.entries, self._granted, self._planned, self._ended_at)
                    await self._report()
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
                await asyncio.sleep(_GATHER_SECONDS)
            except TimeoutError:
                pass
            self._wake.clear()

    async def _repair_all(self) -> None:
        passing = [self._index.entries[uid] for uids in self._index.passing.values() for uid in uids]
        overdue = [
            entry.claim.uid for entry in passing if entry.claim.state is ClaimState.BINDING and self._is_overdue(entry)
        ]
        await self._look_for_missing([uid for uid in self._dirty if self._is_missing(uid)])
        for count, uid in enumerate([*self._dirty, *overdue], start=1):
            if count % _SLICE == 0:
                await asyncio.sleep(0)
            self._dirty.discard(uid)  # first: what changes while we wait is looked at in the next round
            try:
                await self._repair(uid)
            except UnavailableError:
                self._dirty.add(uid)
                raise
            except KubeError as exc:  # perhaps of this one pod alone: the sweep comes back to it
                _logger.warning("cannot be looked at now", extra={"uid": uid, "error": str(exc)})
            except InputError as exc:  # one pod's trouble must not keep the others from being looked at
                _logger.error("cannot be repaired", extra={"uid": uid, "error": str(exc)})

    async def _repair(self, uid: PodUid) -> None:
        if self._is_missing(uid):
            await self._look_for_missing([uid])
        repair = judge(self._facts(uid))
        if repair is not None:
            await self._carry_out(uid, repair)
        if uid not in self._index.entries and uid not in self._granted and uid not in self._gpu_pods:
            self._ended_at.pop(uid, None)
            self._index.set_ending(uid, ending=False)

    async def _carry_out(self, uid: PodUid, repair: Repair) -> None:
        is_ours = True
        try:
            if repair.drift is Drift.UNSETTLED and repair.before is not None:
                is_ours = await self.binder.settle(repair.before)
            elif repair.after is not None:
                is_ours = await self._ledger.correct(repair.before, repair.after)
            elif repair.before is not None:
                is_ours = await self._ledger.release(repair.before)
        except AlreadyClaimedError:
            is_ours = False
        if not is_ours:
            return  # another replica, or a request, was faster
        self._metrics.drift.labels(repair.drift).inc()
        claim = repair.after or repair.before
        expected = repair.drift in (Drift.CONFIRMED, Drift.RELEASED)
        _logger.log(
            logging.INFO if expected else logging.WARNING,
            str(repair.drift) if expected else "ledger repaired",
            extra={"drift": repair.drift, "uid": uid, "pod": claim.pod if claim else "", "node": claim and claim.node},
        )
        if claim is not None and (sentence := why_corrected(repair, known=self._index.nodes.get(claim.node))):
            self._tell(claim, CORRECTED, sentence, type="Warning")

    def _tell_assigned(self, claim: Claim) -> None:
        words = plan_in_words(claim.plan, node=claim.node, known=self._index.nodes.get(claim.node))
        self._tell(claim, ASSIGNED, words, type="Normal")

    def _tell(self, claim: Claim, reason: str, message: str, *, type: EventType) -> None:
        self._events.tell(
            namespace=claim.namespace, pod=claim.name, uid=claim.uid, reason=reason, message=message, type=type
        )

    async def _report(self) -> None:
        """Tell the metrics how the ledger stands, and the log which GPUs came to be overdrawn or ceased to be.

        On the way every view is made that is not there, so that no request has to.
        """
        found: dict[GpuUuid, NodeName] = {}
        for count, name in enumerate(list(self._index.nodes), start=1):
            if count % _SLICE == 0:
                await asyncio.sleep(0)
            view = self._index.view(name)
            found.update((gpu.uuid, name) for gpu in (view.gpus if view else ()) if gpu.is_overdrawn)
        for uuid in found.keys() - self._overdrawn.keys():
            _logger.error("GPU overdrawn: takes nothing more", extra={"gpu": uuid, "node": found[uuid]})
        for uuid in self._overdrawn.keys() - found.keys():
            _logger.info("GPU no longer overdrawn", extra={"gpu": uuid, "node": self._overdrawn[uuid]})
        self._overdrawn = found
        self._metrics.overdrawn_gpus.set(len(found))
        self._metrics.claims.set(len(self._index.entries))

    def _facts(self, uid: PodUid) -> Facts:
        entry = self._index.entries.get(uid)
        pod = self._gpu_pods.get(uid)
        planned, granted = self._planned.get(uid), self._granted.get(uid)
        claim = entry.claim if entry else planned or granted
        return Facts(
            entry=entry,
            planned=planned,
            granted=granted,
            ended_at=self._ended_at.get(uid, ""),
            is_unbound=pod is not None and not pod.spec.node_name,
            node=self._index.nodes.get(claim.node) if claim else None,
            is_overdue=entry is not None and self._is_overdue(entry),
        )

    def _is_overdue(self, entry: Entry) -> bool:
        return entry.is_overdue(now_ms=self._ledger.now_ms, lifetime_seconds=self._claim_lifetime)

    def _is_missing(self, uid: PodUid) -> bool:
        """Whether the ledger has a bound claim of a pod that the watch does not show, and nobody has asked about it."""
        entry = self._index.entries.get(uid)
        is_bound = entry is not None and entry.claim.state is ClaimState.BOUND
        return is_bound and uid not in self._gpu_pods and uid not in self._ended_at

    async def _look_for_missing(self, uids: Sequence[PodUid]) -> None:
        """Find out whether these pods have ended, before we came say, or are too new to be seen."""
        selector = ""
        if len(uids) == 1:
            claim = self._index.entries[uids[0]].claim
            selector = f"metadata.name={claim.name},metadata.namespace={claim.namespace}"
        if uids:
            found = await self._kube.list(PODS, field_selector=selector, keep=reduced)
            living = {*found.unreadable, *(pod.uid for pod in found.items)}
            for uid in uids:
                if uid not in living:
                    self._set_ended(uid, found.resource_version)

    async def _rebuild(self) -> None:
        """Rebuild a lost ledger from the API server, or wait while another replica does."""
        try:
            token = await self._ledger.begin_rebuild(lifetime_seconds=_REBUILD_SECONDS)
            if token is None:
                await asyncio.sleep(_TICK_SECONDS)
                return
            _logger.warning("rebuilding the ledger", extra={"wait_seconds": self._claim_lifetime})
            prolonging = asyncio.create_task(self._prolong(token), name="prolong-rebuild")
            try:
                # Bindings that were on their way when the ledger was lost have arrived, or never will, after this.
                await asyncio.sleep(self._claim_lifetime)
                pods = await self._kube.list(PODS, keep=reduced)
                nodes = await self._kube.list(GPUNODES)
                claims = rebuilt_claims(pods.items, nodes.items)
                committed = await self._ledger.commit_rebuild(token, claims)
            finally:
                prolonging.cancel()
            _logger.warning("ledger rebuilt", extra={"claims": len(claims), "committed": committed})
        except (UnavailableError, KubeError, InputError) as exc:
            _logger.warning("cannot rebuild the ledger now", extra={"error": str(exc)})
            await asyncio.sleep(_TICK_SECONDS)

    async def _prolong(self, token: str) -> None:
        """Keep the others from rebuilding too, however long it takes: they take over when this replica has died."""
        while True:
            await asyncio.sleep(_REBUILD_SECONDS / 4)
            with contextlib.suppress(UnavailableError):
                await self._ledger.begin_rebuild(lifetime_seconds=_REBUILD_SECONDS, token=token)

    def _on_pod(self, change: Change[Pod]) -> None:
        pod = change.object
        load = NOTHING if change.kind is ChangeKind.DELETED else load_of(pod)
        if load == NOTHING:
            self._index.remove_load(pod.uid)
        else:
            self._index.put_load(pod.uid, pod.spec.node_name, load)
        is_there = change.kind is not ChangeKind.DELETED and asks_gpu(pod)
        if is_there:
            if pod.uid not in self._gpu_pods:
                self._index.see(pod)
            self._gpu_pods[pod.uid] = pod
        elif self._gpu_pods.pop(pod.uid, None) is None:
            return
        planned = bound_claim(pod) if is_there else None
        if planned is None:
            self._planned.pop(pod.uid, None)
        else:
            self._planned[pod.uid] = self._shared(planned)
        if not is_there or has_ended(pod):
            self._set_ended(pod.uid, change.resource_version)
        else:
            self._ended_at.pop(pod.uid, None)
            is_ending = pod.metadata.deletion_timestamp is not None or pod.is_terminal
            self._index.set_ending(pod.uid, ending=is_ending)
        self._index.set_nominated(pod.uid, nomination_of(pod) if is_there else None)
        self._touch([pod.uid])

    def _on_host(self, change: Change[Node]) -> None:
        status = None if change.kind is ChangeKind.DELETED else change.object.status
        size = amount_of(status.allocatable) if status is not None and status.allocatable else None
        self._index.put_host(NodeName(change.object.metadata.name), size)

    def _on_node(self, change: Change[GpuNode]) -> None:
        node = change.object
        before = self._granted_on.pop(node.node, ())
        for uid in before:
            if (claim := self._granted.get(uid)) is not None and claim.node == node.node:
                del self._granted[uid]
        known = self._index.nodes.get(node.node)
        if change.kind is ChangeKind.DELETED:
            self._index.remove_node(node.node)
        else:
            claims = {claim.uid: self._shared(claim) for claim in granted_claims(node, pods=self._gpu_pods)}
            self._index.put_node(node, granted=claims)
            self._granted.update(claims)
            self._granted_on[node.node] = tuple(claims)
        if (known and known.status.sharing) != node.status.sharing or change.kind is ChangeKind.DELETED:
            self._policies.wake()
        self._touch([*before, *self._index.uids_on(node.node), *self._granted_on.get(node.node, ())])

    def _shared(self, claim: Claim) -> Claim:
        """The ledger's copy of an equal claim: most are equal in ledger, plan and grant, and there are many."""
        entry = self._index.entries.get(claim.uid)
        return entry.claim if entry is not None and entry.claim == claim else claim

    def _touch(self, uids: Iterable[PodUid]) -> None:
        self._dirty.update(uids)
        self._wake.set()

    def _set_ended(self, uid: PodUid, resource_version: str) -> None:
        self._ended_at.setdefault(uid, resource_version)
        self._index.set_ending(uid, ending=True)
