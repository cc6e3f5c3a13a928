"""SharingPolicies get their status from what GPUNodes say, on the playground's API server; two replicas agree."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from extender.policyreporter import PolicyReporter
from fracgpu.gpunodes import GpuNode, GpuNodeStatus, SharingStatus
from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.names import NodeName
from fracgpu.pods import ObjectMeta
from fracgpu.sharing import PolicyProblem
from playground.api.apiserver import ApiServer
from playground.api.resources import RESOURCES
from tests.extender.builders import gpu_node
from tests.extender.replica import JsonObject, Replica, announce


@pytest.fixture
async def kube(api: ApiServer, tmp_path: Path) -> AsyncIterator[KubeClient]:
    (tmp_path / "config").write_text(api.kubeconfig())
    client = await KubeClient.connect(kubeconfig=tmp_path / "config")
    yield client
    await client.close()


async def create_policy(api: ApiServer, name: str) -> None:
    await api.cluster.create(
        "sharingpolicies",
        {"apiVersion": "fracgpu.io/v1alpha1", "kind": "SharingPolicy", "metadata": {"name": name}, "spec": {}},
    )


async def status_of(api: ApiServer, name: str, wanted: Callable[[JsonObject], bool]) -> JsonObject:
    """A policy's status, once it is as wanted."""
    async with asyncio.timeout(20):
        while True:
            found = await api.cluster.get("sharingpolicies", name)
            if wanted(status := found.get("status") or {}):
                return status
            await asyncio.sleep(0.01)


def saying(node: str, sharing: SharingStatus | None) -> GpuNode:
    return GpuNode(ObjectMeta(name=node), status=GpuNodeStatus("1", sharing=sharing))


@contextlib.asynccontextmanager
async def reporting(kube: KubeClient, nodes: dict[NodeName, GpuNode], **more: Any) -> AsyncIterator[PolicyReporter]:
    known = asyncio.Event()
    known.set()
    reporter = PolicyReporter(kube=kube, nodes=nodes, nodes_known=known, interval_seconds=0.01, **more)
    task = asyncio.create_task(reporter.run())
    yield reporter
    assert not task.done()
    task.cancel()


async def test_a_status_follows_the_nodes(api: ApiServer, kube: KubeClient) -> None:
    await create_policy(api, "a100")
    nodes: dict[NodeName, GpuNode] = {}
    async with reporting(kube, nodes) as reporter:
        status = await status_of(api, "a100", lambda found: bool(found))
        assert (status["nodeCount"], status["observedGeneration"]) == (0, 1)
        nodes[NodeName("node-1")] = saying("node-1", SharingStatus(("a100",)))
        reporter.wake()
        status = await status_of(api, "a100", lambda found: found["nodeCount"] == 1)
        assert status["nodes"] == ["node-1"]
        assert [(found["type"], found["status"]) for found in status["conditions"]] == [
            ("Accepted", "True"),
            ("InForce", "True"),
        ]
        problem = PolicyProblem("a100", 1, "Invalid", "no GPU is called B100")
        nodes[NodeName("node-1")] = saying("node-1", SharingStatus(("a100",), (problem,)))
        reporter.wake()
        status = await status_of(api, "a100", lambda found: found["conditions"][0]["status"] == "False")
        assert status["conditions"][0]["message"] == "no GPU is called B100 (on node-1)"


async def test_a_status_that_somebody_changed_is_put_right_and_otherwise_nothing_is_written(
    api: ApiServer, kube: KubeClient
) -> None:
    await create_policy(api, "a100")
    nodes = {NodeName("node-1"): saying("node-1", SharingStatus(("a100",)))}
    async with reporting(kube, nodes) as first, reporting(kube, nodes) as second:
        await status_of(api, "a100", lambda found: found.get("nodeCount") == 1)
        await api.cluster.patch("sharingpolicies", "a100", {"status": {"nodeCount": 7}}, subresource="status")
        await status_of(api, "a100", lambda found: found["nodeCount"] == 1)
        before = await api.cluster.get("sharingpolicies", "a100")
        first.wake()
        second.wake()
        # Another policy is told of after all that was to be said of the first.
        await create_policy(api, "b100")
        await status_of(api, "b100", lambda found: bool(found))
        assert (await api.cluster.get("sharingpolicies", "a100"))["metadata"] == before["metadata"]


async def test_without_the_custom_resource_it_waits_in_silence(
    api: ApiServer, kube: KubeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    installed = RESOURCES["sharingpolicies"]
    monkeypatch.delitem(RESOURCES, "sharingpolicies")
    nodes = {NodeName("node-1"): saying("node-1", SharingStatus(("a100",)))}
    answers: asyncio.Queue[KubeError] = asyncio.Queue()
    ask = kube.list

    async def listened(*args: Any, **kwargs: Any) -> Any:
        try:
            return await ask(*args, **kwargs)
        except KubeError as exc:
            answers.put_nowait(exc)
            raise

    monkeypatch.setattr(kube, "list", listened)
    async with reporting(kube, nodes, absent_seconds=0.01):
        async with asyncio.timeout(10):
            assert [(await answers.get()).status for _ in range(3)] == [404, 404, 404]
        assert not caplog.records
        monkeypatch.setitem(RESOURCES, "sharingpolicies", installed)
        await create_policy(api, "a100")
        assert (await status_of(api, "a100", lambda found: bool(found)))["nodeCount"] == 1


async def test_a_replica_tells_what_the_gpunodes_say(api: ApiServer, replicas: tuple[Replica, Replica]) -> None:
    for name in ("node-1", "node-2"):
        node = gpu_node(name, f"GPU-{name}")
        sharing = SharingStatus(("a100",))
        await announce(api, msgspec.structs.replace(node, status=GpuNodeStatus("1", sharing=sharing)))
    async with asyncio.timeout(10):
        for replica in replicas:
            while [node.status.sharing for node in replica.index.nodes.values()] != [SharingStatus(("a100",))] * 2:
                await replica.get("/livez")
    await create_policy(api, "a100")
    status = await status_of(api, "a100", lambda found: found.get("nodeCount") == 2)
    assert status["nodes"] == ["node-1", "node-2"]
    await api.cluster.delete("gpunodes", "node-1")
    status = await status_of(api, "a100", lambda found: found["nodeCount"] == 1)
    assert status["nodes"] == ["node-2"]


@pytest.fixture
def without_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster in which the custom resource is not installed."""
    monkeypatch.delitem(RESOURCES, "sharingpolicies")


async def test_without_the_custom_resource_a_replica_is_ready(
    without_policies: None, replicas: tuple[Replica, Replica]
) -> None:
    assert (await replicas[0].get("/readyz"))[0] == 200
