"""A simulated node for the plugin's tests: API server, kubelet, cgroups, and the plugin's own parts in this process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from fracgpu.kube.client import KubeClient
from fracgpu.names import NodeName, PodUid
from fracgpu.plans import Share
from fracgpu.sharing import SharingSpec
from playground.api.apiserver import ApiServer
from playground.node.containers import Container
from playground.node.kubelet import Kubelet
from plugin.deviceplugin import DevicePlugin
from plugin.gpus.cards import Card
from plugin.gpus.layout import RESOURCES, Problems
from plugin.injection.injector import Injector
from plugin.isolation.none import Advisory
from plugin.kubelet.cgroups import PodCgroups
from plugin.kubelet.front import KubeletFront
from plugin.kubelet.podresources import PodResourcesClient
from plugin.metrics import Metrics
from plugin.settings import PluginSettings
from plugin.usage.measuring import Processes
from tests.plugin.builders import make_spec, pod_object

NODE = NodeName("node-1")
PATIENCE_SECONDS = 20.0

Object = dict[str, Any]


class WatchedKubelet(Kubelet):
    """Tells when a plugin has sent its devices: the Node's status may still be that of before a restart."""

    heard: asyncio.Queue[str]  # resources, in the order of the lists that came

    async def start(self) -> None:
        self.heard = asyncio.Queue()
        await super().start()

    def plugin_listed(self, resource: str, devices: dict[str, bool]) -> None:
        super().plugin_listed(resource, devices)
        self.heard.put_nowait(resource)

    async def until_heard(self) -> None:
        """Wait until both resources were listed since the kubelet's start."""
        missing = {*RESOURCES}
        async with asyncio.timeout(PATIENCE_SECONDS):
            while missing:
                missing.discard(await self.heard.get())


class SimulatedNode:
    """One node of a playground cluster; the plugin runs in this process while `plugin` is open."""

    def __init__(self, api: ApiServer, folder: Path) -> None:
        self.api = api
        self.cluster = api.cluster
        self.folder = folder
        self.cgroup_root = folder / "cgroup"
        (self.cgroup_root / "kubepods").mkdir(parents=True)  # as every kubelet makes it when it starts
        self.kubelet = WatchedKubelet(
            cluster=api.cluster, node_name=NODE, root=folder / "kubelet", cgroup_root=self.cgroup_root
        )

        self._may_end = asyncio.Event()

    def keep_processes_alive(self) -> None:
        """From now on SIGTERM does not end a process, until `let_processes_end`."""

        async def wait(_container: Container) -> None:
            await self._may_end.wait()

        self._may_end.clear()
        self.kubelet.runtime.on_sigterm = wait

    def let_processes_end(self) -> None:
        self._may_end.set()

    @contextlib.asynccontextmanager
    async def plugin(
        self,
        *,
        has_kubelet: bool = True,
        rules: Sequence[SharingSpec] = (),
        problems: Problems | None = None,
        clock: Callable[[], float] = time.monotonic,
        **more: Any,
    ) -> AsyncIterator[DevicePlugin]:
        """Run the plugin, registered where there is a kubelet; leaving ends it as SIGTERM does.

        `rules` are those of its file, `problems` those of GPUs that fell ill, `more` are settings.
        """
        kubeconfig = self.folder / "kubeconfig"
        kubeconfig.write_text(self.api.kubeconfig())
        settings = PluginSettings(
            node_name=NODE,
            kubeconfig=kubeconfig,
            kubelet_socket=self.kubelet.plugins_folder / "kubelet.sock",
            port=0,
            pod_resources_socket=self.kubelet.pod_resources_socket,
            cgroup_root=self.cgroup_root,
            **more,
        )
        cards = [Card(gpu.uuid, gpu.index, gpu.product, gpu.memory, gpu.numa_node) for gpu in make_spec().gpus]
        client = await KubeClient.connect(kubeconfig=kubeconfig)
        devices = PodResourcesClient(settings.pod_resources_socket)
        plugin = DevicePlugin(
            settings,
            rules=rules,
            cards=cards,
            problems={},  # when the life was prepared
            client=client,
            devices=devices,
            cgroups=PodCgroups(self.cgroup_root),
            processes=_no_processes,
            metrics=Metrics(),
            injector=Injector(
                strategies=settings.device_list_strategy,
                id_strategy=settings.device_id_strategy,
                pass_device_specs=False,
                driver_root=settings.nvidia_driver_root,
                cdi_spec_dir=self.folder,
                cdi_hook_path=settings.nvidia_cdi_hook_path,
            ),
            isolate=lambda *_: Advisory(),
            clock=clock,
        )
        front = KubeletFront(settings.kubelet_socket, metrics=Metrics())
        await front.start()
        may_serve = asyncio.Event()
        plugin.report(problems or {})  # and by the time it may serve
        may_serve.set()
        running = asyncio.create_task(plugin.run(front, prepared=asyncio.Event(), may_serve=may_serve))
        try:
            if has_kubelet:
                await self.kubelet.until_heard()
            yield plugin
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await front.close()
            await devices.close()
            await client.close()

    async def create(self, name: str, containers: dict[str, Sequence[Share]], **options: Any) -> PodUid:
        """Create a pod that is bound to this node already."""
        obj = pod_object(name, containers, **options)
        obj["spec"]["nodeName"] = NODE
        created = await self.cluster.create("pods", obj)
        return PodUid(created["metadata"]["uid"])

    async def until(
        self, resource: str, name: str, condition: Callable[[Object], bool], *, namespace: str = ""
    ) -> Object:
        """Wait until an object fulfils a condition; returns it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            objects, version = await self.cluster.list(resource)
            for obj in objects:
                if _is(obj, name, namespace) and condition(obj):
                    return obj
            async with contextlib.aclosing(
                self.cluster.watch(resource, resource_version=version)  # type: ignore[type-var]
            ) as events:
                async for event in events:
                    if event.type != "DELETED" and _is(event.object, name, namespace) and condition(event.object):
                        return event.object
        raise AssertionError("the watch ended")

    async def until_told(self, reason: str) -> Object:
        """Wait for an event on a pod."""
        return await self.until("events", "", lambda event: bool(event["reason"] == reason))

    async def until_phase(self, name: str, phase: str, *, namespace: str = "team-a") -> Object:
        return await self.until(
            "pods", name, lambda pod: pod.get("status", {}).get("phase") == phase, namespace=namespace
        )

    async def until_granted(self, *uids: PodUid) -> Object:
        """Wait until the published grants are exactly these pods'; returns the GPUNode."""
        return await self.until("gpunodes", NODE, lambda node: "status" in node and {*granted(node)} == {*uids})


async def _no_processes() -> Processes:
    return {}


def granted(node: Object) -> dict[PodUid, dict[str, Any]]:
    """Pod UID -> its grant, of a GPUNode with a status."""
    return {grant["podUID"]: grant for grant in node["status"]["grants"]}


def _is(obj: Object, name: str, namespace: str) -> bool:
    if not name:
        return True
    return bool(obj["metadata"]["name"] == name and obj["metadata"].get("namespace", "") == namespace)
