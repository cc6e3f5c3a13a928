from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fracgpu.gpunodes import GpuNodeStatus, Grant
from fracgpu.kube.client import KubeClient
from fracgpu.names import NodeName, PodUid
from fracgpu.plans import Share
from playground.apiserver import ApiServer
from plugin.publisher import Publisher
from tests.plugin.builders import A, make_spec

NODE = NodeName("node-1")
GRANT = Grant(PodUid("u"), "team-a", "x", {"main": (Share(A, 8),)})


class Published:
    """A publisher at an API server, and every state of the GPUNode that it caused."""

    def __init__(self, api: ApiServer, client: KubeClient, *, observed_seconds: float) -> None:
        self.api = api
        self.status = GpuNodeStatus("1")
        self.publisher = Publisher(
            client, NODE, make_spec(), status=lambda: self.status, observed_seconds=observed_seconds
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
        assert second["status"] == {"observedPods": "1", "grants": []}
        assert second["metadata"]["ownerReferences"][0]["kind"] == "Node"
        assert second["spec"] == first["spec"]


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


async def test_a_gpunode_that_somebody_deleted_is_made_again(tmp_path: Path) -> None:
    async with publishing(tmp_path) as published:
        await published.next()
        await published.next()
        await published.api.cluster.delete("gpunodes", NODE)
        published.status = GpuNodeStatus("2", (GRANT,))
        published.publisher.touch()
        assert (await published.next())["spec"]["memoryUnitMiB"] == 512
        assert len((await published.next())["status"]["grants"]) == 1


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
