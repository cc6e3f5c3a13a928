"""The scheduler's waiting room: active, backing off, unschedulable. Pure: the time comes from the caller.

As in kube-scheduler, a pod that failed for lack of room waits until the cluster changes (or five minutes), one that
failed by an error waits for its backoff only, and a change wakes a pod into its backoff if that is not yet over.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

from playground.cluster import JsonObject

FLUSH_SECONDS = 300.0
"""A pod is tried again after this even if nothing changed, as kube-scheduler's podMaxInUnschedulablePodsDuration."""


@dataclass(slots=True)
class QueuedPod:
    """A pod that wants a node.

    Attributes:
        pod: as last seen.
        order: its place among pods of its priority, by creation.
        attempts: scheduling cycles so far.
        tried_at: when the last one ended, in seconds of the caller's clock.
        moves_seen: how often the cluster had changed when its last cycle began.
    """

    pod: JsonObject
    order: int
    attempts: int = 0
    tried_at: float = 0.0
    moves_seen: int = 0

    @property
    def uid(self) -> str:
        """The pod's UID."""
        uid: str = self.pod["metadata"]["uid"]
        return uid

    @property
    def rank(self) -> tuple[int, int]:
        """Sorts the higher priority first, then the earlier creation."""
        return (-int(self.pod["spec"].get("priority") or 0), self.order)


class SchedulingQueue:
    """Pods by UID, each in exactly one of the three places, or taken out for a cycle.

    Args:
        initial_backoff: seconds after the first failure; every further one doubles them.
        max_backoff: the longest backoff, in seconds.
    """

    def __init__(self, *, initial_backoff: float, max_backoff: float) -> None:
        self._initial_backoff = initial_backoff
        self._max_backoff = max_backoff
        self._created = 0
        self._moves = 0
        self._active: list[tuple[tuple[int, int], str]] = []  # heap of (rank, uid)
        self._waiting: dict[str, QueuedPod] = {}  # uid -> pod in any of the three places
        self._backing_off: dict[str, float] = {}  # uid -> when its backoff ends
        self._unschedulable: dict[str, float] = {}  # uid -> when it was put there

    def __contains__(self, uid: str) -> bool:
        return uid in self._waiting

    @property
    def is_quiet(self) -> bool:
        """Whether no pod will be tried again before the cluster changes."""
        return len(self._waiting) == len(self._unschedulable)

    def add(self, pod: JsonObject) -> None:
        """Put a new pod into the active queue."""
        self._created += 1
        self._activate(QueuedPod(pod, self._created))

    def update(self, pod: JsonObject) -> None:
        """Replace a waiting pod by its newer state; it keeps its place."""
        self._waiting[pod["metadata"]["uid"]].pod = pod

    def remove(self, uid: str) -> None:
        """Forget a pod, wherever it is."""
        self._waiting.pop(uid, None)
        self._backing_off.pop(uid, None)
        self._unschedulable.pop(uid, None)

    def pop(self, *, now: float) -> QueuedPod | None:
        """Take out the next pod to try, or None."""
        self._flush(now)
        while self._active:
            _, uid = heapq.heappop(self._active)
            if uid in self._waiting:  # it may have been removed meanwhile
                item = self._waiting.pop(uid)
                item.attempts += 1
                item.moves_seen = self._moves
                return item
        return None

    def next_due(self) -> float | None:
        """When a pod becomes active by itself; None if none will."""
        due = [*self._backing_off.values(), *(since + FLUSH_SECONDS for since in self._unschedulable.values())]
        return min(due, default=None)

    def put_back_unschedulable(self, item: QueuedPod, *, now: float) -> None:
        """Return a pod for which there was no room; it waits for a change, unless one came during its cycle."""
        item.tried_at = now
        self._waiting[item.uid] = item
        if item.moves_seen == self._moves:
            self._unschedulable[item.uid] = now
        else:
            self._backing_off[item.uid] = self._backoff_ends(item)

    def put_back_failed(self, item: QueuedPod, *, now: float) -> None:
        """Return a pod whose cycle or binding ended with an error; it waits for its backoff."""
        item.tried_at = now
        self._waiting[item.uid] = item
        self._backing_off[item.uid] = self._backoff_ends(item)

    def wake_all(self, *, now: float) -> None:
        """The cluster changed: every unschedulable pod may be tried again once its backoff is over."""
        self._moves += 1
        for uid in list(self._unschedulable):
            self._wake(uid, now=now)

    def _flush(self, now: float) -> None:
        for uid, ends in list(self._backing_off.items()):
            if ends <= now:
                del self._backing_off[uid]
                self._activate(self._waiting[uid])
        for uid, since in list(self._unschedulable.items()):
            if since + FLUSH_SECONDS <= now:
                self._wake(uid, now=now)

    def _wake(self, uid: str, *, now: float) -> None:
        del self._unschedulable[uid]
        item = self._waiting[uid]
        ends = self._backoff_ends(item)
        if ends > now:
            self._backing_off[uid] = ends
        else:
            self._activate(item)

    def _activate(self, item: QueuedPod) -> None:
        self._waiting[item.uid] = item
        heapq.heappush(self._active, (item.rank, item.uid))

    def _backoff_ends(self, item: QueuedPod) -> float:
        doublings = min(item.attempts - 1, 30)  # beyond any maximum
        return item.tried_at + min(math.ldexp(self._initial_backoff, doublings), self._max_backoff)
