"""One life of the device plugin: with these settings, on these GPUs. Connects its parts, and runs them.

The order of a start: what is declared for this node; what this plugin had written down and published; the node's pods;
what the kubelet and the cgroups say. Only when the grants are complete does the kubelet hear of us, so that nothing is
given out twice after a restart.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from fracgpu.gpunodes import GpuNodeSpec, GpuNodeStatus
from fracgpu.kube.client import KubeClient
from fracgpu.kube.recording import EventRecorder
from fracgpu.names import GpuUuid, NodeName
from fracgpu.quantities import Mib
from fracgpu.sharing import SharingSpec
from fracgpu.timestamps import timestamp
from plugin.cluster.node import NodeWatch, refuse_beside_nvidia
from plugin.cluster.podwatch import PodWatch
from plugin.cluster.policies import PolicyWatch
from plugin.cluster.publisher import Publisher
from plugin.gpus.cards import Card
from plugin.gpus.inventory import Inventory
from plugin.gpus.layout import Problems
from plugin.granting.book import GrantBook
from plugin.granting.desk import Desk
from plugin.granting.journal import GrantJournal
from plugin.granting.lingering import LingeringWatch
from plugin.handout import Edits, LentShare
from plugin.injection.injector import Injector
from plugin.isolation.mechanism import Isolation
from plugin.kubelet.cgroups import PodCgroups
from plugin.kubelet.front import KubeletFront
from plugin.kubelet.podresources import PodResourcesClient
from plugin.metrics import Metrics
from plugin.settings import PluginSettings
from plugin.sharing.following import Sharing
from plugin.usage.measuring import Processes
from plugin.usage.reporting import report_of
from plugin.usage.watchdog import UsageWatchdog
from plugin.wishes import NodeWish

_COMPONENT: Final = "fracgpu-plugin"  # who tells of events
_logger = logging.getLogger(__name__)


class DevicePlugin:
    """The parts of one device plugin, connected.

    Args:
        settings: what the administrator has told this node's plugin.
        rules: how GPUs are shared, by this node's own file.
        cards: the node's GPUs.
        problems: which of them are not well, and why.
        client: the API server.
        devices: the kubelet's PodResources.
        cgroups: the pods' processes.
        processes: asks NVML which processes use the GPUs.
        metrics: what is counted.
        injector: lets containers see their GPUs; prepared already.
        isolate: makes what keeps containers within their shares, from what is wished for and a callback for changes.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        settings: PluginSettings,
        *,
        rules: Sequence[SharingSpec],
        cards: Sequence[Card],
        problems: Problems,
        client: KubeClient,
        devices: PodResourcesClient,
        cgroups: PodCgroups,
        processes: Callable[[], Awaitable[Processes]],
        metrics: Metrics,
        injector: Injector,
        isolate: Callable[[NodeWish, Callable[[], None]], Isolation],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        name = NodeName(settings.node_name)
        self._settings = settings
        self._injector = injector
        self._isolate = isolate
        self._isolation: Isolation | None = None
        self._serves = False  # and so knows the grants
        self._problems = problems
        self._node = NodeWatch(client, name, on_labels=lambda: self._sharing.refresh())
        self._policies = PolicyWatch(client, on_change=lambda: self._sharing.refresh())
        self._sharing = Sharing(
            cards,
            node=self._node,
            policies=self._policies,
            rules=rules,
            replicas=settings.replicas,
            reserved=None if settings.reserved_mib is None else Mib(settings.reserved_mib),
            isolation=settings.isolation,
            unit=Mib(settings.memory_unit_mib),
            on_change=self._wish_changed,
        )
        self.inventory = Inventory(cards, unit=Mib(settings.memory_unit_mib), numa_hints=settings.numa_hints)
        self._book = GrantBook(self.inventory.gpus)
        self._publisher = Publisher(client, name, spec=self._spec, status=self._status, on_published=metrics.published)
        self._pods = PodWatch(client, name, on_end=self._pod_ended, on_progress=self._publisher.progressed)
        self._journal = GrantJournal(settings.kubelet_socket.parent)
        self._desk = Desk(
            self.inventory,
            self._book,
            pods=self._pods,
            devices=devices,
            processes=cgroups,
            journal=self._journal,
            handout=self,
            on_change=self._tell,
            observer=metrics,
        )
        metrics.serves(name)
        self._metrics = metrics
        self._events = EventRecorder(client, component=_COMPONENT, instance=name, node=name, clock=clock)
        self._watchdog = UsageWatchdog(
            client,
            spec=self._spec,
            grants=self._book.grants,
            pods=self._pods.alive,
            cgroups=cgroups,
            processes=processes,
            metrics=metrics,
            period_seconds=settings.usage_seconds,
            evicts=settings.evict_overuse,
            tell=self._events.warn,
            on_measured=self._publisher.measured,
            clock=clock,
        )
        self.lingering = LingeringWatch(
            node=name, ended=self._book.ended_grants, spec=self._spec, tell=self._events.warn, clock=clock
        )
        self.outdated = asyncio.Event()
        """Set when something has changed that only another life of the plugin can follow."""

    async def run(self, front: KubeletFront, *, prepared: asyncio.Event, may_serve: asyncio.Event) -> None:
        """Learn what is granted, then answer the kubelet until cancelled.

        Args:
            front: what the kubelet sees.
            prepared: set when all has been learned that others have to tell.
            may_serve: awaited then: whoever served before has ended, and grants nothing any more.

        Raises:
            ExceptionGroup: of a SettingError where a setting cannot be used on this node.
        """
        async with asyncio.TaskGroup() as tasks:
            node = await self._node.first()
            if not self._settings.allow_nvidia_device_plugin:
                refuse_beside_nvidia(node)
            await self._policies.first()
            self._isolation = self._isolate(self._sharing.wish, self._tell)
            previous = await self._publisher.previous()
            if previous is not None:
                self._pods.remember_ended(previous.status.ended_pods)
            tasks.create_task(self._pods.run(), name="pod watch")
            await self._pods.synced()
            tasks.create_task(self._node.run(), name="node watch")
            tasks.create_task(self._policies.run(), name="policy watch")
            prepared.set()
            await may_serve.wait()
            # Both: the journal was written first, and by nobody else; the GPUNode survives the loss of a disk.
            journaled = self._journal.read()
            before = journaled or previous
            self.inventory.begin(self._sharing.wish.gpus, before=before.spec if before else None)
            self.inventory.report(self._problems)
            if previous is not None:
                self._book.restore(previous.status.grants)
            if journaled is not None:
                self._book.restore(journaled.grants, ids=journaled.ids)
            await self._desk.reconcile()
            self._serves = True
            self._desk.keep()  # not before: it replaces the old grants
            tasks.create_task(self._isolation.run(), name="isolation")
            tasks.create_task(self._publisher.run(), name="publisher")
            tasks.create_task(self._desk.run(), name="desk")
            tasks.create_task(self._watchdog.run(), name="watchdog")
            tasks.create_task(self._events.run(), name="events")
            tasks.create_task(self.lingering.run(), name="lingering")
            front.attach(self._desk, self.inventory)
            self._tell()

    @property
    def mechanism(self) -> str:
        """What keeps containers within their shares; empty while that is not known."""
        return self._isolation.status.mechanism if self._isolation else ""

    @property
    def is_idle(self) -> bool:
        """Whether nobody holds a share, as far as the grants are known."""
        return self._serves and not self._book.grants()

    @property
    def unready(self) -> str:
        """Why no pod can be given a GPU here, in words; empty where one can."""
        if not self._serves:
            return "it is not known yet what is granted on this node"
        if not self.inventory.gpus:
            return "this node has no GPU that is to be shared"
        return ""

    def report(self, problems: Problems) -> None:
        """Take what is known of the GPUs' health now."""
        self._problems = problems
        if self.inventory.report(problems):
            self._tell()

    def follow_rules(self, rules: Sequence[SharingSpec]) -> None:
        """Share by other rules of this node's file from now on."""
        self._sharing.follow_rules(rules)

    def edits(self, shares: Sequence[LentShare], *, neighbours: Mapping[GpuUuid, int]) -> Edits:
        """What a container is given along with its shares (see `plugin.granting.desk.Handout`)."""
        seen = self._injector.edits([share.card for share in shares])
        if self._isolation is None:
            return seen  # nobody is admitted before it is there
        return seen.plus(self._isolation.edits(shares, neighbours=neighbours))

    def _spec(self) -> GpuNodeSpec:
        return self.inventory.spec

    def _status(self) -> GpuNodeStatus:
        """Read what to publish, in this order: see `plugin.cluster.publisher`."""
        observed, ended, grants = self._pods.observed, self._pods.ended, self._book.grants()
        measured = self._watchdog.measured
        return GpuNodeStatus(
            observed_pods=observed,
            ended_pods=ended,
            grants=grants,
            isolation=self._isolation.status if self._isolation else None,
            sharing=self._sharing.status,
            usage=report_of(measured[0], grants) if measured else None,
            usage_time=timestamp(measured[1]) if measured else None,
        )

    def _tell(self) -> None:
        """Tell everybody of another state of this node."""
        if not self._serves:
            return
        self._publisher.touch()
        self._metrics.gpus(self.inventory.spec)
        self._metrics.grants(len(self._book.grants()))
        self._metrics.isolation(self._isolation.status if self._isolation else None)
        self._metrics.sharing(self._sharing.status)

    def _pod_ended(self) -> None:
        self._desk.wake()

    def _wish_changed(self, before: NodeWish) -> None:
        wish = self._sharing.wish
        if (wish.isolation, wish.excluded) != (before.isolation, before.excluded):
            _logger.info("another isolation is wished for", extra={"isolation": wish.isolation})
            self.outdated.set()
        self.inventory.wish(wish.gpus)
        self._desk.wake()
        self._tell()
