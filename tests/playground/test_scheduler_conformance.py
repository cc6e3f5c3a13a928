"""The same cluster to the playground's scheduler and to a real kube-scheduler: the same questions to the extender."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from playground.api.apiserver import ApiServer
from playground.scheduling.scheduler import Scheduler
from tests.playground.builders import MEMORY, make_node, make_pod
from tests.realcluster import RealControlPlane, missing_binaries

PODS = "/api/v1/namespaces/default/pods"


class Cluster:
    """An API server, a scheduler to be started, and the extender that it shall ask.

    The extender refuses nodes called ``refused-*``, prefers the one called ``best``, and binds.
    """

    def __init__(self, api: aiohttp.ClientSession, listener: socket.socket) -> None:
        self.extender_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.calls: list[tuple[str, str]] = []
        self._api = api

    async def answer(self, request: web.Request) -> web.Response:
        verb, body = request.path.strip("/"), await request.json()
        if verb == "bind":
            self.calls.append((verb, body["PodName"]))
            return web.json_response({"Error": await self._bind(body)})
        self.calls.append((verb, body["Pod"]["metadata"]["name"]))
        names = body["NodeNames"]
        if verb == "prioritize":
            return web.json_response([{"Host": name, "Score": 10 * (name == "best")} for name in names])
        failed = {name: "GPU memory is fragmented" for name in names if name.startswith("refused")}
        passed = [name for name in names if name not in failed]
        return web.json_response({"NodeNames": passed, "FailedNodes": failed, "Error": ""})

    async def create(self, path: str, body: dict[str, Any]) -> None:
        async with self._api.post(path, json=body) as response:
            assert response.status == 201, await response.text()

    async def add_node(self, name: str, *, units: int) -> None:
        node = make_node(name, units=units)
        node["status"]["capacity"] = {MEMORY: str(units), "cpu": "8", "memory": "16Gi", "pods": "110"}
        node["status"]["allocatable"] = node["status"]["capacity"]
        await self.create("/api/v1/nodes", node)

    async def outcome(self, name: str, *, bound: bool) -> str:
        """Wait until a pod is bound, or told that it cannot be; return its node or the message."""
        async with self._api.get(f"{PODS}?watch=true&fieldSelector=metadata.name%3D{name}") as response:
            async for line in response.content:
                pod = json.loads(line)["object"]
                node = pod["spec"].get("nodeName")
                conditions = pod["status"].get("conditions", [])
                said = [c["message"] for c in conditions if c.get("reason") == "Unschedulable"]
                found = node if bound else next(iter(said), None)
                if found:
                    if response.connection is not None and response.connection.transport is not None:
                        response.connection.transport.abort()
                    return str(found)
        raise AssertionError("the watch ended")

    def calls_about(self, pod: str) -> list[str]:
        """The verbs for a pod in order; how often one is repeated depends on the scheduler's timing."""
        return [verb for verb, _ in itertools.groupby(verb for verb, name in self.calls if name == pod)]

    async def _bind(self, body: dict[str, Any]) -> str:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": body["PodName"], "uid": body["PodUID"]},
            "target": {"kind": "Node", "name": body["Node"]},
        }
        async with self._api.post(f"{PODS}/{body['PodName']}/binding", json=binding) as response:
            answer = await response.json()
            return "" if response.status == 201 else str(answer["message"])


async def serve(api: aiohttp.ClientSession) -> tuple[Cluster, web.AppRunner]:
    listener = socket.create_server(("127.0.0.1", 0))
    cluster = Cluster(api, listener)
    app = web.Application()
    app.router.add_post("/{verb}", cluster.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    return cluster, runner


@pytest.fixture
async def playground() -> AsyncIterator[Cluster]:
    server = ApiServer()
    await server.start()
    async with aiohttp.ClientSession(server.url) as api:
        cluster, runner = await serve(api)
        scheduler = Scheduler(server.cluster, extender_url=cluster.extender_url, initial_backoff=0.01)
        await scheduler.start()
        yield cluster
        await scheduler.stop()
        await runner.cleanup()
    await server.stop()


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[Cluster]:
    absent = missing_binaries("etcd", "kube-apiserver", "kube-scheduler")
    if absent:
        pytest.skip(absent)
    # There is no kubelet to declare the nodes ready.
    untainted = "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition"
    plane = RealControlPlane(tmp_path, apiserver_flags=[untainted])
    plane.start()
    try:
        connector = aiohttp.TCPConnector(ssl=plane.client_ssl())
        headers = {"Authorization": f"Bearer {plane.token}"}
        async with aiohttp.ClientSession(plane.url, headers=headers, connector=connector) as api:
            cluster, runner = await serve(api)
            config = {
                "apiVersion": "kubescheduler.config.k8s.io/v1",
                "kind": "KubeSchedulerConfiguration",
                "extenders": [
                    {
                        "urlPrefix": cluster.extender_url,
                        "filterVerb": "filter",
                        "prioritizeVerb": "prioritize",
                        "bindVerb": "bind",
                        "weight": 100,
                        "nodeCacheCapable": True,
                        "managedResources": [{"name": MEMORY}],
                    }
                ],
            }
            path = tmp_path / "config.yaml"
            path.write_text(yaml.safe_dump(config))
            await asyncio.to_thread(plane.start_scheduler, path)
            yield cluster
            await runner.cleanup()
            await connector.close(abort_ssl=True)
    finally:
        plane.stop()


async def test_what_the_playgrounds_scheduler_asks(playground: Cluster) -> None:
    await check(playground)


async def test_kube_scheduler_asks_the_same(real: Cluster) -> None:
    await check(real)


async def check(cluster: Cluster) -> None:
    async with asyncio.timeout(60):
        await cluster.add_node("refused-1", units=8)
        await cluster.add_node("refused-2", units=8)
        await cluster.add_node("small", units=1)
        await cluster.create(PODS, make_pod("waits", units=4))
        message = await cluster.outcome("waits", bound=False)
        assert message.startswith(
            "0/3 nodes are available: 1 Insufficient fracgpu.io/memory, 2 GPU memory is fragmented."
        )
        await cluster.add_node("other", units=8)
        assert await cluster.outcome("waits", bound=True) == "other"
        assert cluster.calls_about("waits") == ["filter", "bind"], "one node is left: nothing to prioritize"

        await cluster.add_node("best", units=12)
        await cluster.create(PODS, make_pod("large", units=8))
        assert await cluster.outcome("large", bound=True) == "best"  # so the scheduler has seen the node
        await cluster.create(PODS, make_pod("chooses", units=4))
        assert await cluster.outcome("chooses", bound=True) == "best"
        assert cluster.calls_about("chooses") == ["filter", "prioritize", "bind"]

        await cluster.create(PODS, make_pod("giant", units=100))
        message = await cluster.outcome("giant", bound=False)
        assert message.startswith("0/5 nodes are available: 5 Insufficient fracgpu.io/memory.")
        assert cluster.calls_about("giant") == [], "no node passes by its sum: the extender is not asked"

        await cluster.create(PODS, make_pod("plain"))
        assert await cluster.outcome("plain", bound=True)
        assert cluster.calls_about("plain") == [], "it wants nothing that the extender manages"
