from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fracgpu.gpunodes import GpuNodeStatus, Grant, UsedMemory
from fracgpu.kube.client import KubeClient
from fracgpu.names import NodeName, PodUid
from fracgpu.plans import Share
from fracgpu.quantities import Mib
from playground.api.apiserver import ApiServer
from plugin.cluster.publisher import Publisher
from tests.plugin.builders import A, make_gpu, make_spec

NODE = NodeName("node-1")
GRANT = Grant(PodUid("u"), "team-a", "x", {"main": (Share(A, 8),)})


def used(mib: int, *, at: str, observed: str = "1") -> GpuNodeStatus:
    usage = (UsedMemory(PodUid("u"), "main", A, Mib(mib)),)
    return GpuNodeStatus(observed, (GRANT,), usage=usage, usage_time=at)


class Published:
    """A publisher at an API server, and every state of the GPUNode that it caused."""

    def __init__(self, api: ApiServer, client: KubeClient, *, observed_seconds: float) -> None:
        self.api = api
        self.spec = make_spec()
        self.status = GpuNodeStatus("1")
        self.publisher = Publisher(
            client, NODE, spec=lambda: self.spec, status=lambda: self.status, observed_seconds=observed_seconds
        )
        self.states: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def watch(self) -> None:
        async for event in self.api.cluster.watch("gpunodes", resource_version="1"):
            if event.type != "DELETED":
                self.states.put_nowait(event.object)

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            return await self.states.get()


@contextlib.asynccontextmanager
async def publishing(
    folder: Path, *, has_node: bool = True, observed_seconds: float = 3600.0
) -> AsyncIterator[Published]:
    api = ApiServer()
    await api.start()
    if has_node:
        await api.cluster.create("nodes", {"metadata": {"name": NODE}})
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(api.kubeconfig())
    client = await KubeClient.connect(kubeconfig=kubeconfig)
    published = Published(api, client, observed_seconds=observed_seconds)
    tasks = [asyncio.create_task(published.watch()), asyncio.create_task(published.publisher.run())]
    yield published
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.close()
    await api.stop()


async def test_spec_then_status_owned_by_the_node(tmp_path: Path) -> None:
    async with publishing(tmp_path) as published:
        first, second = await published.next(), await published.next()
        assert [gpu["units"] for gpu in first["spec"]["gpus"]] == [80, 80]
        assert "numaNode" not in first["spec"]["gpus"][0]
        assert second["status"] == {"observedPods": "1", "grants": [], "endedPods": []}
        assert second["metadata"]["ownerReferences"][0]["kind"] == "Node"
        assert second["spec"] == first["spec"]


async def test_another_spec_is_published(tmp_path: Path) -> None:
    async with publishing(tmp_path) as published:
        await published.next()
        await published.next()
        published.spec = make_spec(make_gpu(A, replicas=2, healthy=False))
        published.publisher.touch()
        (gpu,) = (await published.next())["spec"]["gpus"]
        assert (gpu["replicas"], gpu["healthy"]) == (2, False)


async def test_progress_alone_waits_and_goes_out_with_the_next_change(tmp_path: Path) -> None:
    async with publishing(tmp_path) as published:
        await published.next()
        await published.next()
        for version in range(2, 9):
            published.status = GpuNodeStatus(str(version))
            published.publisher.progressed()
            await asyncio.sleep(0)
        published.status = GpuNodeStatus("9", (GRANT,))
        published.publisher.touch()
        state = await published.next()
        assert state["status"]["observedPods"] == "9"
        assert [grant["podUID"] for grant in state["status"]["grants"]] == ["u"]


async def test_progress_alone_goes_out_after_a_while(tmp_path: Path) -> None:
    async with publishing(tmp_path, observed_seconds=0.05) as published:
        await published.next()
        await published.next()
        published.status = GpuNodeStatus("2")
        published.publisher.progressed()
        assert (await published.next())["status"]["observedPods"] == "2"


async def test_what_is_used_goes_out_by_itself_only_when_it_moved_far(tmp_path: Path) -> None:
    async with publishing(tmp_path, observed_seconds=0.05) as published:
        await published.next()
        await published.next()
        published.status = used(50, at="2026-11-21T20:00:00Z")
        published.publisher.measured()
        published.publisher.progressed()  # also where somebody looks, that alone is not written
        published.status = used(1000, at="2026-11-21T20:00:10Z")
        published.publisher.measured()
        first = (await published.next())["status"]
        assert (first["usage"], first["usageTime"]) == (
            [{"podUID": "u", "container": "main", "gpu": A, "usedMiB": 1000}],
            "2026-11-21T20:00:10Z",
        )
        for mib in (1064, 936):
            published.status = used(mib, at="2026-11-21T20:00:20Z")
            published.publisher.measured()
            published.publisher.touch()
        published.status = used(1065, at="2026-11-21T20:00:30Z")
        published.publisher.measured()
        assert (await published.next())["status"]["usageTime"] == "2026-11-21T20:00:30Z"
        assert published.states.empty()


async def test_what_is_used_goes_along_with_other_news_and_is_no_edit(tmp_path: Path) -> None:
    async with publishing(tmp_path) as published:
        await published.next()
        await published.next()
        published.status = used(1, at="2026-11-21T20:00:00Z", observed="2")
        published.publisher.touch()
        assert (await published.next())["status"]["usage"][0]["usedMiB"] == 1
        published.status = used(2, at="2026-11-21T20:00:10Z", observed="3")
        published.publisher.touch()
        assert (await published.next())["status"]["usage"][0]["usedMiB"] == 2
        # What is put back after an edit has what was measured last.
        published.status = used(3, at="2026-11-21T20:00:20Z", observed="3")
        change: dict[str, Any] = {"status": {"usage": []}}
        await published.api.cluster.patch("gpunodes", NODE, change, subresource="status")
        assert (await published.next())["status"]["usage"] == []
        assert (await published.next())["status"]["usage"][0]["usedMiB"] == 3
        assert published.states.empty()


async def test_what_can_no_longer_be_measured_is_no_longer_said(tmp_path: Path) -> None:
    async with publishing(tmp_path, observed_seconds=0.05) as published:
        await published.next()
        await published.next()
        published.status = used(1000, at="2026-11-21T20:00:00Z")
        published.publisher.measured()
        assert "usage" in (await published.next())["status"]
        published.status = GpuNodeStatus("1", (GRANT,))
        published.publisher.measured()
        status = (await published.next())["status"]
        assert "usage" not in status
        assert "usageTime" not in status


async def test_a_gpunode_that_somebody_deleted_is_made_again(tmp_path: Path) -> None:
    async with publishing(tmp_path) as published:
        await published.next()
        await published.next()
        await published.api.cluster.delete("gpunodes", NODE)
        published.status = GpuNodeStatus("2", (GRANT,))
        published.publisher.touch()
        assert (await published.next())["spec"]["memoryUnitMiB"] == 512
        assert len((await published.next())["status"]["grants"]) == 1


async def test_on_a_quiet_node_a_deleted_gpunode_comes_back_with_its_status(tmp_path: Path) -> None:
    async with publishing(tmp_path) as published:
        published.status = GpuNodeStatus("1", (GRANT,))
        await published.next()
        before = await published.next()
        await published.api.cluster.delete("gpunodes", NODE)
        assert (await published.next())["spec"] == before["spec"]
        again = await published.next()
        assert again["status"] == before["status"]
        assert again["metadata"]["uid"] != before["metadata"]["uid"]
        assert again["metadata"]["ownerReferences"] == before["metadata"]["ownerReferences"]


@pytest.mark.parametrize(
    "change",
    [
        {"status": {"grants": []}},
        {"status": {"observedPods": "999999"}},
        {"status": {"grants": [{"podUID": "zz", "namespace": "a", "name": "b", "containers": {}}]}},
        {"status": None},
        {"spec": {"memoryUnitMiB": 1}},
        {"spec": {"gpus": []}},
    ],
    ids=str,
)
async def test_on_a_quiet_node_an_edit_is_put_back(tmp_path: Path, change: dict[str, Any]) -> None:
    async with publishing(tmp_path) as published:
        published.status = GpuNodeStatus("1", (GRANT,))
        await published.next()
        before = await published.next()
        await published.api.cluster.patch("gpunodes", NODE, change, subresource="status" if "status" in change else "")
        edited = await published.next()
        assert (edited["spec"], edited.get("status")) != (before["spec"], before["status"])
        after = await published.next()
        assert (after["spec"], after["status"]) == (before["spec"], before["status"])


async def test_what_the_api_server_adds_and_own_writes_are_no_edits(tmp_path: Path) -> None:
    """Neither a label nor our own writes, seen again in the watch, cause a write."""
    async with publishing(tmp_path) as published:
        await published.next()
        await published.next()
        for version in range(2, 6):
            published.status = GpuNodeStatus(str(version), (GRANT,))
            published.publisher.touch()
            assert (await published.next())["status"]["observedPods"] == str(version)
        await published.api.cluster.patch("gpunodes", NODE, {"metadata": {"labels": {"a": "b"}}})
        assert (await published.next())["metadata"]["labels"] == {"a": "b"}
        # An edit after all of this is the next thing to be answered: nothing else was written in between.
        await published.api.cluster.patch("gpunodes", NODE, {"spec": {"memoryUnitMiB": 1}})
        assert (await published.next())["spec"]["memoryUnitMiB"] == 1
        assert (await published.next())["spec"]["memoryUnitMiB"] == 512
        assert published.states.empty()


async def test_the_node_is_waited_for(tmp_path: Path) -> None:
    async with publishing(tmp_path, has_node=False) as published:
        await published.api.cluster.create("nodes", {"metadata": {"name": NODE}})
        assert (await published.next())["spec"]["memoryUnitMiB"] == 512


async def test_what_was_published_before(tmp_path: Path) -> None:
    async with publishing(tmp_path) as published:
        await published.next()
        await published.next()
        previous = await published.publisher.previous()
        assert previous is not None
        assert (previous.spec, previous.status) == (make_spec(), published.status)
        await published.api.cluster.delete("gpunodes", NODE)
        assert await published.publisher.previous() is None
