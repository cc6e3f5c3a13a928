"""The store: versions, conflicts, the bounded log, and what deleting a pod means."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from playground.api.deletion import mark_pod
from playground.api.resources import Key
from playground.api.store import Store
from playground.cluster import ApiStatusError

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
NODE = Key("nodes", "", "n1")
POD = Key("pods", "default", "a")


def make_store(**settings: Any) -> Store:
    return Store(clock=lambda: NOON, **settings)


def make_node(**spec: Any) -> dict[str, Any]:
    return {"metadata": {}, "spec": spec}


def test_every_change_has_the_next_version() -> None:
    store = make_store()
    created = store.create(NODE, make_node())
    assert created["metadata"]["resourceVersion"] == "1"
    assert created["metadata"]["creationTimestamp"] == "2026-11-21T12:00:00Z"
    updated = store.update(NODE, {**created, "spec": {"unschedulable": True}})
    assert (updated["metadata"]["resourceVersion"], store.version) == ("2", 2)
    assert store.update(NODE, updated) is updated, "an update that changes nothing is no change"
    assert store.version == 2
    removed = store.delete(NODE)
    assert removed["metadata"]["resourceVersion"] == "3"
    assert [change.version for change in store.changes_after(0)] == [1, 2, 3]


def test_a_client_cannot_write_what_the_server_keeps() -> None:
    store = make_store()
    created = store.create(NODE, make_node())
    mine = {"name": "n9", "uid": "mine", "creationTimestamp": "never", "labels": {"a": "b"}}
    updated = store.update(NODE, {"metadata": mine, "spec": {}})
    assert updated["metadata"] == {**created["metadata"], "labels": {"a": "b"}, "resourceVersion": "2"}


def test_conflicts() -> None:
    store = make_store()
    created = store.create(NODE, make_node())
    store.update(NODE, make_node(a=1))
    refused: list[Callable[[], object]] = [
        lambda: store.create(NODE, make_node()),
        lambda: store.update(NODE, created, expect_version="1"),
        lambda: store.delete(NODE, uid="other"),
        lambda: store.delete(NODE, expect_version="1"),
    ]
    for attempt in refused:
        with pytest.raises(ApiStatusError) as caught:
            attempt()
        assert caught.value.code == 409
    with pytest.raises(ApiStatusError, match="not found"):
        store.get(Key("nodes", "", "n2"))


def test_a_log_too_short_for_a_reader_answers_410() -> None:
    store = make_store(log_limit=2)
    store.create(NODE, make_node())
    for number in range(3):
        store.update(NODE, make_node(number=number))
    assert [change.version for change in store.changes_after(2)] == [3, 4]
    with pytest.raises(ApiStatusError) as caught:
        store.changes_after(1)
    assert (caught.value.code, caught.value.reason) == (410, "Expired")
    assert store.changes_after(99) == [], "a version that is yet to come is not too old"
    store.compact()
    assert store.changes_after(4) == []
    with pytest.raises(ApiStatusError):
        store.changes_after(3)


def test_an_earlier_state_is_rebuilt_from_the_log() -> None:
    store = make_store()
    store.create(NODE, make_node(color="red"))
    before = store.list("nodes")
    store.update(NODE, make_node(color="blue"))
    store.create(Key("nodes", "", "n0"), make_node())
    store.delete(NODE)
    assert store.list("nodes", at=1) == before
    assert [key.name for key in store.list("nodes", at=3)] == ["n0", "n1"]
    assert [key.name for key in store.list("nodes")] == ["n0"]


def test_a_scratch_copy_leaves_no_trace() -> None:
    store = make_store()
    heard: list[int] = []
    store.subscribe(lambda: heard.append(store.version))
    store.create(NODE, make_node())
    scratch = store.scratch()
    scratch.delete(NODE)
    assert store.get(NODE)
    assert (store.version, heard) == (1, [1])


MARKS: dict[str, tuple[dict[str, Any], int | None, int]] = {
    "a bound pod gets its own grace": ({"nodeName": "n1", "terminationGracePeriodSeconds": 7}, None, 7),
    "a bound pod without one gets the default": ({"nodeName": "n1"}, None, 30),
    "the request overrides it": ({"nodeName": "n1"}, 3, 3),
    "force": ({"nodeName": "n1"}, 0, 0),
    "a negative grace is one second": ({"nodeName": "n1"}, -5, 1),
    "an unbound pod has nothing to end": ({}, 30, 0),
}


@pytest.mark.parametrize("case", MARKS)
def test_the_grace_of_a_first_deletion(case: str) -> None:
    spec, asked, want_grace = MARKS[case]
    marked = mark_pod({"metadata": {}, "spec": spec}, grace_seconds=asked, now=NOON)
    assert marked["metadata"]["deletionGracePeriodSeconds"] == want_grace


def test_a_finished_pod_goes_at_once() -> None:
    pod = {"metadata": {}, "spec": {"nodeName": "n1"}, "status": {"phase": "Succeeded"}}
    assert mark_pod(pod, grace_seconds=None, now=NOON)["metadata"]["deletionGracePeriodSeconds"] == 0


def test_a_second_deletion_only_shortens_the_grace() -> None:
    first = mark_pod({"metadata": {}, "spec": {"nodeName": "n1"}}, grace_seconds=None, now=NOON)
    assert first["metadata"]["deletionTimestamp"] == "2026-11-21T12:00:30Z"
    assert mark_pod(first, grace_seconds=None, now=NOON) is first
    assert mark_pod(first, grace_seconds=60, now=NOON) is first
    shorter = mark_pod(first, grace_seconds=10, now=NOON)
    assert shorter["metadata"]["deletionTimestamp"] == "2026-11-21T12:00:10Z"


def test_a_marked_pod_stays_until_its_kubelet_removes_it() -> None:
    store = make_store()
    uid = store.create(POD, {"metadata": {}, "spec": {"nodeName": "n1"}})["metadata"]["uid"]
    store.delete(POD)
    assert "deletionTimestamp" in store.get(POD)["metadata"]
    store.delete(POD, grace_seconds=0, uid=uid)
    with pytest.raises(ApiStatusError, match="not found"):
        store.get(POD)
