"""A node under test with the plugins that a test puts on it: the vocabulary of the kubelet's conformance suite."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from fracgpu.names import PodUid
from playground.cluster import ApiStatusError, JsonObject
from tests.nodebench import (
    PATIENCE_SECONDS,
    NodeBench,
    make_pod,
    until,
    until_allocatable,
    until_gone,
    until_phase,
)
from tests.recordingplugin import Call, Listing, RecordingPlugin, list_pod_resources

A, B = "example.com/a", "example.com/b"
IDS = [f"GPU-x::m{i}" for i in range(8)]


def last_two(call: Call) -> list[str]:
    """A preference that chance would hardly hit."""
    return sorted(call.ids)[-2:]


def without_devices(listing: Listing) -> list[str]:
    """The pods that PodResources shows without any device."""
    return [pod for pod, containers in listing.items() if not any(containers.values())]


class Lab:
    """One test's view of a node; ``clean`` leaves it without pods and plugins for the next."""

    def __init__(self, node: NodeBench) -> None:
        self.node = node
        self.cluster = node.cluster
        self._plugins: list[RecordingPlugin] = []

    def plugin(self, resource: str = A, ids: list[str] = IDS, **answers: Any) -> RecordingPlugin:
        """Make a plugin that is not there yet."""
        plugin = RecordingPlugin(
            resource, ids, folder=self.node.plugins_folder, pod_resources=self.node.pod_resources, **answers
        )
        self._plugins.append(plugin)
        return plugin

    async def plug(self, resource: str = A, ids: list[str] = IDS, **answers: Any) -> RecordingPlugin:
        """Start a plugin and wait until its devices are allocatable."""
        plugin = self.plugin(resource, ids, **answers)
        await plugin.start()
        await self.until_allocatable(resource, len(ids))
        return plugin

    async def create(self, name: str, **containers: dict[str, int]) -> PodUid:
        """Create a pod of these containers (name -> limits) on the node."""
        return await self.create_pod(self.pod(name, **containers))

    async def create_pod(self, pod: JsonObject) -> PodUid:
        created = await self.cluster.create("pods", pod)
        return PodUid(created["metadata"]["uid"])

    def pod(self, name: str, **containers: dict[str, int]) -> JsonObject:
        return make_pod(name, node=self.node.node_name, **containers)

    async def run(self, name: str, **containers: dict[str, int]) -> PodUid:
        """Create a pod and wait until it runs."""
        return await self.run_pod(self.pod(name, **containers))

    async def run_pod(self, pod: JsonObject, *, init: str = "") -> PodUid:
        """Create a pod, end the init container of that name, and wait until the pod runs."""
        uid = await self.create_pod(pod)
        if init:
            await self._finish_init(uid, init)
        await until_phase(self.cluster, pod["metadata"]["name"], "Running")
        return uid

    async def _finish_init(self, uid: PodUid, name: str) -> None:
        async def holds() -> bool:
            with suppress(KeyError):
                self.node.finish(uid, name, 0)
                return True
            return False  # the runtime has not started it yet

        await poll(holds)

    async def rejection(self, name: str) -> str:
        """Wait until a pod was refused at admission, and return the sentence."""
        status = (await until_phase(self.cluster, name, "Failed"))["status"]
        assert status["reason"] == "UnexpectedAdmissionError"
        return str(status["message"])

    async def delete(self, name: str, *, grace_seconds: int | None = None) -> None:
        await self.cluster.delete("pods", name, namespace="default", grace_seconds=grace_seconds)

    async def listing(self) -> Listing:
        return await list_pod_resources(self.node.pod_resources)

    async def until_listed(self, want: Listing) -> None:
        async def holds() -> bool:
            return await self.listing() == want

        await poll(holds)

    async def until_ended(self, uid: PodUid, name: str) -> None:
        async def holds() -> bool:
            return not self.node.container(uid, name).alive

        await poll(holds)

    async def until_allocatable(self, resource: str, count: int) -> JsonObject:
        """Wait for the Node, and return its status."""
        node = await until_allocatable(self.node, resource, count)
        return dict(node["status"])

    async def until_pod(self, name: str, holds: Callable[[JsonObject], bool]) -> None:
        await until(self.cluster, "pods", name, holds)

    async def until_phase(self, name: str, phase: str) -> None:
        await until_phase(self.cluster, name, phase)

    async def until_gone(self, name: str) -> None:
        await until_gone(self.cluster, name)

    async def clean(self) -> None:
        pods, _version = await self.cluster.list("pods")
        for pod in pods:
            with suppress(ApiStatusError):  # it may be going by itself
                await self.delete(pod["metadata"]["name"], grace_seconds=0)
            await self.until_gone(pod["metadata"]["name"])
        for plugin in self._plugins:
            await plugin.stop()
        for plugin in self._plugins:
            await self.until_allocatable(plugin.resource, 0)


async def poll(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what has no watch: PodResources, and the container runtime's view."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await holds():  # noqa: ASYNC110 - nobody here could set an event
            await asyncio.sleep(0.1)
