"""The parts of `fracgpu.kube` that need no server."""

import logging
import random

import pytest

from fracgpu.kube.changes import Change, ChangeKind, differences
from fracgpu.kube.messages import Lines, decode_event
from fracgpu.kube.resources import GPUNODES, PODS
from fracgpu.names import PodUid
from fracgpu.pods import ObjectMeta, Pod
from fracgpu.trouble import Backoff, TroubleLog


def pod(uid: str, version: int) -> Pod:
    return Pod(metadata=ObjectMeta(name=uid, uid=PodUid(uid), resource_version=str(version)))


def by_uid(*pods: Pod) -> dict[str, Pod]:
    return {item.metadata.uid: item for item in pods}


DIFFERENCES = {
    "nothing happened": (by_uid(pod("a", 1)), by_uid(pod("a", 1)), []),
    "all is new": ({}, by_uid(pod("a", 1)), [(ChangeKind.ADDED, pod("a", 1))]),
    "a deletion was missed": (by_uid(pod("a", 1)), {}, [(ChangeKind.DELETED, pod("a", 1))]),
    "a change was missed": (by_uid(pod("a", 1)), by_uid(pod("a", 2)), [(ChangeKind.MODIFIED, pod("a", 2))]),
    "deletions come before what takes their place": (
        by_uid(pod("old", 1)),
        by_uid(pod("new", 2)),
        [(ChangeKind.DELETED, pod("old", 1)), (ChangeKind.ADDED, pod("new", 2))],
    ),
    "what could not be read is not gone": (by_uid(pod("unsure", 1)), {}, []),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_differences(case: str) -> None:
    known, listed, want = DIFFERENCES[case]
    changes = differences(known, listed, unsure={"unsure"}, listed_at="99")
    assert list(changes) == [
        Change(kind, changed, "99" if kind is ChangeKind.DELETED else changed.metadata.resource_version)
        for kind, changed in want
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_the_same_however_they_are_cut(size: int) -> None:
    stream = b"one\n\ntwo is longer\nthree\nunfinis"
    lines = Lines()
    got: list[bytes] = []
    for start in range(0, len(stream), size):
        got += lines.feed(stream[start : start + size])
    assert got == [b"one", b"two is longer", b"three"]
    assert lines.is_mid_line
    assert lines.feed(b"hed\n") == [b"unfinished"]
    assert not lines.is_mid_line


def test_backoff_doubles_up_to_its_limit_and_begins_again() -> None:
    backoff = Backoff(initial_seconds=1, max_seconds=10, rng=random.Random(7))
    for want in (1, 2, 4, 8, 10, 10):
        assert want / 2 <= backoff.next_seconds() <= want
    backoff.reset()
    assert backoff.next_seconds() <= 1


def test_trouble_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    times = iter([*range(0, 150, 10), 140])  # of 15 failures, and of the recovery
    trouble = TroubleLog(logging.getLogger("test"), subject="watching pods", clock=lambda: next(times))
    trouble.succeeded()
    for _ in range(15):
        trouble.failed(ValueError("no"))
    trouble.succeeded()
    trouble.succeeded()
    told = [(record.message, record.__dict__["failures"]) for record in caplog.records]
    assert told == [("trouble", 1), ("trouble", 7), ("trouble", 13), ("recovered", 15)]
    assert caplog.records[-1].__dict__["seconds"] == 140


def test_a_bookmark_of_a_kind_whose_spec_is_required_is_read() -> None:
    event = decode_event(GPUNODES, b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"},"spec":null}}')
    assert (event.object, event.resource_version) == (None, "9")


def test_paths() -> None:
    assert PODS.object_path("p", namespace="n", subresource="binding") == "/api/v1/namespaces/n/pods/p/binding"
    assert GPUNODES.object_path("node/1") == "/apis/fracgpu.io/v1alpha1/gpunodes/node%2F1"
