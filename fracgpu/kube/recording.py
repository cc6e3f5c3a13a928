"""Tells users of a service's deeds by events on their pods, without ever making anybody wait.

What is told goes into a bounded queue and is written one by one, not faster than `PER_SECOND`, and more slowly while
the API server has trouble. What does not fit, or cannot be written, is lost and counted: an event explains, and nothing
depends on it. What is told again of a pod within `REPEAT_SECONDS` is counted, and written with what is told after it.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from fracgpu.kube.backoff import Backoff, TroubleLog
from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.kube.events import EventType, PodEvent, write_event
from fracgpu.names import PodUid

PER_SECOND: Final = 20.0
"""Writes, each some 1 ms of CPU: what binds hundreds of pods a second must hardly feel it."""

REPEAT_SECONDS: Final = 60.0
"""Between two writes of one event."""

MAX_WAITING: Final = 2000
"""Events that wait to be written."""

_REMEMBERED: Final = 4096  # events that were written last
_WRITE_SECONDS: Final = 5.0
_logger = logging.getLogger(__name__)

Outcome = Literal["written", "failed", "dropped", "repeated"]
"""What became of something that was told: repeated is counted only, dropped did not fit into the queue."""


@dataclass(slots=True)
class _Said:
    """One event: what was told of one pod, for one reason."""

    count: int
    first: datetime
    written_at: float  # by the clock


class EventRecorder:
    """Writes events on pods.

    Args:
        client: the API server.
        component: who says it.
        instance: which of several.
        on_outcome: told what became of each.
        clock: seconds that only grow.
        wall_clock: now, for people.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        component: str,
        instance: str,
        on_outcome: Callable[[Outcome], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._component = component
        self._instance = instance
        self._on_outcome = on_outcome
        self._clock = clock
        self._wall_clock = wall_clock
        self._waiting: OrderedDict[tuple[PodUid, str], PodEvent] = OrderedDict()  # pod UID, reason -> what to write
        self._said: OrderedDict[tuple[PodUid, str], _Said] = OrderedDict()  # the same -> what was written
        self._news = asyncio.Event()
        self._backoff = Backoff()
        self._trouble = TroubleLog(_logger, subject="events on pods", clock=clock)

    def tell(
        self, *, namespace: str, pod: str, uid: PodUid, reason: str, message: str, type: EventType = "Normal"
    ) -> None:
        """Have something said of a pod, soon. Returns at once and raises nothing.

        Args:
            namespace: the pod's.
            pod: its name.
            uid: its UID.
            reason: one word in CamelCase.
            message: a sentence.
            type: Warning where somebody should look.
        """
        key = uid, reason
        now = self._wall_clock()
        said, waiting = self._said.get(key), self._waiting.get(key)
        if waiting is None and said is not None and self._clock() - said.written_at < REPEAT_SECONDS:
            said.count += 1
            self._on_outcome("repeated")
            return
        if waiting is None and len(self._waiting) >= MAX_WAITING:
            self._on_outcome("dropped")
            return
        if waiting is not None:
            self._on_outcome("repeated")
            count, first = waiting.count + 1, waiting.first
        else:
            count, first = (said.count + 1, said.first) if said is not None else (1, now)
        self._waiting[key] = PodEvent(namespace, pod, uid, reason, message, count, first=first, last=now, type=type)
        self._news.set()

    def warn(self, *, namespace: str, pod: str, uid: PodUid, reason: str, message: str) -> None:
        """Have a Warning said; as `tell`."""
        self.tell(namespace=namespace, pod=pod, uid=uid, reason=reason, message=message, type="Warning")

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._news.wait()
            while self._waiting:
                key, event = self._waiting.popitem(last=False)
                await asyncio.sleep(await self._write(key, event))
            self._news.clear()

    async def _write(self, key: tuple[PodUid, str], event: PodEvent) -> float:
        """Write an event; returns how many seconds to wait before the next one."""
        try:
            await write_event(
                self._client,
                event,
                component=self._component,
                instance=self._instance,
                timeout_seconds=_WRITE_SECONDS,
            )
        except KubeError as exc:
            self._trouble.failed(exc)
            self._on_outcome("failed")
            return self._backoff.next_seconds()
        self._trouble.succeeded()
        self._backoff.reset()
        self._said.pop(key, None)
        self._said[key] = _Said(event.count, event.first, self._clock())
        if len(self._said) > _REMEMBERED:
            self._said.popitem(last=False)
        self._on_outcome("written")
        return 1 / PER_SECOND
