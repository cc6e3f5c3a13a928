"""When a pod that uses more than it was granted is spoken of, and when it is evicted. Pure: time comes as a number.

Invariants: an excess counts only by measurements that follow each other, of the same GPU; one that is missing, or that
came much later than it should, begins the count anew. A pod is spoken of at most once in `REPEAT_SECONDS`, whatever
it does.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from fracgpu.names import GpuUuid, PodUid
from plugin.usage.measuring import Excess

WARN_AFTER: Final = 2
"""Measurements in a row above the grant until a pod is spoken of: a single one may be a peak, or a race."""

EVICT_AFTER: Final = 3
"""Measurements in a row above the grant until a pod is evicted."""

REPEAT_SECONDS: Final = 600.0
"""Between two events on one pod."""

EVICT_AGAIN_SECONDS: Final = 60.0
"""Between two attempts to evict one pod: a disruption budget may allow it later."""


class Step(Enum):
    """What is to be done about a pod."""

    BEGAN = "began"  # it is above its grant from now on
    WARN = "warn"  # an event is due
    EVICT = "evict"
    ENDED = "ended"  # it is no longer above its grant


@dataclass(frozen=True, slots=True)
class Action:
    """One step for one pod.

    Attributes:
        step: what.
        uid: which pod.
        excesses: the GPUs that it is about; none for ENDED.
    """

    step: Step
    uid: PodUid
    excesses: tuple[Excess, ...] = ()


@dataclass(slots=True)
class _Record:
    streaks: dict[GpuUuid, int] = field(default_factory=dict)  # GPU -> measurements in a row above the grant
    is_over: bool = False
    warned_at: float | None = None
    evicted_at: float | None = None


class OveruseWatch:
    """Remembers, of each pod, how long it has been above its grant.

    Args:
        evicts: whether pods are evicted at all.
        max_gap_seconds: two measurements further apart than this do not follow each other.
    """

    def __init__(self, *, evicts: bool, max_gap_seconds: float) -> None:
        self._evicts = evicts
        self._max_gap_seconds = max_gap_seconds
        self._measured_at: float | None = None
        self._records: dict[PodUid, _Record] = {}  # pod UID -> what is known; only of pods that were ever above

    @property
    def over(self) -> frozenset[PodUid]:
        """The pods that are above their grants."""
        return frozenset(uid for uid, record in self._records.items() if record.is_over)

    def observe(
        self, excesses: Mapping[PodUid, tuple[Excess, ...]], *, pods: Collection[PodUid], now: float
    ) -> list[Action]:
        """Take a measurement.

        Args:
            excesses: pod UID -> of which GPUs it uses more than it was granted.
            pods: the pods that something can be done about: they live, and are not being deleted.
            now: in seconds, by a clock that nobody sets.
        """
        if self._measured_at is None or not 0 <= now - self._measured_at <= self._max_gap_seconds:
            self.missed()
        self._measured_at = now
        self._records = {uid: record for uid, record in self._records.items() if uid in pods}
        actions: list[Action] = []
        for uid in sorted(uid for uid in excesses.keys() | self._records.keys() if uid in pods):
            record = self._records.setdefault(uid, _Record())
            actions += self._judge(uid, record, excesses.get(uid, ()), now)
        return actions

    def missed(self) -> None:
        """Note that a measurement failed: what was counted so far no longer counts."""
        for record in self._records.values():
            record.streaks = {}

    def unwarned(self, uid: PodUid) -> None:
        """Note that the event of a WARN could not be written: it is due again."""
        if uid in self._records:
            self._records[uid].warned_at = None

    def _judge(self, uid: PodUid, record: _Record, excesses: tuple[Excess, ...], now: float) -> list[Action]:
        record.streaks = {excess.gpu: record.streaks.get(excess.gpu, 0) + 1 for excess in excesses}
        lasting = tuple(excess for excess in excesses if record.streaks[excess.gpu] >= WARN_AFTER)
        actions: list[Action] = []
        if lasting and not record.is_over:
            record.is_over = True
            actions.append(Action(Step.BEGAN, uid, lasting))
        elif not excesses and record.is_over:
            record.is_over = False
            actions.append(Action(Step.ENDED, uid))
        if lasting and _is_due(record.warned_at, REPEAT_SECONDS, now):
            record.warned_at = now
            actions.append(Action(Step.WARN, uid, lasting))
        unbearable = tuple(excess for excess in excesses if record.streaks[excess.gpu] >= EVICT_AFTER)
        if self._evicts and unbearable and _is_due(record.evicted_at, EVICT_AGAIN_SECONDS, now):
            record.evicted_at = now
            actions.append(Action(Step.EVICT, uid, unbearable))
        return actions


def _is_due(last: float | None, period_seconds: float, now: float) -> bool:
    return last is None or now - last >= period_seconds
