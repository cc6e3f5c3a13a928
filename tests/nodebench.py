"""A node under test, simulated or real, behind one small interface: what the conformance suite is written against."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fracgpu.names import NodeName, PodUid
from playground.api.admission import Admission
from playground.api.local import LocalCluster
from playground.api.registry import Registry
from playground.api.store import Store
from playground.api.watching import Watches
from playground.cluster import ApiStatusError, ClusterApi, JsonObject
from playground.node.containers import Container
from playground.node.kubelet import Kubelet

PATIENCE_SECONDS = 60.0
"""How long anything may take; the real kubelet polls its runtime every second."""


@dataclass(frozen=True)
class ContainerView:
    """What the container runtime was told about one container."""

    env: tuple[tuple[str, str], ...]
    cdi_devices: tuple[str, ...]
    id: str
    alive: bool


class NodeBench(Protocol):
    """One node with its kubelet, and the API server that it belongs to."""

    @property
    def cluster(self) -> ClusterApi: ...
    @property
    def node_name(self) -> NodeName: ...
    @property
    def plugins_folder(self) -> Path: ...
    @property
    def pod_resources(self) -> Path: ...

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def restart(self) -> None:
        """Restart the kubelet; containers live on."""
        ...

    def container(self, pod_uid: PodUid, name: str) -> ContainerView:
        """Return the newest container of that name."""
        ...

    def let_processes_live_on(self) -> Callable[[], None]:
        """Make processes ignore SIGTERM until the returned function is called."""
        ...

    def finish(self, pod_uid: PodUid, name: str, exit_code: int) -> None:
        """Let a container's process exit by itself."""
        ...


class StubBench:
    """A playground node beside an API server in this process."""

    def __init__(self, folder: Path, *, seed: int = 0, nvml_state: Path | None = None) -> None:
        store = Store()
        self.watches = Watches(store)
        self.cluster: ClusterApi = LocalCluster(Registry(store, Admission()), self.watches)
        self.node_name = NodeName("node-1")
        self.cgroup_root = folder / "cgroup"
        self.kubelet = Kubelet(
            cluster=self.cluster,
            node_name=self.node_name,
            root=folder / "k",
            cgroup_root=self.cgroup_root,
            nvml_state=nvml_state,
            seed=seed,
        )
        self.plugins_folder = self.kubelet.plugins_folder
        self.pod_resources = self.kubelet.pod_resources_socket

    async def start(self) -> None:
        await self.kubelet.start()

    async def stop(self) -> None:
        await self.kubelet.stop()
        await self.kubelet.runtime.close()

    async def restart(self) -> None:
        await self.kubelet.restart()

    def container(self, pod_uid: PodUid, name: str) -> ContainerView:
        found = self.kubelet.container(pod_uid, name)
        return ContainerView(found.config.env, found.config.cdi_devices, found.id, found.exit_code is None)

    def let_processes_live_on(self) -> Callable[[], None]:
        may_end = asyncio.Event()

        async def wait(_container: Container) -> None:
            await may_end.wait()

        self.kubelet.runtime.on_sigterm = wait
        return may_end.set

    def finish(self, pod_uid: PodUid, name: str, exit_code: int) -> None:
        self.kubelet.finish(pod_uid, name, exit_code)


def make_pod(name: str, *, node: str, **containers: dict[str, int]) -> JsonObject:
    """Build a pod bound to a node: container name -> limits."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 30,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [make_container(key, limits) for key, limits in containers.items()],
        },
    }


def make_container(name: str, limits: dict[str, int], **more: Any) -> JsonObject:
    """Build a container."""
    amounts = {resource: str(count) for resource, count in limits.items()}
    return {"name": name, "image": "example.com/image:1", "resources": {"limits": amounts}, **more}


async def until(
    cluster: ClusterApi, resource: str, name: str, holds: Callable[[JsonObject], bool], *, namespace: str = "default"
) -> JsonObject:
    """Wait until an object is as wanted, and return it; {} stands for one that is not there."""
    seen: JsonObject = {}
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                items, version = await cluster.list(resource, field_selector=f"metadata.name={name}")
                seen = items[0] if items else {}
                if holds(seen):
                    return seen
                try:
                    async for event in cluster.watch(
                        resource, resource_version=version, field_selector=f"metadata.name={name}"
                    ):
                        seen = {} if event.type == "DELETED" else event.object
                        if holds(seen):
                            return seen
                except ApiStatusError as exc:
                    if exc.code != 410:
                        raise
    except TimeoutError:
        raise AssertionError(f"{resource}/{name} did not become as wanted; last seen: {seen}") from None


async def until_phase(cluster: ClusterApi, name: str, phase: str) -> JsonObject:
    """Wait for a pod's phase."""
    return await until(cluster, "pods", name, lambda pod: pod.get("status", {}).get("phase") == phase)


async def until_gone(cluster: ClusterApi, name: str) -> None:
    """Wait until a pod's object is gone."""
    await until(cluster, "pods", name, lambda pod: pod == {})


async def until_allocatable(bench: NodeBench, resource: str, count: int) -> JsonObject:
    """Wait until the Node offers this many devices."""
    return await until(
        bench.cluster,
        "nodes",
        bench.node_name,
        lambda node: node.get("status", {}).get("allocatable", {}).get(resource) == str(count),
    )
