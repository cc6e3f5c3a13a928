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
        self.recorder.tell(namespace="default", pod="p", uid=PodUid(uid), reason=reason, message=message)

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
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not teller.server.seen:  # noqa: ASYNC110 (the server has no event for it)
            await asyncio.sleep(0)
    for number in range(MAX_WAITING + 3):
        teller.tell("waits", uid=f"pod-{number}")
    teller.tell("waits too, and is the newest", uid="pod-0")
    assert teller.outcomes == {"dropped": 3, "repeated": 1}
    teller.server.hang.set()
    await teller.until("written", 2)
    second = teller.written()[1]
    assert (second["message"], second["count"]) == ("waits too, and is the newest", 2)


async def test_what_cannot_be_written_is_lost_and_the_next_is_written(
    teller: Teller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    teller.server.refuse("PATCH", 403, "Forbidden", times=3)
    for number in range(4):
        teller.tell("said", uid=f"pod-{number}")
    await teller.until("written", 1)
    assert teller.outcomes == {"failed": 3, "written": 1}
    assert [event["involvedObject"]["uid"] for event in teller.written()] == [f"pod-{number}" for number in range(4)]
    said = [record.message for record in caplog.records if record.name == recording.__name__]
    assert said == ["trouble", "recovered"]
