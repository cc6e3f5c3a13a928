"""What the kubelet sees of this process: sockets, device lists, registrations.

It outlasts the lives of `plugin.deviceplugin`, so that the kubelet does not notice when one follows another: its
streams stay open, and what it asks in between is answered by the next.
"""

import asyncio
from pathlib import Path
from typing import Final

from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA
from plugin.gpus.inventory import Inventory
from plugin.granting.desk import Desk
from plugin.kubelet.registration import Registrar
from plugin.kubelet.service import DevicePluginService, PluginServer
from plugin.metrics import Metrics

SOCKETS: Final = {RESOURCE_MEMORY: "fracgpu-memory.sock", RESOURCE_REPLICA: "fracgpu-replica.sock"}
"""Resource -> the name of its socket in the kubelet's folder."""


class KubeletFront:
    """The plugin's side of one kubelet.

    Args:
        kubelet: the socket at which plugins register; ours lie beside it.
        metrics: what is counted.
    """

    def __init__(self, kubelet: Path, *, metrics: Metrics) -> None:
        self.kubelet: Final = kubelet
        self._services = {resource: DevicePluginService(resource, metrics=metrics) for resource in SOCKETS}
        servers = {
            resource: PluginServer(service, kubelet.parent / SOCKETS[resource])
            for resource, service in self._services.items()
        }
        self._registrar = Registrar(kubelet, servers, on_registered=metrics.registration)
        self._registering: asyncio.Task[None] | None = None

    @property
    def unheard(self) -> str:
        """The resources that no kubelet listens to, as text; empty where it listens to all."""
        return self._registrar.unheard

    async def start(self) -> None:
        """Make the sockets; nobody hears of them yet.

        Raises:
            SettingError: that is not possible there.
        """
        await self._registrar.start()

    def attach(self, desk: Desk, inventory: Inventory) -> None:
        """Have the kubelet's questions answered by this desk; the first one makes us known to it."""
        for service in self._services.values():
            service.attach(desk, inventory)
        if self._registering is None:
            self._registering = asyncio.create_task(self._registrar.run(), name="registrar")

    async def detach(self) -> None:
        """Have nobody answer until the next `attach`; waits for answers under way, which end within seconds."""
        for service in self._services.values():
            await service.detach()

    async def close(self) -> None:
        """End the conversation with the kubelet; harmless when it never began."""
        if self._registering is not None:
            self._registering.cancel()
            await asyncio.gather(self._registering, return_exceptions=True)
        await self._registrar.stop()
