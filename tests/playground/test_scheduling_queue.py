"""The scheduler's queue, with a clock that the test holds."""

from __future__ import annotations

from typing import Any

from playground.scheduling.scheduling_queue import FLUSH_SECONDS, QueuedPod, SchedulingQueue


def make_queue() -> SchedulingQueue:
    return SchedulingQueue(initial_backoff=1.0, max_backoff=10.0)


def pod(uid: str, *, priority: int = 0) -> dict[str, Any]:
    return {"metadata": {"uid": uid}, "spec": {"priority": priority}}


def take(queue: SchedulingQueue, *, now: float) -> QueuedPod:
    item = queue.pop(now=now)
    assert item is not None
    return item


def test_higher_priority_first_then_earlier_creation() -> None:
    queue = make_queue()
    for uid, priority in [("a", 0), ("b", 5), ("c", 0), ("d", 5)]:
        queue.add(pod(uid, priority=priority))
    queue.remove("c")
    assert [take(queue, now=0).uid for _ in range(3)] == ["b", "d", "a"]
    assert queue.pop(now=0) is None


def test_an_error_backs_off_twice_as_long_each_time_up_to_the_limit() -> None:
    queue = make_queue()
    queue.add(pod("a"))
    now, waits = 0.0, []
    for _ in range(6):
        item = take(queue, now=now)
        queue.put_back_failed(item, now=now)
        assert not queue.is_quiet
        due = queue.next_due()
        assert due is not None
        assert queue.pop(now=due - 0.001) is None
        waits.append(due - now)
        now = due
    assert waits == [1, 2, 4, 8, 10, 10]


def test_an_unschedulable_pod_waits_for_a_change_or_five_minutes() -> None:
    queue = make_queue()
    queue.add(pod("a"))
    queue.put_back_unschedulable(take(queue, now=0), now=0)
    assert queue.is_quiet
    assert queue.pop(now=100) is None
    queue.wake_all(now=100)
    assert not queue.is_quiet
    queue.put_back_unschedulable(take(queue, now=100), now=100)
    assert queue.next_due() == 100 + FLUSH_SECONDS
    assert take(queue, now=100 + FLUSH_SECONDS).uid == "a"


def test_a_change_wakes_into_the_rest_of_the_backoff() -> None:
    queue = make_queue()
    queue.add(pod("a"))
    queue.put_back_unschedulable(take(queue, now=0), now=0)
    queue.wake_all(now=0.25)
    assert queue.pop(now=0.25) is None
    assert queue.next_due() == 1.0
    assert take(queue, now=1.0).attempts == 2


def test_a_change_during_the_cycle_is_not_missed() -> None:
    queue = make_queue()
    queue.add(pod("a"))
    item = take(queue, now=0)
    queue.wake_all(now=0)
    queue.put_back_unschedulable(item, now=0)
    assert not queue.is_quiet
    assert take(queue, now=1.0).uid == "a"


def test_a_waiting_pod_is_replaced_and_forgotten() -> None:
    queue = make_queue()
    queue.add(pod("a"))
    newer = {**pod("a"), "status": {"phase": "Pending"}}
    queue.update(newer)
    assert "a" in queue
    item = take(queue, now=0)
    assert item.pod is newer
    queue.put_back_unschedulable(item, now=0)
    queue.remove("a")
    assert "a" not in queue
    assert queue.is_quiet
