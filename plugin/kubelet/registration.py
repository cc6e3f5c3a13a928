"""Keeps the plugin known to the kubelet, which forgets all plugins, and removes their sockets, when it starts.

Registers when there is a kubelet that does not listen to us: a new ``kubelet.sock``, a socket of ours that is gone, or
no open ListAndWatch stream. Never while a stream is open: Kubernetes 1.36, on the end of the old stream, disconnects
the newest registration too.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import grpc
from grpc import aio

from fracgpu.errors import UnavailableError
from fracgpu.kubelet.deviceplugin_pb2 import RegisterRequest
from fracgpu.kubelet.deviceplugin_pb2_grpc import RegistrationStub
from fracgpu.trouble import TroubleLog
from plugin.kubelet.service import OPTIONS, PluginServer

API_VERSION: Final = "v1beta1"

_POLL_SECONDS: Final = 0.2  # two stat calls; a pod admitted between the kubelet's start and our registration is refused
_REGISTER_SECONDS: Final = 12.0  # the kubelet dials back before it answers, for up to 10 s
_LISTEN_SECONDS: Final = 3.0  # from registering to the first ListAndWatch; some milliseconds on an idle machine

_logger = logging.getLogger(__name__)


class Registrar:
    """Registers each server for its resource, again and again where needed.

    Args:
        kubelet: the socket at which plugins register; ours lie beside it.
        servers: resource -> its server, not started yet.
        on_registered: called with each resource that was registered.
    """

    def __init__(
        self, kubelet: Path, servers: Mapping[str, PluginServer], *, on_registered: Callable[[str], None]
    ) -> None:
        self._on_registered = on_registered
        self._socket = kubelet
        self._servers = servers
        self._kubelet: tuple[int, int] | None = None  # identity of the kubelet.sock that we registered at
        self._registered_at: dict[str, float] = {}  # resource -> when, by the monotonic clock
        self._trouble = TroubleLog(_logger, subject="registering at the kubelet", clock=time.monotonic)

    async def start(self) -> None:
        """Serve all resources.

        Raises:
            SettingError: a socket cannot be made.
        """
        for server in self._servers.values():
            await server.start()

    async def run(self) -> None:
        """Register and stay registered until cancelled; waits while there is no kubelet."""
        while True:
            try:
                await self._check()
                self._trouble.succeeded()
            except UnavailableError as exc:
                self._trouble.failed(exc)
            await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        """Stop serving."""
        for server in self._servers.values():
            await server.stop()

    @property
    def unheard(self) -> str:
        """The resources that no kubelet listens to, as text; empty where it listens to all."""
        return ", ".join(resource for resource, server in self._servers.items() if not server.service.watchers)

    async def _check(self) -> None:
        kubelet = _identity(self._socket)
        if kubelet is None:
            raise UnavailableError(f"there is no {self._socket}: waiting for the kubelet")
        for resource, server in self._servers.items():
            if kubelet == self._kubelet and server.is_reachable and self._is_heard(resource, server):
                continue
            if server.service.watchers or not server.is_reachable:
                await server.stop()
                await server.start()
            await self._register(resource, server)
        self._kubelet = kubelet

    def _is_heard(self, resource: str, server: PluginServer) -> bool:
        """Whether the kubelet listens to a server, or has just been asked to."""
        asked_at = self._registered_at.get(resource, -_LISTEN_SECONDS)
        return bool(server.service.watchers) or time.monotonic() - asked_at < _LISTEN_SECONDS

    async def _register(self, resource: str, server: PluginServer) -> None:
        request = RegisterRequest(
            version=API_VERSION, endpoint=server.socket.name, resource_name=resource, options=OPTIONS
        )
        try:
            async with aio.insecure_channel(f"unix:{self._socket}") as channel:
                await RegistrationStub(channel).Register(request, timeout=_REGISTER_SECONDS)
        except grpc.RpcError as exc:
            reason = exc.details() if isinstance(exc, aio.AioRpcError) else exc
            raise UnavailableError(f"the kubelet does not take {resource}: {reason}") from exc
        self._registered_at[resource] = time.monotonic()
        self._on_registered(resource)
        _logger.info("registered", extra={"resource": resource})


def _identity(path: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced; the inode's number alone may be used again at once."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_ctime_ns
