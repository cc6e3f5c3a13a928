from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fracgpu.errors import UnavailableError
from fracgpu.gpunodes import Grant
from fracgpu.names import PodUid
from fracgpu.plans import Share
from plugin.granting.journal import JOURNAL, GrantJournal, Journaled
from tests.plugin.builders import A, make_spec, seat_share

GRANTS = (
    Grant(PodUid("one"), "team-a", "x", {"main": (Share(A, 8),)}),
    Grant(PodUid("two"), "team-a", "y", {"left": (seat_share(A, 1),), "right": ()}),
)

IDS = {PodUid("one"): {"main": tuple(f"{A}::m{n}" for n in range(8))}}


def test_what_was_written_is_read_by_the_next_process(tmp_path: Path) -> None:
    journal = GrantJournal(tmp_path)
    assert journal.read() is None
    journal.write(make_spec(), GRANTS, ids=IDS)
    assert GrantJournal(tmp_path).read() == Journaled(1, make_spec(), GRANTS, IDS)
    journal.write(make_spec(), (), ids={})
    assert GrantJournal(tmp_path).read() == Journaled(1, make_spec(), ())
    assert [path.name for path in tmp_path.iterdir()] == [JOURNAL]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_and_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    journal = GrantJournal(tmp_path)
    journal.write(make_spec(), GRANTS[:1], ids={})
    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync", fail) if failing == "fsync" else (Path, "replace", fail)))
        with pytest.raises(UnavailableError, match=r"cannot write its grants to .*No space left on device"):
            journal.write(make_spec(), GRANTS, ids=IDS)
    assert GrantJournal(tmp_path).read() == Journaled(1, make_spec(), GRANTS[:1])
    journal.write(make_spec(), GRANTS, ids=IDS)
    assert GrantJournal(tmp_path).read() == Journaled(1, make_spec(), GRANTS, IDS)


GOOD = {"version": 1, "spec": {"memoryUnitMiB": 512, "gpus": []}, "grants": []}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"{}",
        json.dumps(GOOD | {"version": 2}).encode(),
        json.dumps(GOOD | {"grants": [{"podUID": 5}]}).encode(),
        json.dumps(
            GOOD
            | {"grants": [{"podUID": "u", "namespace": "", "name": "", "containers": {"c": [{"gpu": A, "units": -1}]}}]}
        ).encode(),
    ],
    ids=["empty", "not text", "deep", "no version", "another version", "another type", "impossible share"],
)
def test_what_cannot_be_read_is_moved_aside_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / JOURNAL).write_bytes(content)
    journal = GrantJournal(tmp_path)
    assert journal.read() is None
    assert "the journal of grants cannot be read" in caplog.text
    assert (tmp_path / f"{JOURNAL}.unreadable").read_bytes() == content
    journal.write(make_spec(), GRANTS, ids=IDS)
    assert journal.read() == Journaled(1, make_spec(), GRANTS, IDS)


def test_what_cannot_be_moved_either_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / JOURNAL).mkdir()
    (tmp_path / f"{JOURNAL}.unreadable").touch()
    assert GrantJournal(tmp_path).read() is None
    assert "the journal of grants cannot be read" in caplog.text
