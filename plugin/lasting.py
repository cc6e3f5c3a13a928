"""What outlasts the lives of the plugin within its process: the kubelet's view of us, GPUs, probes and metrics."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from fracgpu.process.probes import ProbesApp
from fracgpu.process.serving import HttpServer
from fracgpu.process.tls import ServerCertificate
from plugin.gpus.session import GpuSession
from plugin.kubelet.front import KubeletFront
from plugin.metrics import Metrics
from plugin.settings import PluginSettings

_logger = logging.getLogger(__name__)


class Lasting:
    """What outlasts the lives of the plugin."""

    def __init__(self) -> None:
        self.gpus = GpuSession()
        self.metrics = Metrics()
        self.gpus.on_xid = self.metrics.xid
        self.unready: Callable[[], str] = lambda: "no GPUs were found yet"
        self.metrics.watch_ready(lambda: self.unready())
        self.front: KubeletFront | None = None
        self._http: HttpServer | None = None
        self._place: tuple[str, int, Path | None, Path | None] | None = None  # host, port and TLS files of that
        self._renewing: asyncio.Task[None] | None = None  # follows the TLS files
        self.is_announced = False

    async def serve_http(self, settings: PluginSettings) -> HttpServer:
        """Serve probes and metrics where the settings say, and nowhere else any more.

        Raises:
            SettingError: that address cannot be listened on, or the certificate cannot be used. What was before goes
                on, unless it was at that very address, and somebody else has taken that: then nothing is served until
                this is called again.
        """
        place = (settings.host, settings.port, settings.tls_cert, settings.tls_key)
        if self._http is None or self._place != place:
            certificate = None
            if settings.tls_cert is not None and settings.tls_key is not None:
                certificate = ServerCertificate(cert=settings.tls_cert, key=settings.tls_key)
            app = ProbesApp(registry=self.metrics.registry, checks={"device plugin": lambda: self.unready()})
            server = HttpServer(
                app,
                host=settings.host,
                port=settings.port,
                tls=certificate.context if certificate else None,
            )
            if self._place is not None and self._place[:2] == place[:2]:
                await self._stop_http()  # two cannot listen there
            await server.start()
            await self._stop_http()
            self._http, self._place = server, place
            if certificate is not None:
                self._renewing = asyncio.create_task(certificate.run(), name="certificate")
                self._renewing.add_done_callback(_look_at)
        return self._http

    async def _stop_http(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
        server, self._http, self._place, self._renewing = self._http, None, None, None
        if server is not None:
            await server.stop()

    async def front_at(self, kubelet: Path) -> KubeletFront:
        """What the kubelet with this socket sees, or will see from `show` on.

        Raises:
            SettingError: our sockets cannot be made beside it.
        """
        if self.front is not None and self.front.kubelet == kubelet:
            return self.front
        front = KubeletFront(kubelet, metrics=self.metrics)
        await front.start()
        return front

    async def show(self, front: KubeletFront) -> None:
        """Have this front, and no other any more."""
        before, self.front = self.front, front
        if before is not None and before is not front:
            await before.close()

    async def close(self) -> None:
        """End all of it."""
        if self.front is not None:
            await self.front.close()
        await self._stop_http()
        await self.gpus.close()


def _look_at(renewing: asyncio.Task[None]) -> None:
    """Nobody waits for it: without this a defect would be told when the process ends."""
    if not renewing.cancelled() and (error := renewing.exception()) is not None:
        _logger.error("defect", exc_info=error)
