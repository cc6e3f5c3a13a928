"""What a user is told of a pod that has ended and keeps its share."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fracgpu.gpunodes import Grant
from fracgpu.names import PodUid
from fracgpu.plans import Share
from plugin.granting.lingering import KEPT, KEPT_SECONDS, LingeringWatch
from tests.plugin.builders import A, make_spec
from tests.plugin.node import NODE, PATIENCE_SECONDS, SimulatedNode


class Ended:
    """Grants of ended pods, a clock, and what was told."""

    def __init__(self) -> None:
        self.grants: list[Grant] = []
        self.seconds = 0.0
        self.told: list[dict[str, Any]] = []
        self.watch = LingeringWatch(
            node=NODE,
            ended=lambda: self.grants,
            spec=make_spec,
            tell=lambda **facts: self.told.append(facts),
            clock=lambda: self.seconds,
        )

    def look(self, *, after: float) -> list[str]:
        """The pods that were told of at this look."""
        self.seconds += after
        before = len(self.told)
        self.watch.look()
        return [str(facts["uid"]) for facts in self.told[before:]]


def grant(uid: str) -> Grant:
    return Grant(PodUid(uid), "team-a", f"name-of-{uid}", {"main": (Share(A, 16),)})


def test_a_pod_that_keeps_its_share_is_told_of_once() -> None:
    ended = Ended()
    ended.grants = [grant("u")]
    assert ended.look(after=0) == []
    assert ended.look(after=KEPT_SECONDS - 1) == []
    assert ended.look(after=1) == ["u"]
    assert ended.look(after=1000) == []
    assert ended.told == [
        {
            "namespace": "team-a",
            "pod": "name-of-u",
            "uid": "u",
            "reason": "GpuMemoryKept",
            "message": (
                "The pod has ended, but something of it is left on its node, most often a process: until that is gone, "
                "8 GiB on GPU 0 (NVIDIA A100) of node-1 stays taken."
            ),
        }
    ]


def test_pods_that_let_go_in_time_are_not_told_of() -> None:
    ended = Ended()
    ended.grants = [grant("u")]
    ended.look(after=0)
    ended.grants = [grant("v")]
    assert ended.look(after=KEPT_SECONDS) == []
    ended.grants = [grant("u"), grant("v")]
    assert ended.look(after=KEPT_SECONDS) == ["v"], "the other has begun anew"


async def test_a_defect_is_told_and_it_looks_again(caplog: pytest.LogCaptureFixture) -> None:
    ended = Ended()
    looks = 0
    again = asyncio.Event()

    def grants() -> list[Grant]:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise KeyError("u")
        again.set()
        return []

    watch = LingeringWatch(
        node=NODE, ended=grants, spec=make_spec, tell=lambda **_: None, clock=lambda: ended.seconds, interval_seconds=0
    )
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.wait((running, asyncio.create_task(again.wait())), return_when=asyncio.FIRST_COMPLETED)
    assert not running.done(), running.exception()
    running.cancel()
    assert [record.message for record in caplog.records] == ["defect"]


async def test_a_force_deleted_pod_whose_process_lives_says_so(node: SimulatedNode) -> None:
    seconds = 0.0
    node.keep_processes_alive()
    async with node.plugin(clock=lambda: seconds) as plugin:
        uid = await node.create("old", {"main": [Share(A, 16)]})
        await node.until_phase("old", "Running")
        await node.cluster.delete("pods", "old", namespace="team-a", grace_seconds=0)
        telling = asyncio.create_task(node.until_told(KEPT))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not telling.done():  # when the books say that it has ended is not to be seen from outside
                plugin.lingering.look()
                seconds += KEPT_SECONDS
                await asyncio.sleep(0)
        event = await telling
        assert (event["type"], event["involvedObject"]["uid"]) == ("Warning", uid)
        assert event["source"]["host"] == NODE
        assert "8 GiB on GPU 0" in event["message"]
        node.let_processes_end()
        await node.until_granted()
