"""The kubelet's Unix sockets: Registration and the way back to the plugins, and PodResources.

What a plugin meets here is what it meets on a node, with the limits that plugins run into: the client's 4 MiB for a
received message (gRPC's default in Go as in Python), and PodResources' rate limit. Decisions are the device
manager's; this module carries them over sockets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from fracgpu.kubelet import deviceplugin_pb2 as pb
from fracgpu.kubelet import deviceplugin_pb2_grpc as pb_grpc
from fracgpu.kubelet import podresources_pb2 as podresources
from fracgpu.kubelet import podresources_pb2_grpc as podresources_grpc
from playground.node.devicemanager import PluginCallError

VERSION: Final = "v1beta1"
CHECKPOINT: Final = "kubelet_internal_checkpoint"
DIAL_SECONDS: Final = 10.0
LIST_PER_SECOND: Final = 100.0
LIST_BURST: Final = 10


class PluginEvents(Protocol):
    """What happens to plugins, told to the kubelet."""

    def plugin_connected(self, resource: str, *, prefers: bool) -> None:
        """A plugin registered and answered."""
        ...

    def plugin_listed(self, resource: str, devices: dict[str, bool]) -> None:
        """A plugin sent its device list: ID -> healthy."""
        ...

    def plugin_disconnected(self, resource: str) -> None:
        """A plugin's stream ended."""
        ...


def go_error(error: grpc.aio.AioRpcError) -> str:
    """Print a gRPC error as Go does: code in CamelCase, then the description."""
    code = error.code()
    name = "Canceled" if code is grpc.StatusCode.CANCELLED else code.name.title().replace("_", "")
    return f"rpc error: code = {name} desc = {error.details()}"


@dataclass(eq=False, slots=True)
class _Client:
    """The connection to one registered plugin."""

    resource: str
    channel: grpc.aio.Channel
    stub: pb_grpc.DevicePluginAsyncStub
    stream: asyncio.Task[None] | None = None


class DevicePlugins(pb_grpc.RegistrationServicer):
    """``device-plugins/kubelet.sock`` and the connections to the plugins that registered there."""

    def __init__(self, folder: Path, events: PluginEvents) -> None:
        self._folder = folder
        self._events = events
        self._server: grpc.aio.Server | None = None
        self._clients: dict[str, _Client] = {}  # resource -> the newest registration
        self._connections: set[_Client] = set()  # every open one

    async def start(self) -> None:
        """Remove every socket of the folder, the plugins' too, and serve."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for entry in self._folder.iterdir():
            if entry.is_socket():
                entry.unlink()
        self._server = await _serve(
            self._folder / "kubelet.sock",
            lambda server: pb_grpc.add_RegistrationServicer_to_server(self, server),
        )

    async def stop(self) -> None:
        """Drop every plugin and the socket."""
        for client in list(self._connections):
            await self._close(client)
        self._clients.clear()
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    async def Register(  # noqa: D102 - the wire's name; see deviceplugin.proto
        self, request: pb.RegisterRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.Empty:
        if request.version != VERSION:
            message = (
                f'requested API version "{request.version}" is not supported by kubelet. '
                f'Supported version is ["{VERSION}"]'
            )
            await context.abort(grpc.StatusCode.UNKNOWN, message)
        channel = grpc.aio.insecure_channel(
            f"unix:{self._folder / request.endpoint}", options=[("grpc.default_authority", "localhost")]
        )
        client = _Client(request.resource_name, channel, pb_grpc.DevicePluginStub(channel))
        self._connections.add(client)
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                await channel.channel_ready()
                options = await client.stub.GetDevicePluginOptions(pb.Empty())
        except (TimeoutError, grpc.aio.AioRpcError) as exc:
            await self._close(client)
            await context.abort(grpc.StatusCode.UNKNOWN, f"failed to dial device plugin: {exc}")
        self._clients[client.resource] = client
        self._events.plugin_connected(client.resource, prefers=options.get_preferred_allocation_available)
        client.stream = asyncio.create_task(self._follow(client), name=f"ListAndWatch {client.resource}")
        return pb.Empty()

    async def _follow(self, client: _Client) -> None:
        try:
            async for response in client.stub.ListAndWatch(pb.Empty()):
                devices = {device.ID: device.health == "Healthy" for device in response.devices}
                self._events.plugin_listed(client.resource, devices)
        except grpc.aio.AioRpcError:
            pass  # the plugin ended, or sent more than 4 MiB: the same to the kubelet
        # As in Kubernetes 1.36, the end of an old stream disconnects whichever registration is the newest: a plugin
        # that registers a second time before its first stream has ended loses both.
        newest = self._clients.pop(client.resource, None)
        await self._close(client)
        if newest is not None:
            self._events.plugin_disconnected(client.resource)
            await self._close(newest)

    async def _close(self, client: _Client) -> None:
        self._connections.discard(client)
        if client.stream is not None and client.stream is not asyncio.current_task():
            client.stream.cancel()
            await asyncio.gather(client.stream, return_exceptions=True)
        await client.channel.close()

    async def prefer(self, resource: str, *, available: list[str], must_include: list[str], size: int) -> list[str]:
        """Call GetPreferredAllocation."""
        request = pb.PreferredAllocationRequest(
            container_requests=[
                pb.ContainerPreferredAllocationRequest(
                    available_deviceIDs=available, must_include_deviceIDs=must_include, allocation_size=size
                )
            ]
        )
        try:
            response = await self._stub(resource).GetPreferredAllocation(request)
        except grpc.aio.AioRpcError as exc:
            raise PluginCallError(go_error(exc)) from exc
        answers = response.container_responses
        return list(answers[0].deviceIDs) if answers else []

    async def allocate(self, resource: str, ids: list[str]) -> pb.ContainerAllocateResponse:
        """Call Allocate."""
        request = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=ids)])
        try:
            response = await self._stub(resource).Allocate(request)
        except grpc.aio.AioRpcError as exc:
            raise PluginCallError(go_error(exc)) from exc
        if not response.container_responses:
            raise PluginCallError("no containers return in allocation response ")
        return response.container_responses[0]

    def _stub(self, resource: str) -> pb_grpc.DevicePluginAsyncStub:
        client = self._clients.get(resource)
        if client is None:
            raise PluginCallError(f"endpoint {resource} has been stopped")
        return client.stub


class PodResources(podresources_grpc.PodResourcesListerServicer):
    """``pod-resources/kubelet.sock``: answers from memory, at once."""

    def __init__(self, folder: Path, list_pods: Callable[[], podresources.ListPodResourcesResponse]) -> None:
        self._folder = folder
        self._list_pods = list_pods
        self._server: grpc.aio.Server | None = None
        self._tokens = float(LIST_BURST)
        self._filled_at = time.monotonic()

    async def start(self) -> None:
        """Serve."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._server = await _serve(
            self._folder / "kubelet.sock",
            lambda server: podresources_grpc.add_PodResourcesListerServicer_to_server(self, server),
        )

    async def stop(self) -> None:
        """Close the socket."""
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    async def List(  # noqa: D102 - the wire's name; see podresources.proto
        self, _request: podresources.ListPodResourcesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> podresources.ListPodResourcesResponse:
        now = time.monotonic()
        self._tokens = min(LIST_BURST, self._tokens + (now - self._filled_at) * LIST_PER_SECOND)
        self._filled_at = now
        if self._tokens < 1:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
        self._tokens -= 1
        return self._list_pods()


async def _serve(path: Path, register: Callable[[grpc.aio.Server], None]) -> grpc.aio.Server:
    server = grpc.aio.server()
    register(server)
    server.add_insecure_port(f"unix:{path}")
    try:
        await server.start()
    except BaseException:  # cancelled, for one: it must not outlive its event loop
        await server.stop(grace=None)
        raise
    return server
