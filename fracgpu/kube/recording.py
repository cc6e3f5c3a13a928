"""Tells users of a service's deeds by events on their pods, without ever making anybody wait.

What is told goes into a bounded queue and is written one by one, not faster than `PER_SECOND`, and more slowly while
the API server has trouble. What it refuses (in a namespace that is ending, say) holds nothing else up. What does not
fit, or cannot be written, is lost and counted: an event explains, and nothing depends on it. What is told again of a
pod within `REPEAT_SECONDS` is counted, and written with what is told after it.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.kube.events import EventType, PodEvent, write_event
from fracgpu.names import NodeName, PodUid
from fracgpu.trouble import Backoff, TroubleLog

PER_SECOND: Final = 20.0
"""Writes, each some 1 ms of CPU: what binds hundreds of pods a second must hardly feel it."""

REPEAT_SECONDS: Final = 60.0
"""Between two writes of one event."""

MAX_WAITING: Final = 2000
"""Events that wait to be written."""

_REMEMBERED: Final = 4096  # events that were written last
_WRITE_SECONDS: Final = 5.0
_DEFECT_SECONDS: Final = 1.0  # after one of our own mistakes, each of which is logged with its traceback
_TOO_MANY_REQUESTS: Final = 429
_logger = logging.getLogger(__name__)

Outcome = Literal["written", "failed", "dropped", "repeated"]
"""What became of something that was told: repeated is counted only, dropped did not fit into the queue."""


@dataclass(slots=True)
class _Said:
    """One event: what was told of one pod, for one reason."""

    count: int
    first: datetime
    written_at: float  # by the clock; while it is being written, when that began


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An event that is to be written."""

    event: PodEvent
    on_lost: Callable[[], None]


class EventRecorder:
    """Writes events on pods.

    Args:
        client: the API server.
        component: who says it.
        instance: which of several.
        node: the node that all of it is about, where it is about one.
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
        node: NodeName | None = None,
        on_outcome: Callable[[Outcome], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._component = component
        self._instance = instance
        self._node = node
        self._on_outcome = on_outcome
        self._clock = clock
        self._wall_clock = wall_clock
        self._waiting: OrderedDict[tuple[PodUid, str], _Waiting] = OrderedDict()  # pod UID, reason -> what to write
        self._said: OrderedDict[tuple[PodUid, str], _Said] = OrderedDict()  # the same -> what was or is being written
        self._news = asyncio.Event()
        self._backoff = Backoff()
        self._trouble = TroubleLog(_logger, subject="events on pods", clock=clock)
        # Never said to be over: that one namespace takes events says nothing of another.
        self._refusals = TroubleLog(_logger, subject="events on pods that the API server refuses", clock=clock)

    def tell(
        self,
        *,
        namespace: str,
        pod: str,
        uid: PodUid,
        reason: str,
        message: str,
        type: EventType = "Normal",
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Have something said of a pod, soon. Returns at once and raises nothing.

        Args:
            namespace: the pod's.
            pod: its name.
            uid: its UID.
            reason: one word in CamelCase.
            message: a sentence.
            type: Warning where somebody should look.
            on_lost: called where it could not be written, for who would say it again.
        """
        key = uid, reason
        now = self._wall_clock()
        said, waiting = self._said.get(key), self._waiting.get(key)
        if waiting is None and said is not None and self._clock() - said.written_at < REPEAT_SECONDS:
            said.count += 1
            self._on_outcome("repeated")
            return
        if waiting is None and len(self._waiting) >= MAX_WAITING:
            on_lost()
            self._on_outcome("dropped")
            return
        if waiting is not None:
            self._on_outcome("repeated")
            count, first = waiting.event.count + 1, waiting.event.first
        else:
            count, first = (said.count + 1, said.first) if said is not None else (1, now)
        event = PodEvent(namespace, pod, uid, reason, message, count, first=first, last=now, type=type)
        self._waiting[key] = _Waiting(event, on_lost)
        self._news.set()

    def warn(
        self,
        *,
        namespace: str,
        pod: str,
        uid: PodUid,
        reason: str,
        message: str,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Have a Warning said; as `tell`."""
        self.tell(
            namespace=namespace,
            pod=pod,
            uid=uid,
            reason=reason,
            message=message,
            type="Warning",
            on_lost=on_lost,
        )

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._news.wait()
            while self._waiting:
                key, waiting = self._waiting.popitem(last=False)
                try:
                    pause = await self._write(key, waiting)
                except Exception:
                    _logger.exception("defect", extra={"pod": f"{waiting.event.namespace}/{waiting.event.pod}"})
                    pause = _DEFECT_SECONDS
                await asyncio.sleep(pause)
            self._news.clear()

    async def _write(self, key: tuple[PodUid, str], waiting: _Waiting) -> float:
        """Write an event; returns how many seconds to wait before the next one."""
        event, before = waiting.event, self._said.pop(key, None)
        said = self._said[key] = _Said(event.count, event.first, self._clock())  # for who tells it meanwhile
        try:
            await write_event(
                self._client,
                event,
                component=self._component,
                instance=self._instance,
                node=self._node,
                timeout_seconds=_WRITE_SECONDS,
            )
        except Exception as exc:
            del self._said[key]
            if before is not None:
                self._said[key] = before
            waiting.on_lost()
            self._on_outcome("failed")
            if not isinstance(exc, KubeError):
                raise
            return self._failed(exc)
        self._trouble.succeeded()
        self._backoff.reset()
        said.written_at = self._clock()
        if len(self._said) > _REMEMBERED:
            self._said.popitem(last=False)
        self._on_outcome("written")
        return 1 / PER_SECOND

    def _failed(self, error: KubeError) -> float:
        """Speak of what kept an event from being written; returns how many seconds to wait before the next one."""
        if 400 <= error.status < 500 and error.status != _TOO_MANY_REQUESTS:
            self._refusals.failed(error)
            return 1 / PER_SECOND
        self._trouble.failed(error)
        return self._backoff.next_seconds()
