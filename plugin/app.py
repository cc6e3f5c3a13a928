"""Wires the device plugin together, and runs it.

The order of a start: the GPUs; what this plugin had written down and published; the node's pods; what the kubelet and
the cgroups say.
Only when the grants are complete does the kubelet hear of us, so that nothing is given out twice after a restart.
"""

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import Final

from fracgpu.gpunodes import GpuNodeSpec, GpuNodeStatus
from fracgpu.kube.client import KubeClient
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, NodeName
from fracgpu.process.running import announce_ready
from fracgpu.quantities import DEFAULT_REPLICAS, Mib
from plugin.cluster.podwatch import PodWatch
from plugin.cluster.publisher import Publisher
from plugin.gpus.layout import device_list, node_spec, refuse_change_under_grants
from plugin.gpus.nvml import discover
from plugin.granting.book import GrantBook
from plugin.granting.desk import Desk
from plugin.granting.journal import GrantJournal
from plugin.kubelet.cgroups import PodCgroups
from plugin.kubelet.podresources import PodResourcesClient
from plugin.kubelet.registration import Registrar
from plugin.kubelet.service import DevicePluginService, PluginServer
from plugin.settings import PluginSettings

SOCKETS: Final = {RESOURCE_MEMORY: "fracgpu-memory.sock", RESOURCE_REPLICA: "fracgpu-replica.sock"}
"""Resource -> the name of its socket in the kubelet's folder."""

_logger = logging.getLogger(__name__)


async def serve(settings: PluginSettings, stop: asyncio.Event) -> None:
    """Run the device plugin until `stop` is set.

    Raises:
        SettingError: a setting cannot be used on this node.
        UnavailableError: NVML does not answer.
    """
    spec = find_gpus(settings)
    cgroups = PodCgroups(settings.cgroup_root)
    cgroups.check()
    async with AsyncExitStack() as closing:
        client = await KubeClient.connect(kubeconfig=settings.kubeconfig)
        closing.push_async_callback(client.close)
        devices = PodResourcesClient(settings.pod_resources_socket)
        closing.push_async_callback(devices.close)
        plugin = DevicePlugin(settings, spec, client, devices, cgroups)
        closing.push_async_callback(plugin.stop)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(plugin.run(), name="device plugin")
            await stop.wait()
            running.cancel()


def find_gpus(settings: PluginSettings) -> GpuNodeSpec:
    """Ask NVML for this node's GPUs and divide them; those that cannot be used are logged.

    Raises:
        UnavailableError: NVML does not answer.
        SettingError: the GPUs cannot be divided so.
    """
    found = discover()
    for problem in (*found.nameless, *(card.problem for card in found.cards if card.problem)):
        _logger.error("unusable GPU", extra={"problem": problem})
    return node_spec(
        found.cards,
        unit=Mib(settings.memory_unit_mib),
        replicas=settings.replicas or DEFAULT_REPLICAS,
        reserved=Mib(settings.reserved_mib or 0),
    )


class DevicePlugin:
    """The parts of one device plugin, connected.

    Args:
        settings: the node's name, and the folder and the ready file to use.
        spec: the node's GPUs.
        client: the API server.
        devices: the kubelet's PodResources.
        cgroups: the pods' processes.
    """

    def __init__(
        self,
        settings: PluginSettings,
        spec: GpuNodeSpec,
        client: KubeClient,
        devices: PodResourcesClient,
        cgroups: PodCgroups,
    ) -> None:
        node = NodeName(settings.node_name)
        self._settings = settings
        self._spec = spec
        self._book = GrantBook({gpu.uuid: gpu for gpu in spec.gpus})
        self._publisher = Publisher(client, node, spec, status=self._status)
        self._pods = PodWatch(client, node, on_end=self._pod_ended, on_progress=self._publisher.progressed)
        self._journal = GrantJournal(settings.kubelet_socket.parent, spec)
        self._desk = Desk(
            spec,
            self._book,
            pods=self._pods,
            devices=devices,
            processes=cgroups,
            journal=self._journal,
            on_change=self._publisher.touch,
        )
        folder = settings.kubelet_socket.parent
        self._registrar = Registrar(
            folder,
            {
                resource: PluginServer(
                    DevicePluginService(self._desk, resource, device_list(spec, resource)), folder / name
                )
                for resource, name in SOCKETS.items()
            },
        )

    async def run(self) -> None:
        """Learn what is granted, then serve the kubelet until cancelled.

        Raises:
            ExceptionGroup: of a SettingError where a setting contradicts what pods hold, or a socket cannot be made.
        """
        async with asyncio.TaskGroup() as tasks:
            previous = await self._publisher.previous()
            if previous is not None:
                self._pods.remember_ended(previous.status.ended_pods)
            tasks.create_task(self._pods.run(), name="pod watch")
            await self._pods.synced()
            # Both: the journal was written first, and by nobody else; the GPUNode survives the loss of a disk.
            journaled = self._journal.read()
            if previous is not None:
                self._book.restore(previous.status.grants)
            if journaled is not None:
                self._book.restore(journaled.grants, ids=journaled.ids)
            await self._desk.reconcile()
            before = journaled or previous
            if before is not None:
                refuse_change_under_grants(before.spec, self._spec, self._book.grants())
            self._desk.keep()  # not before: it replaces the old spec
            tasks.create_task(self._publisher.run(), name="publisher")
            tasks.create_task(self._desk.run(), name="desk")
            await self._registrar.start()
            tasks.create_task(self._registrar.run(), name="registrar")
            announce_ready(f"unix:{self._settings.kubelet_socket.parent}", ready_file=self._settings.ready_file)

    async def stop(self) -> None:
        """End the conversation with the kubelet; harmless when it never began."""
        await self._registrar.stop()

    def _status(self) -> GpuNodeStatus:
        """Read what to publish, in this order: see `plugin.cluster.publisher`."""
        return GpuNodeStatus(observed_pods=self._pods.observed, ended_pods=self._pods.ended, grants=self._book.grants())

    def _pod_ended(self) -> None:
        self._desk.wake()
