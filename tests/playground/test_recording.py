"""Events: told once, counted up when they are told again, and told anew when they had to make room."""

from __future__ import annotations

from typing import Any

import pytest

from playground.api.apiserver import ApiServer
from playground.recording import EventRecorder
from tests.playground.builders import make_pod


@pytest.fixture
async def pod(apiserver: ApiServer) -> dict[str, Any]:
    return await apiserver.cluster.create("pods", make_pod("a"))


async def told(apiserver: ApiServer) -> list[tuple[str, int]]:
    found, _ = await apiserver.cluster.list("events")
    return [(event["message"], event["count"]) for event in found]


async def test_saying_the_same_again_counts_up(apiserver: ApiServer, pod: dict[str, Any]) -> None:
    recorder = EventRecorder(apiserver.cluster, component="kubelet", host="n1")
    for message in ("one", "two", "one"):
        await recorder.tell(pod, reason="Told", message=message, field_path="spec.containers{main}")
    assert await told(apiserver) == [("one", 2), ("two", 1)]
    (event, _), _ = await apiserver.cluster.list("events")
    assert event["involvedObject"] == {
        "kind": "Pod",
        "apiVersion": "v1",
        "namespace": "default",
        "name": "a",
        "uid": pod["metadata"]["uid"],
        "resourceVersion": pod["metadata"]["resourceVersion"],
        "fieldPath": "spec.containers{main}",
    }
    assert event["source"] == {"component": "kubelet", "host": "n1"}


async def test_one_that_made_room_is_told_anew(apiserver: ApiServer, pod: dict[str, Any]) -> None:
    recorder = EventRecorder(apiserver.cluster, component="kubelet")
    await recorder.tell(pod, reason="Told", message="one")
    (event,), _ = await apiserver.cluster.list("events")
    await apiserver.cluster.delete("events", event["metadata"]["name"], namespace="default")
    await recorder.tell(pod, reason="Told", message="one")
    assert await told(apiserver) == [("one", 1)]


async def test_one_that_cannot_be_written_stops_nobody() -> None:
    apiserver = ApiServer(checks_namespaces=True)
    recorder = EventRecorder(apiserver.cluster, component="kubelet")
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "gone", "uid": "u"}}
    await recorder.tell(pod, reason="Told", message="one")
    assert await told(apiserver) == []
