from __future__ import annotations

import asyncio
from pathlib import Path

from fracgpu.kube.client import KubeClient
from fracgpu.names import PodUid
from fracgpu.plans import Share
from playground.api.apiserver import ApiServer
from plugin.cluster.podwatch import PodWatch
from tests.plugin.builders import A, pod_object
from tests.plugin.node import NODE


async def test_the_newest_state_counts_wherever_it_came_from(tmp_path: Path) -> None:
    api = ApiServer()
    await api.start()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(api.kubeconfig())
    client = await KubeClient.connect(kubeconfig=kubeconfig)
    ended = asyncio.Event()
    pods = PodWatch(client, NODE, on_end=ended.set, on_progress=lambda: None)
    pods.remember_ended([PodUid("of an earlier process")])
    uids: dict[str, PodUid] = {}

    async def create(name: str, phase: str) -> None:
        obj = pod_object(name, {"main": [Share(A, 8)]})
        obj["spec"]["nodeName"] = NODE
        uids[name] = PodUid((await api.cluster.create("pods", obj))["metadata"]["uid"])
        status = {"status": {"phase": phase}}
        await api.cluster.patch("pods", name, status, namespace="team-a", subresource="status")

    def names() -> set[str]:
        return {pod.metadata.name for pod in pods.alive().values()}

    await create("first", "Running")
    await create("done", "Succeeded")
    assert names() == set()
    assert await pods.refresh()
    assert names() == {"first"}, "read before the watch has begun, and without the terminal one"

    running = asyncio.create_task(pods.run())
    await pods.synced()
    await create("second", "Running")
    assert await pods.refresh()
    assert names() == {"first", "second"}
    ended.clear()
    await api.cluster.delete("pods", "first", namespace="team-a", grace_seconds=0)
    async with asyncio.timeout(10):
        await ended.wait()
    assert names() == {"second"}, "the watch has overtaken the read"
    assert pods.ended == (PodUid("of an earlier process"), uids["done"], uids["first"])

    await api.stop()
    assert not await pods.refresh()
    assert names() == {"second"}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await client.close()
