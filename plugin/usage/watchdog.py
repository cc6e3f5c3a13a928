"""Measures what containers use of the GPUs, publishes it, and acts on pods that use more than they were granted.

Left out: what belongs to whom (`measuring`), and when a pod is too much (`overuse`). The cgroups are read in a
thread; a measurement never waits for the API server longer than `_EVICT_SECONDS`.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from fracgpu.errors import UnavailableError
from fracgpu.gpunodes import GpuNodeSpec, Grant
from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.names import PodUid
from fracgpu.pods import Pod
from fracgpu.quantities import MIB_BYTES, format_mib
from fracgpu.trouble import TroubleLog
from plugin.kubelet.cgroups import PodCgroups
from plugin.metrics import Metrics
from plugin.usage.measuring import Excess, Processes, Usage, container_names, find_owners, measure
from plugin.usage.overuse import Action, OveruseWatch, Step

OVERUSE: Final = "GpuMemoryOveruse"
EVICTED: Final = "GpuMemoryEviction"

_EVICT_SECONDS: Final = 5.0
_MANY: Final = 4  # GPUs that a message lists; all of them are in the metrics

_logger = logging.getLogger(__name__)


class Tell(Protocol):
    """See `fracgpu.kube.recording.EventRecorder.warn`."""

    def __call__(
        self,
        *,
        namespace: str,
        pod: str,
        uid: PodUid,
        reason: str,
        message: str,
        on_lost: Callable[[], None] = ...,
    ) -> None:
        """Have a Warning written."""
        ...


class UsageWatchdog:
    """The loop that measures.

    Args:
        client: the API server, for evictions.
        spec: gives the GPUs as they are now.
        grants: gives who holds what now.
        pods: gives the pods of this node that live, by UID.
        cgroups: tells whose a process is.
        processes: asks NVML which processes use the GPUs; may raise UnavailableError.
        metrics: where the results go.
        period_seconds: between two measurements.
        evicts: whether pods that go on using too much are evicted.
        tell: has an event written.
        on_measured: called after each measurement, also one that failed.
        clock: seconds that only grow.
        wall_clock: now, for people.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        spec: Callable[[], GpuNodeSpec],
        grants: Callable[[], Sequence[Grant]],
        pods: Callable[[], Mapping[PodUid, Pod]],
        cgroups: PodCgroups,
        processes: Callable[[], Awaitable[Processes]],
        metrics: Metrics,
        period_seconds: float,
        evicts: bool,
        tell: Tell,
        on_measured: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._spec = spec
        self._grants = grants
        self._pods = pods
        self._cgroups = cgroups
        self._processes = processes
        self._metrics = metrics
        self._period_seconds = period_seconds
        self._tell = tell
        self._on_measured = on_measured
        self._measured: tuple[Usage, datetime] | None = None  # the last measurement, where it did not fail
        self._clock = clock
        self._wall_clock = wall_clock
        # Twice the period, and what a slow NVML and API server may take: more is a measurement that did not happen.
        self._overuse = OveruseWatch(evicts=evicts, max_gap_seconds=2 * period_seconds + 2 * _EVICT_SECONDS)
        self._names: dict[str, str] = {}  # container ID -> container name, also of containers that were restarted
        self._is_blind = False
        self._measuring = TroubleLog(_logger, subject="measuring GPU memory", clock=self._clock)

    @property
    def measured(self) -> tuple[Usage, datetime] | None:
        """The last measurement and when it was made; None where it failed, or there was none yet."""
        return self._measured

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(self._period_seconds)

    async def check(self) -> None:
        """Measure once, and act on it."""
        try:
            usage = await self._measure()
        except UnavailableError as exc:
            self._measuring.failed(exc)
            self._overuse.missed()
            self._metrics.not_measured()
            self._measured = None
            self._on_measured()
            return
        self._measuring.succeeded()
        self._metrics.measured(usage)
        self._measured = usage, self._wall_clock()
        self._on_measured()
        self._say_if_blind(usage)
        pods = {uid: pod for uid, pod in self._pods().items() if pod.metadata.deletion_timestamp is None}
        excesses = {uid: excess for uid, excess in usage.excesses.items() if uid in pods}
        actions = self._overuse.observe(excesses, pods=pods.keys(), now=self._clock())
        began = sum(action.step is Step.BEGAN for action in actions)
        self._metrics.overusing(len(self._overuse.over), began=began)
        await asyncio.gather(*(self._act(action, pods[action.uid]) for action in actions))

    async def _measure(self) -> Usage:
        # NVML first: what it lists and still runs has a grant by now, and is found in its cgroup.
        processes = await self._processes()
        grants, pods, spec = self._grants(), self._pods(), self._spec()
        uids = frozenset(grant.pod_uid for grant in grants)
        found = await asyncio.to_thread(self._cgroups.processes, uids)
        known = {identity for containers in found.values() for identity in containers}
        self._names = {identity: name for identity, name in self._names.items() if identity in known}
        self._names |= container_names(pods[uid] for uid in uids & pods.keys())
        return measure(processes, find_owners(found, pods, self._names), grants, spec=spec)

    def _say_if_blind(self, usage: Usage) -> None:
        is_blind = bool(usage.hidden)
        if is_blind and not self._is_blind:
            _logger.warning(
                "the processes of some pods cannot be seen, so that nobody can tell what they use: run this plugin "
                "with hostPID: true (pods in a virtual machine stay hidden)",
                extra={"pods": len(usage.hidden)},
            )
        self._is_blind = is_blind

    async def _act(self, action: Action, pod: Pod) -> None:
        text = _amounts(action.excesses)
        match action.step:
            case Step.BEGAN:
                _logger.warning("uses more GPU memory than granted", extra={"pod": pod.key, "usage": text})
            case Step.ENDED:
                _logger.info("uses no more GPU memory than granted", extra={"pod": pod.key})
            case Step.WARN:
                message = f"The pod uses more GPU memory than it was granted: {text}."
                self._tell(
                    namespace=pod.metadata.namespace,
                    pod=pod.metadata.name,
                    uid=pod.uid,
                    reason=OVERUSE,
                    message=message,
                    on_lost=lambda: self._overuse.unwarned(pod.uid),
                )
            case Step.EVICT:
                await self._evict(pod, text)

    async def _evict(self, pod: Pod, text: str) -> None:
        try:
            await self._client.evict(
                namespace=pod.metadata.namespace, name=pod.metadata.name, uid=pod.uid, timeout_seconds=_EVICT_SECONDS
            )
        except KubeError as exc:
            is_blocked = exc.status == 429
            self._metrics.eviction("blocked" if is_blocked else "failed")
            _logger.warning(
                "a disruption budget keeps a pod from being evicted" if is_blocked else "cannot evict a pod",
                extra={"pod": pod.key, "usage": text, "error": str(exc)},
            )
            return
        self._metrics.eviction("evicted")
        _logger.warning("evicted", extra={"pod": pod.key, "usage": text})
        message = f"The pod was evicted, because it went on using more GPU memory than it was granted: {text}."
        self._tell(
            namespace=pod.metadata.namespace, pod=pod.metadata.name, uid=pod.uid, reason=EVICTED, message=message
        )


def _amounts(excesses: Sequence[Excess]) -> str:
    listed = [
        f"{_size(excess.used_bytes)} of {excess.gpu}, granted {_size(excess.granted_bytes)}"
        for excess in excesses[:_MANY]
    ]
    if len(excesses) > _MANY:
        listed.append(f"and {len(excesses) - _MANY} more GPUs")
    return "; ".join(listed)


def _size(size_bytes: int) -> str:
    return format_mib(-(-size_bytes // MIB_BYTES))
