"""What a user is told of a pod that has ended and keeps its share."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fracgpu.gpunodes import Grant
from fracgpu.names import NodeName, PodUid
from fracgpu.plans import Share
from plugin.granting import lingering
from plugin.granting.lingering import KEPT, KEPT_SECONDS, LingeringWatch
from tests.plugin.builders import A, make_spec
from tests.plugin.node import SimulatedNode


class Ended:
    """Grants of ended pods, a clock, and what was told."""

    def __init__(self) -> None:
        self.grants: list[Grant] = []
        self.seconds = 0.0
        self.told: list[dict[str, Any]] = []
        self.watch = LingeringWatch(
            node=NodeName("node-1"),
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


async def test_a_force_deleted_pod_whose_process_lives_says_so(
    node: SimulatedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lingering, "KEPT_SECONDS", 0.0)
    monkeypatch.setattr(lingering, "_LOOK_SECONDS", 0.05)
    node.keep_processes_alive()
    async with node.plugin():
        uid = await node.create("old", {"main": [Share(A, 16)]})
        await node.until_phase("old", "Running")
        await node.cluster.delete("pods", "old", namespace="team-a", grace_seconds=0)
        async with asyncio.timeout(20):
            event: dict[str, Any] = {}
            while not event:
                listed, version = await node.cluster.list("events")
                event = next((one for one in listed if one["reason"] == KEPT), {})
                if not event:
                    async for _ in node.cluster.watch("events", resource_version=version):
                        break
        assert (event["type"], event["involvedObject"]["uid"]) == ("Warning", uid)
        assert "8 GiB on GPU 0" in event["message"]
        node.let_processes_end()
        await node.until_granted()
