"""What a pod's way through the extender leaves behind for people: log lines, and events on the pod."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from fracgpu.names import PodUid
from fracgpu.process.logs import facts_of
from playground.api.apiserver import ApiServer
from playground.cluster import JsonObject
from tests.extender.builders import gpu_node, grant
from tests.extender.replica import Replica, announce, create_pod

Replicas = tuple[Replica, Replica]
ABOUT_PODS = {"extender.deciding", "extender.app", "extender.verbs"}


@pytest.fixture
async def nodes(api: ApiServer, replicas: Replicas) -> None:
    await announce(api, gpu_node("node-1", "GPU-a"))
    await announce(api, gpu_node("node-2", "GPU-b", "GPU-c", units=40))
    for replica in replicas:
        await replica.knows("node-1", "node-2")


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What was logged of pods, without what every record has."""
    found = []
    for record in caplog.records:
        if record.name in ABOUT_PODS:
            facts = facts_of(record)
            found.append({"event": record.message, "level": record.levelname, **facts})
    caplog.clear()
    return found


def args(pod: JsonObject, *names: str) -> JsonObject:
    return {"Pod": pod, "NodeNames": [*names]}


async def events(api: ApiServer, *, reason: str, count: int = 1) -> list[JsonObject]:
    """Wait until there are so many."""
    async with asyncio.timeout(20):
        while True:
            listed, version = await api.cluster.list("events")
            found = [event for event in listed if event["reason"] == reason]
            if len(found) >= count:
                return found
            async for _ in api.cluster.watch("events", resource_version=version):
                break


@pytest.mark.usefixtures("nodes")
async def test_each_decision_is_one_line(api: ApiServer, replicas: Replicas, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pod = await create_pod(api, "p", units=16)
    await replicas[0].post("filter", args(pod, "node-1", "node-2", "other"))
    await replicas[0].post("prioritize", args(pod, "node-1", "node-2"))
    assert await replicas[0].bind(pod, "node-2") == ""
    filtered, prioritized, bound = lines(caplog)
    about = {"pod": "team-a/p", "uid": pod["metadata"]["uid"], "level": "INFO"}
    for line in (filtered, prioritized, bound):
        assert 0 < line.pop("ms") < 60_000
    assert filtered == {"event": "filtered", "nodes_in": 3, "nodes_ok": 2, **about}
    assert prioritized == {"event": "prioritized", "nodes_in": 2, "node": "node-2", **about}
    assert bound == {"event": "bound", "node": "node-2", "gpus": {"GPU-b": 16}, **about}


@pytest.mark.usefixtures("nodes")
async def test_a_refusal_says_of_which_pod(
    api: ApiServer, replicas: Replicas, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pod = await create_pod(api, "p", units=41)
    assert "node-2" in await replicas[0].bind(pod, "node-2")
    (line,) = lines(caplog)
    assert 0 < line.pop("ms") < 60_000
    assert "largest free piece" in line.pop("error")
    assert line == {
        "event": "refused",
        "level": "INFO",
        "verb": "bind",
        "reason": "NoRoom",
        "pod": "team-a/p",
        "uid": pod["metadata"]["uid"],
        "node": "node-2",
    }


@pytest.mark.usefixtures("nodes")
async def test_nodes_are_spoken_of_at_debug_only(
    api: ApiServer, replicas: Replicas, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    pod = await create_pod(api, "p", units=41)
    await replicas[0].post("filter", args(pod, "node-1", "node-2", "other"))
    told = [line for line in lines(caplog) if line["level"] == "DEBUG"]
    assert {line["node"] for line in told} == {"node-2", "other"}
    assert all(line["reason"] and line["uid"] == pod["metadata"]["uid"] for line in told)


@pytest.mark.usefixtures("nodes")
async def test_a_bound_pod_says_which_gpu_it_was_assigned(api: ApiServer, replicas: Replicas) -> None:
    pod = await create_pod(api, "p", units=16)
    for replica in (*replicas, *replicas):
        assert await replica.bind(pod, "node-2") == ""
    other = await create_pod(api, "q", units=40)
    assert await replicas[1].bind(other, "node-2") == ""
    first, second = await events(api, reason="GpuAssigned", count=2)
    assert (first["type"], first["message"]) == ("Normal", "8 GiB on GPU 0 (Test GPU) of node-2")
    assert first["involvedObject"]["uid"] == pod["metadata"]["uid"]
    assert (first["count"], first["source"]) == (1, {"component": "fracgpu-extender"})
    assert second["message"] == "20 GiB on GPU 1 (Test GPU) of node-2"


@pytest.mark.usefixtures("nodes")
async def test_a_pod_with_other_gpus_than_it_was_assigned_says_so(api: ApiServer, replicas: Replicas) -> None:
    pod = await create_pod(api, "p", units=16)
    assert await replicas[0].bind(pod, "node-2") == ""
    bypass = await create_pod(api, "bypass", units=30)
    given = (
        grant(pod["metadata"]["uid"], "GPU-c", units=16, name="p"),
        grant(bypass["metadata"]["uid"], "GPU-c", units=20, name="bypass"),
    )
    await announce(api, gpu_node("node-2", "GPU-b", "GPU-c", units=40, grants=given))
    corrected = {
        event["involvedObject"]["uid"]: event for event in await events(api, reason="GpuShareCorrected", count=2)
    }
    off_plan, unknown = corrected[PodUid(pod["metadata"]["uid"])], corrected[PodUid(bypass["metadata"]["uid"])]
    assert off_plan["type"] == "Warning"
    assert "and not 8 GiB on GPU 0 (Test GPU) of node-2" in off_plan["message"]
    assert "10 GiB on GPU 1 (Test GPU) of node-2, which were not assigned to it" in unknown["message"]
