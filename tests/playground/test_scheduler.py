"""The scheduler loop with a real HTTP extender: who is asked what, in which order, and what happens when it fails."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from playground.api.apiserver import ApiServer
from playground.api.local import LocalCluster
from playground.cluster import ApiStatusError
from playground.scheduling.scheduler import Scheduler
from tests.playground.builders import MEMORY, make_node, make_pod

RECORDED = Path(__file__).parents[1] / "wire"


class Extender:
    """Passes every node and binds, unless a test says otherwise.

    Attributes:
        calls: (verb, pod name) in the order of arrival.
        bodies: verb -> the last body.
        refused: pod -> {node: reason} for filter.
        broken: what the next filters answer instead: a status, or a text for Error.
        bind_gate: bindings wait for it.
    """

    def __init__(self, cluster: LocalCluster) -> None:
        self.url = ""
        self.calls: list[tuple[str, str]] = []
        self.bodies: dict[str, Any] = {}
        self.headers: dict[str, Any] = {}
        self.refused: dict[str, dict[str, str]] = {}
        self.scores: dict[str, int] = {}
        self.broken: list[int | str] = []
        self.bind_errors: list[str] = []
        self.bind_gate = asyncio.Event()
        self.bind_gate.set()
        self._cluster = cluster
        self._called = asyncio.Condition()

    async def wait_calls(self, verb: str, *, count: int) -> None:
        async with self._called:
            await self._called.wait_for(lambda: [call for call, _ in self.calls].count(verb) >= count)

    async def filter(self, request: web.Request) -> web.Response:
        body = await self._record("filter", request)
        if self.broken:
            answer = self.broken.pop(0)
            if isinstance(answer, int):
                return web.Response(status=answer)
            return web.json_response({"Error": answer})
        failed = self.refused.get(body["Pod"]["metadata"]["name"], {})
        passed = [node for node in body["NodeNames"] if node not in failed]
        return web.json_response({"NodeNames": passed, "FailedNodes": failed, "Error": ""})

    async def prioritize(self, request: web.Request) -> web.Response:
        body = await self._record("prioritize", request)
        scores = [{"Host": name, "Score": self.scores.get(name, 0)} for name in body["NodeNames"]]
        return web.json_response(scores)

    async def bind(self, request: web.Request) -> web.Response:
        body = await self._record("bind", request)
        await self.bind_gate.wait()
        if self.bind_errors:
            return web.json_response({"Error": self.bind_errors.pop(0)})
        name, namespace = body["PodName"], body["PodNamespace"]
        await self._cluster.bind(name, namespace=namespace, node=body["Node"], uid=body["PodUID"])
        return web.json_response({"Error": ""})

    async def _record(self, verb: str, request: web.Request) -> Any:
        body = await request.json()
        self.calls.append((verb, body["PodName"] if verb == "bind" else body["Pod"]["metadata"]["name"]))
        self.bodies[verb], self.headers[verb] = body, dict(request.headers)
        async with self._called:
            self._called.notify_all()
        return body


@pytest.fixture
def cluster() -> LocalCluster:
    return ApiServer().cluster


@pytest.fixture
async def extender(cluster: LocalCluster) -> AsyncIterator[Extender]:
    extender = Extender(cluster)
    app = web.Application()
    for verb in ("filter", "prioritize", "bind"):
        app.router.add_post(f"/{verb}", getattr(extender, verb))
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    extender.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    yield extender
    extender.bind_gate.set()
    await runner.cleanup()


@pytest.fixture
async def scheduler(cluster: LocalCluster, extender: Extender) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(cluster, extender_url=extender.url, initial_backoff=0.01, max_backoff=0.04, seed=1)
    yield scheduler
    await scheduler.stop()


async def settle(scheduler: Scheduler) -> None:
    async with asyncio.timeout(10):
        await scheduler.settled()


async def add_nodes(cluster: LocalCluster, *names: str, units: int = 8) -> None:
    for name in names:
        await cluster.create("nodes", make_node(name, units=units))


async def node_of(cluster: LocalCluster, name: str) -> str:
    pod = await cluster.get("pods", name)
    return str(pod["spec"].get("nodeName", ""))


async def why(cluster: LocalCluster, name: str) -> tuple[str, str]:
    """The reason and message for which a pod waits."""
    pod = await cluster.get("pods", name)
    [condition] = [item for item in pod["status"]["conditions"] if item["type"] == "PodScheduled"]
    assert condition["status"] == "False"
    return condition["reason"], condition["message"]


async def test_the_best_node_wins(cluster: LocalCluster, extender: Extender, scheduler: Scheduler) -> None:
    await add_nodes(cluster, "n1", "n2", "n3")
    extender.scores = {"n1": 3, "n2": 10, "n3": 3}
    await cluster.create("pods", make_pod("a", units=4))
    await scheduler.start()
    await settle(scheduler)
    assert await node_of(cluster, "a") == "n2"
    assert extender.calls == [("filter", "a"), ("prioritize", "a"), ("bind", "a")]
    assert list(scheduler.log) == extender.calls


async def test_bodies_have_the_recorded_shape(cluster: LocalCluster, extender: Extender, scheduler: Scheduler) -> None:
    await add_nodes(cluster, "n1", "n2")
    await cluster.create("pods", make_pod("a", units=4))
    await scheduler.start()
    await settle(scheduler)
    for verb in ("filter", "prioritize", "bind"):
        want = json.loads((RECORDED / f"extender-{verb}.json").read_text())
        assert extender.bodies[verb].keys() == want["request"].keys()
        assert extender.headers[verb]["Content-Type"] == want["request_headers"]["Content-Type"]
        assert "Content-Length" in extender.headers[verb]
    args = json.loads((RECORDED / "extender-filter.json").read_text())["request"]
    sent = extender.bodies["filter"]
    assert (sent["Nodes"], sent["NodeNames"]) == (None, ["n1", "n2"])
    assert sent["Pod"].keys() == args["Pod"].keys()
    assert sent["Pod"]["spec"].keys() == args["Pod"]["spec"].keys() - {"initContainers"}
    assert sent["Pod"]["metadata"].keys() == args["Pod"]["metadata"].keys() - {"generateName", "annotations"}


async def test_the_next_filter_comes_before_the_last_bind(
    cluster: LocalCluster, extender: Extender, scheduler: Scheduler
) -> None:
    await add_nodes(cluster, "n1", "n2")
    for name in ("a", "b", "c"):
        await cluster.create("pods", make_pod(name, units=4))
    extender.bind_gate.clear()
    await scheduler.start()
    async with asyncio.timeout(10):
        await extender.wait_calls("bind", count=3)
    order = list(scheduler.log)
    assert order.index(("filter", "b")) < order.index(("bind", "a"))
    assert order.index(("filter", "c")) < order.index(("bind", "b"))
    extender.bind_gate.set()
    await settle(scheduler)
    assert "" not in [await node_of(cluster, name) for name in "abc"]


async def test_a_single_node_is_not_prioritized(
    cluster: LocalCluster, extender: Extender, scheduler: Scheduler
) -> None:
    await add_nodes(cluster, "n1", "n2")
    extender.refused = {"a": {"n2": "full"}}
    await cluster.create("pods", make_pod("a", units=4))
    await scheduler.start()
    await settle(scheduler)
    assert extender.calls == [("filter", "a"), ("bind", "a")]


async def test_sums_are_checked_first_and_assumed_pods_count(
    cluster: LocalCluster, extender: Extender, scheduler: Scheduler
) -> None:
    await add_nodes(cluster, "n1", units=8)
    for name in ("a", "b", "c"):
        await cluster.create("pods", make_pod(name, units=4))
    extender.bind_gate.clear()
    await scheduler.start()
    async with asyncio.timeout(10):
        await extender.wait_calls("bind", count=2)
    extender.bind_gate.set()
    await settle(scheduler)
    assert ("filter", "c") not in extender.calls, "no node passes in-tree, so the extender is not asked"
    message = "0/1 nodes are available: 1 Insufficient fracgpu.io/memory."
    assert await why(cluster, "c") == ("Unschedulable", message)


async def test_reasons_of_both_sides_are_counted_together(
    cluster: LocalCluster, extender: Extender, scheduler: Scheduler
) -> None:
    await add_nodes(cluster, "n1", "n2", "n3")
    await add_nodes(cluster, "small", units=1)
    extender.refused = {"a": {"n1": "fragmented", "n2": "fragmented", "n3": "in another unit"}}
    await cluster.create("pods", make_pod("a", units=4))
    await scheduler.start()
    await settle(scheduler)
    assert await why(cluster, "a") == (
        "Unschedulable",
        "0/4 nodes are available: 1 Insufficient fracgpu.io/memory, 1 in another unit, 2 fragmented.",
    )


async def test_without_nodes_a_pod_waits_for_one(
    cluster: LocalCluster, extender: Extender, scheduler: Scheduler
) -> None:
    await cluster.create("pods", make_pod("a", units=4))
    await scheduler.start()
    await settle(scheduler)
    assert await why(cluster, "a") == ("Unschedulable", "no nodes available to schedule pods")
    await add_nodes(cluster, "n1")
    await settle(scheduler)
    assert await node_of(cluster, "a") == "n1"


async def test_an_unschedulable_pod_is_woken_by_what_may_help_it_and_nothing_else(
    cluster: LocalCluster, extender: Extender, scheduler: Scheduler
) -> None:
    await add_nodes(cluster, "n1", units=4)
    await cluster.create("pods", make_pod("first", units=4))
    await scheduler.start()
    await settle(scheduler)
    await cluster.create("pods", make_pod("second", units=4))
    await settle(scheduler)
    extender.refused = {"second": {"n1": "full"}}
    tries = extender.calls.count(("filter", "second"))
    heartbeat = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    await cluster.patch("nodes", "n1", heartbeat, subresource="status")
    await cluster.patch("pods", "second", {"metadata": {"labels": {"a": "b"}}})
    await settle(scheduler)
    assert extender.calls.count(("filter", "second")) == tries
    more = {"status": {"allocatable": {MEMORY: "8"}}}
    await cluster.patch("nodes", "n1", more, subresource="status")
    await settle(scheduler)
    assert extender.calls.count(("filter", "second")) == tries + 1
    extender.refused = {}
    await cluster.delete("pods", "first", grace_seconds=0)
    await settle(scheduler)
    assert await node_of(cluster, "second") == "n1"


async def test_a_finished_pod_gives_its_room_back(
    cluster: LocalCluster, extender: Extender, scheduler: Scheduler
) -> None:
    await add_nodes(cluster, "n1", units=4)
    for name in ("first", "second"):
        await cluster.create("pods", make_pod(name, units=4))
    await scheduler.start()
    await settle(scheduler)
    await cluster.patch("pods", "first", {"status": {"phase": "Succeeded"}}, subresource="status")
    await settle(scheduler)
    assert await node_of(cluster, "second") == "n1"


@pytest.mark.parametrize(
    ("answer", "want"),
    [("the ledger is being rebuilt", "the ledger is being rebuilt"), (503, "code 503")],
)
async def test_a_filter_that_fails_is_tried_again_with_backoff(
    cluster: LocalCluster, extender: Extender, scheduler: Scheduler, answer: int | str, want: str
) -> None:
    await add_nodes(cluster, "n1")
    extender.broken = [answer, answer]
    created = await cluster.create("pods", make_pod("a", units=4))
    watch = cluster.watch("pods", resource_version=created["metadata"]["resourceVersion"])
    await scheduler.start()
    async with asyncio.timeout(10):
        event = await anext(watch)
    [condition] = event.object["status"]["conditions"]
    assert (condition["reason"], condition["status"]) == ("SchedulerError", "False")
    assert want in condition["message"]
    await settle(scheduler)
    assert await node_of(cluster, "a") == "n1"
    assert extender.calls == [("filter", "a")] * 3 + [("bind", "a")]


async def test_a_binding_that_fails_gives_up_the_assumption_and_is_tried_again(
    cluster: LocalCluster, extender: Extender, scheduler: Scheduler
) -> None:
    await add_nodes(cluster, "n1", units=4)
    extender.bind_errors = ["conflict"]
    await cluster.create("pods", make_pod("a", units=4))
    await scheduler.start()
    await settle(scheduler)
    assert await node_of(cluster, "a") == "n1"
    assert extender.calls == [("filter", "a"), ("bind", "a")] * 2


async def test_higher_priority_goes_first_and_other_schedulers_pods_are_left_alone(
    cluster: LocalCluster, extender: Extender, scheduler: Scheduler
) -> None:
    await add_nodes(cluster, "n1", units=100)
    await cluster.create("pods", make_pod("low", units=1))
    await cluster.create("pods", make_pod("high", units=1, priority=10))
    await cluster.create("pods", make_pod("foreign", units=1, schedulerName="other"))
    await scheduler.start()
    await settle(scheduler)
    filters = [name for verb, name in extender.calls if verb == "filter"]
    assert filters == ["high", "low"]


async def test_a_pod_without_gpu_is_bound_without_the_extender(
    cluster: LocalCluster, extender: Extender, scheduler: Scheduler
) -> None:
    await add_nodes(cluster, "n1", "n2")
    await cluster.create("pods", make_pod("plain"))
    await scheduler.start()
    await settle(scheduler)
    assert await node_of(cluster, "plain") in ("n1", "n2")
    assert extender.calls == []


async def test_a_cut_watch_and_a_lost_log_are_survived(extender: Extender) -> None:
    server = ApiServer()
    extender._cluster = server.cluster
    scheduler = Scheduler(server.cluster, extender_url=extender.url)
    await add_nodes(server.cluster, "n1")
    await scheduler.start()
    await settle(scheduler)
    server.cut_watches()
    await server.cluster.create("pods", make_pod("a", units=4))
    server.compact()
    await settle(scheduler)
    assert await node_of(server.cluster, "a") == "n1"
    await scheduler.stop()


async def test_a_scheduler_that_has_ended_says_why(
    cluster: LocalCluster, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise ApiStatusError(500, "InternalError", "the disk is full")

    with pytest.raises(RuntimeError, match="not running"):
        await scheduler.settled()
    monkeypatch.setattr(cluster, "list", refuse)
    await scheduler.start()
    with pytest.raises((ExceptionGroup, ApiStatusError)) as caught:
        await settle(scheduler)
    assert "the disk is full" in repr(caught.value)
