"""Events that a service tells of: nobody waits for them, and what becomes of each is counted."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fracgpu.kube import recording
from fracgpu.kube.client import KubeClient
from fracgpu.kube.recording import MAX_WAITING, EventRecorder
from fracgpu.names import PodUid
from tests.kube.following import PATIENCE_SECONDS
from tests.kube.server import Server


class Teller:
    """A recorder, its outcomes, and a clock that the test moves."""

    def __init__(self, client: KubeClient, server: Server) -> None:
        self.server = server
        self.seconds = 0.0
        self.outcomes: Counter[str] = Counter()
        self.lost: list[str] = []  # UIDs
        self._changed = asyncio.Event()
        began = datetime(2026, 11, 21, tzinfo=UTC)
        self.recorder = EventRecorder(
            client,
            component="test",
            instance="test-1",
            on_outcome=self._note,
            clock=lambda: self.seconds,
            wall_clock=lambda: began + timedelta(seconds=self.seconds),
        )

    def tell(self, message: str, *, uid: str = "u", reason: str = "Tested") -> None:
        self.server.answers.append({"metadata": {"name": "event"}})
        self.recorder.tell(
            namespace="default",
            pod="p",
            uid=PodUid(uid),
            reason=reason,
            message=message,
            on_lost=lambda: self.lost.append(uid),
        )

    async def until_seen(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.server.seen) < count:  # noqa: ASYNC110 (the server has no event for it)
                await asyncio.sleep(0)

    async def until(self, outcome: str, count: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.outcomes[outcome] < count:
                self._changed.clear()
                await self._changed.wait()

    def written(self) -> list[dict[str, Any]]:
        return [json.loads(seen.body) for seen in self.server.seen if seen.method == "PATCH"]

    def _note(self, outcome: str) -> None:
        self.outcomes[outcome] += 1
        self._changed.set()


@pytest.fixture
async def teller(client: KubeClient, server: Server) -> AsyncIterator[Teller]:
    made = Teller(client, server)
    running = asyncio.create_task(made.recorder.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_it_is_said_of_the_pod_with_its_uid(teller: Teller) -> None:
    teller.tell("8 GiB on GPU 1")
    await teller.until("written", 1)
    (event,) = teller.written()
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "default",
        "name": "p",
        "uid": "u",
    }
    assert (event["type"], event["reason"], event["message"]) == ("Normal", "Tested", "8 GiB on GPU 1")
    assert (event["source"], event["reportingInstance"]) == ({"component": "test"}, "test-1")
    assert (event["count"], event["firstTimestamp"]) == (1, "2026-11-21T00:00:00Z")


async def test_what_is_told_again_is_counted_and_written_once_a_minute(teller: Teller) -> None:
    teller.tell("once")
    await teller.until("written", 1)
    for second in (1, 30, 59):
        teller.seconds = second
        teller.tell("again")
    teller.tell("of another pod", uid="v")
    teller.tell("for another reason", reason="Other")
    await teller.until("written", 3)
    assert teller.outcomes == {"written": 3, "repeated": 3}
    teller.seconds = 61
    teller.tell("at last")
    await teller.until("written", 4)
    last = teller.written()[-1]
    assert (last["message"], last["count"]) == ("at last", 5)
    assert (last["firstTimestamp"], last["lastTimestamp"]) == ("2026-11-21T00:00:00Z", "2026-11-21T00:01:01Z")
    assert last["metadata"]["name"] == teller.written()[0]["metadata"]["name"]


async def test_a_slow_api_server_holds_nobody_up_and_what_does_not_fit_is_dropped(teller: Teller) -> None:
    teller.server.hang = asyncio.Event()
    teller.tell("on its way")
    await teller.until_seen(1)
    for number in range(MAX_WAITING + 3):
        teller.tell("waits", uid=f"pod-{number}")
    teller.tell("waits too, and is the newest", uid="pod-0")
    assert teller.outcomes == {"dropped": 3, "repeated": 1}
    teller.server.hang.set()
    await teller.until("written", 2)
    second = teller.written()[1]
    assert (second["message"], second["count"]) == ("waits too, and is the newest", 2)


async def test_what_is_told_again_while_it_is_being_written_is_one_event(teller: Teller) -> None:
    teller.server.hang = asyncio.Event()
    teller.tell("on its way")
    await teller.until_seen(1)
    teller.seconds = 5
    teller.tell("again")
    teller.server.hang.set()
    await teller.until("written", 1)
    teller.tell("of another pod", uid="v")
    await teller.until("written", 2)
    assert teller.outcomes == {"written": 2, "repeated": 1}
    teller.seconds = 66
    teller.tell("at last")
    await teller.until("written", 3)
    last = teller.written()[-1]
    assert (last["message"], last["count"], last["firstTimestamp"]) == ("at last", 3, "2026-11-21T00:00:00Z")


async def test_what_could_not_be_written_counts_for_nothing(teller: Teller) -> None:
    teller.tell("once")
    await teller.until("written", 1)
    teller.seconds = 61
    for uid, outcome, count in (("u", "failed", 1), ("u", "written", 2), ("v", "failed", 2), ("v", "written", 3)):
        if outcome == "failed":
            teller.server.refuse("PATCH", 500)
        teller.tell("again", uid=uid)
        await teller.until(outcome, count)
    assert teller.lost == ["u", "v"]
    assert [(event["involvedObject"]["uid"], event["count"]) for event in teller.written()] == [
        *(("u", 1), ("u", 2), ("u", 2)),
        *(("v", 1), ("v", 1)),
    ]


async def test_what_cannot_be_written_is_lost_and_the_next_is_written(
    teller: Teller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    teller.server.refuse("PATCH", 429, times=3)
    for number in range(4):
        teller.tell("said", uid=f"pod-{number}")
    await teller.until("written", 1)
    assert teller.outcomes == {"failed": 3, "written": 1}
    assert [event["involvedObject"]["uid"] for event in teller.written()] == [f"pod-{number}" for number in range(4)]
    assert said(caplog) == ["trouble", "recovered"]


async def test_a_namespace_that_is_ending_holds_no_other_up(teller: Teller, caplog: pytest.LogCaptureFixture) -> None:
    """Its refusals come quickly, and say nothing of how the API server is."""
    caplog.set_level(logging.INFO)
    teller.server.refuse("PATCH", 403, "Forbidden", times=60)
    for number in range(60):
        teller.tell("refused", uid=f"pod-{number}")
    teller.tell("of another namespace", uid="other")
    await teller.until("written", 1)
    assert teller.outcomes == {"failed": 60, "written": 1}
    assert said(caplog) == ["trouble"]


async def test_refusals_and_what_is_written_between_them_are_not_spoken_of_each_time(
    teller: Teller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for number in range(3):
        teller.server.refuse("PATCH", 403, "Forbidden")
        teller.tell("refused", uid=f"refused-{number}")
        teller.tell("said", uid=f"pod-{number}")
        await teller.until("written", number + 1)
    assert said(caplog) == ["trouble"]


async def test_a_defect_is_told_and_the_next_is_written(teller: Teller, caplog: pytest.LogCaptureFixture) -> None:
    no_text: Any = 7
    teller.tell(no_text, uid="odd")
    teller.tell("said", uid="other")
    await teller.until("written", 1)
    assert teller.outcomes == {"failed": 1, "written": 1}
    assert teller.lost == ["odd"]
    assert said(caplog) == ["defect"]
    teller.tell("with a sentence", uid="odd")
    await teller.until("written", 2)
    assert teller.written()[-1]["count"] == 1


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == recording.__name__]
