"""What outlasts the lives of the plugin within its process: the kubelet's view of us, GPUs, probes and metrics."""

from collections.abc import Callable
from pathlib import Path

from fracgpu.process.serving import HttpServer
from plugin.gpus.session import GpuSession
from plugin.http import HttpApp
from plugin.kubelet.front import KubeletFront
from plugin.metrics import Metrics


class Lasting:
    """What outlasts the lives of the plugin."""

    def __init__(self) -> None:
        self.gpus = GpuSession()
        self.metrics = Metrics()
        self.gpus.on_xid = self.metrics.xid
        self.unready: Callable[[], str] = lambda: "no GPUs were found yet"
        self.front: KubeletFront | None = None
        self._http: HttpServer | None = None
        self._address: tuple[str, int] | None = None
        self.is_announced = False

    async def serve_http(self, host: str, port: int) -> HttpServer:
        """Serve probes and metrics there, and nowhere else any more.

        Raises:
            SettingError: that address cannot be listened on; what was before goes on.
        """
        if self._http is None or self._address != (host, port):
            app = HttpApp(registry=self.metrics.registry, checks={"device plugin": lambda: self.unready()})
            server = HttpServer(app, host=host, port=port, tls_cert=None, tls_key=None, bounds_headers=True)
            await server.start()
            before, self._http, self._address = self._http, server, (host, port)
            if before is not None:
                await before.stop()
        return self._http

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
        if self._http is not None:
            await self._http.stop()
        await self.gpus.close()
