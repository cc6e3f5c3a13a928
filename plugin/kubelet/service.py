"""The kubelet's DevicePlugin interface, one server on one Unix socket for each resource.

Thin: every answer comes from the `Desk`, of which one after another may be attached. An error of ours becomes a gRPC
error with its sentence, a defect becomes one too, and no handler outlives `HANDLER_SECONDS`: the kubelet waits for an
answer without a limit of its own.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
from grpc import aio

from fracgpu.errors import FracgpuError, SettingError
from fracgpu.gpunodes import GpuNodeSpec
from fracgpu.kubelet.deviceplugin_pb2 import (
    AllocateRequest,
    AllocateResponse,
    CDIDevice,
    ContainerAllocateResponse,
    ContainerPreferredAllocationResponse,
    DevicePluginOptions,
    DeviceSpec,
    Empty,
    ListAndWatchResponse,
    Mount,
    PreferredAllocationRequest,
    PreferredAllocationResponse,
    PreStartContainerRequest,
    PreStartContainerResponse,
)
from fracgpu.kubelet.deviceplugin_pb2_grpc import DevicePluginServicer, add_DevicePluginServicer_to_server
from plugin.gpus.inventory import Inventory
from plugin.gpus.layout import device_list
from plugin.granting.desk import Desk
from plugin.handout import Edits
from plugin.metrics import Metrics

HANDLER_SECONDS: Final = 5.0
"""The longest an answer may take; each thing it may wait for has a limit of 1 s."""

OPTIONS: Final = DevicePluginOptions(get_preferred_allocation_available=True)

_Context = aio.ServicerContext[Any, Any]
_T = TypeVar("_T")

_logger = logging.getLogger(__name__)


class DevicePluginService(DevicePluginServicer):
    """One resource, as the kubelet sees it.

    Attributes:
        watchers: how many ListAndWatch streams are open; with none the kubelet does not know this plugin.
    """

    def __init__(self, resource: str, *, metrics: Metrics) -> None:
        self._resource = resource
        self._metrics = metrics
        self._desk: Desk | None = None
        self._inventory: Inventory | None = None
        self._attached = asyncio.Event()  # set while there is a desk
        self._swapped = asyncio.Event()  # set when there is another inventory, and then replaced
        self._calls = 0  # that the desk has not answered yet
        self._answered_all = asyncio.Event()
        self._answered_all.set()
        self.watchers = 0

    def attach(self, desk: Desk, inventory: Inventory) -> None:
        """Answer from this desk, and list what this inventory offers, from now on."""
        self._desk, self._inventory = desk, inventory
        self._attached.set()
        self._swapped.set()
        self._swapped = asyncio.Event()

    async def detach(self) -> None:
        """Have no desk any more: what is listed stays, and calls wait for the next. Waits for those under way."""
        self._desk = None
        self._attached.clear()
        await self._answered_all.wait()

    async def GetDevicePluginOptions(self, request: Empty, context: _Context) -> DevicePluginOptions:
        """Say that we want to be asked before devices are chosen, and not before containers start."""
        return OPTIONS

    async def ListAndWatch(self, request: Empty, context: _Context) -> AsyncIterator[ListAndWatchResponse]:
        """Send the device list, again whenever it changes, until the kubelet or we close the stream."""
        self.watchers += 1
        sent = None
        try:
            while True:
                inventory, spec = await self._offer()
                devices = device_list(spec, self._resource)
                if devices != sent:
                    yield devices
                    sent = devices
                await self._has_changed(inventory, spec)
        finally:
            self.watchers -= 1

    async def GetPreferredAllocation(
        self, request: PreferredAllocationRequest, context: _Context
    ) -> PreferredAllocationResponse:
        """Choose the devices of the container under admission."""
        if len(request.container_requests) != 1:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, _ONE_AT_A_TIME)
        asked = request.container_requests[0]
        if asked.allocation_size < 1:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"fracgpu: {asked.allocation_size} devices cannot be chosen"
            )
        with self._metrics.timing("prefer", self._resource):
            ids = await self._answered(
                context,
                lambda desk: desk.prefer(
                    self._resource,
                    available=asked.available_deviceIDs,
                    must_include=asked.must_include_deviceIDs,
                    size=asked.allocation_size,
                ),
            )
        return PreferredAllocationResponse(container_responses=[ContainerPreferredAllocationResponse(deviceIDs=ids)])

    async def Allocate(self, request: AllocateRequest, context: _Context) -> AllocateResponse:
        """Let the container under admission see the GPUs of its devices."""
        if len(request.container_requests) != 1:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, _ONE_AT_A_TIME)
        ids = request.container_requests[0].devices_ids
        with self._metrics.timing("allocate", self._resource):
            edits = await self._answered(context, lambda desk: desk.allocate(self._resource, ids))
        return AllocateResponse(container_responses=[_response(edits)])

    async def PreStartContainer(
        self, request: PreStartContainerRequest, context: _Context
    ) -> PreStartContainerResponse:
        """Never asked for: it would fail every restart of a container while this plugin is down."""
        return PreStartContainerResponse()

    async def _offer(self) -> tuple[Inventory, GpuNodeSpec]:
        while self._inventory is None:
            await self._attached.wait()
        return self._inventory, self._inventory.spec

    async def _has_changed(self, inventory: Inventory, spec: GpuNodeSpec) -> None:
        """Wait until something else than this is to be listed."""
        if self._inventory is not inventory:
            return  # while the list was on its way
        waiting = [asyncio.ensure_future(inventory.changed_from(spec)), asyncio.ensure_future(self._swapped.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def _answered(self, context: _Context, ask: Callable[[Desk], Awaitable[_T]]) -> _T:
        """Wait for an answer; whatever goes wrong becomes a gRPC error with a sentence."""
        try:
            async with asyncio.timeout(HANDLER_SECONDS):
                while self._desk is None:
                    await self._attached.wait()
                self._calls += 1
                self._answered_all.clear()
                try:
                    return await ask(self._desk)
                finally:
                    self._calls -= 1
                    if not self._calls:
                        self._answered_all.set()
        except FracgpuError as exc:
            self._metrics.refusal(exc.reason)
            _logger.warning("refused", extra={"reason": exc.reason, "sentence": str(exc), **exc.about})
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"fracgpu: {exc}")
        except TimeoutError:
            self._metrics.refusal("Timeout")
            _logger.error("no answer in time", extra={"seconds": HANDLER_SECONDS})
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"fracgpu: no answer within {HANDLER_SECONDS} s")
        except Exception:
            # The last line of defence: grpc would answer with the exception's text alone, and nobody would see where.
            self._metrics.refusal("Defect")
            _logger.exception("defect")
            await context.abort(grpc.StatusCode.INTERNAL, "fracgpu: a defect of the device plugin; its log says where")
        raise AssertionError("abort always raises")


class PluginServer:
    """Serves one resource on one socket.

    Args:
        service: the resource.
        socket: where; a socket left behind by an earlier process is replaced.
    """

    def __init__(self, service: DevicePluginService, socket: Path) -> None:
        self.service = service
        self.socket = socket
        self._server: aio.Server | None = None
        self._inode: int | None = None

    async def start(self) -> None:
        """Serve.

        Raises:
            SettingError: the socket cannot be made.
        """
        self._server = aio.server()
        add_DevicePluginServicer_to_server(self.service, self._server)
        try:
            self._server.add_insecure_port(f"unix:{self.socket}")
            await self._server.start()
            self._inode = self.socket.stat().st_ino
        except (RuntimeError, OSError) as exc:
            raise SettingError(f"cannot serve on {self.socket}: {exc}; is --kubelet-socket the kubelet's?") from exc

    @property
    def is_reachable(self) -> bool:
        """Whether the socket is still ours: the kubelet removes every socket of the folder when it starts."""
        try:
            return self.socket.stat().st_ino == self._inode
        except OSError:
            return False

    async def stop(self) -> None:
        """End all streams and remove the socket; harmless when not started."""
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None


def _response(edits: Edits) -> ContainerAllocateResponse:
    return ContainerAllocateResponse(
        envs=edits.env,
        mounts=[
            Mount(host_path=mount.host_path, container_path=mount.container_path, read_only=mount.read_only)
            for mount in edits.mounts
        ],
        devices=[
            DeviceSpec(host_path=node.host_path, container_path=node.container_path, permissions=node.permissions)
            for node in edits.devices
        ],
        annotations=edits.annotations,
        cdi_devices=[CDIDevice(name=name) for name in edits.cdi_devices],
    )


_ONE_AT_A_TIME: Final = "fracgpu answers for one container at a time, as the kubelet asks"
