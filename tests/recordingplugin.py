"""A small device plugin of the tests' own: it records what the kubelet does and answers what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from fracgpu.kubelet import deviceplugin_pb2 as pb
from fracgpu.kubelet import deviceplugin_pb2_grpc as pb_grpc
from fracgpu.kubelet import podresources_pb2 as podresources
from fracgpu.kubelet import podresources_pb2_grpc as podresources_grpc

MANY_BYTES = 16 * 1024 * 1024

Listing = dict[str, dict[str, dict[str, set[str]]]]
"""What PodResources shows: pod name -> container -> resource -> device IDs."""

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class Call:
    """One call of the kubelet, with what PodResources showed while it was being answered."""

    method: str
    ids: frozenset[str]
    must_include: frozenset[str] = frozenset()
    size: int = 0
    listing: Listing = field(default_factory=dict)


async def list_pod_resources(socket: Path) -> Listing:
    """Ask the kubelet's PodResources API once, waiting where it refuses more than 10 calls at once, 100 a second."""
    async with grpc.aio.insecure_channel(
        f"unix:{socket}", options=[("grpc.max_receive_message_length", MANY_BYTES)]
    ) as channel:
        stub = podresources_grpc.PodResourcesListerStub(channel)
        while True:
            try:
                answer = await stub.List(podresources.ListPodResourcesRequest(), wait_for_ready=True)
                break
            except grpc.aio.AioRpcError as exc:
                if exc.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                await asyncio.sleep(0.02)
    listing: Listing = {}
    for pod in answer.pod_resources:
        containers = listing[pod.name] = {}
        for container in pod.containers:
            resources: dict[str, set[str]] = {}
            for devices in container.devices:
                resources.setdefault(devices.resource_name, set()).update(devices.device_ids)
            containers[container.name] = resources
    return listing


async def answer_env(call: Call) -> pb.ContainerAllocateResponse:
    """Answer Allocate as a GPU plugin would."""
    return pb.ContainerAllocateResponse(
        envs={"FROM_PLUGIN": "1", "CHOSEN": ",".join(sorted(call.ids))},
        cdi_devices=[pb.CDIDevice(name="example.com/gpu=0")],
    )


class RecordingPlugin(pb_grpc.DevicePluginServicer):
    """One resource's plugin; ``calls`` fills up, ``next_call`` waits for one."""

    def __init__(
        self,
        resource: str,
        ids: Iterable[str],
        *,
        folder: Path,
        pod_resources: Path | None = None,
        prefer: Callable[[Call], list[str]] | None = None,
        allocate: Callable[[Call], Awaitable[pb.ContainerAllocateResponse]] = answer_env,
        socket: str = "",
    ) -> None:
        self.resource = resource
        self.socket = socket or f"{resource.replace('/', '-')}.sock"
        self.calls: list[Call] = []
        self.option_requests = 0
        self.listened = asyncio.Event()  # set as soon as the kubelet reads the device list
        self.stream_ended = asyncio.Event()
        self._ids = dict.fromkeys(ids, "Healthy")
        self._folder = folder
        self._pod_resources = pod_resources
        self._prefer = prefer
        self._allocate = allocate
        self._arrived: asyncio.Queue[Call] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Serve on a socket beside kubelet.sock and register."""
        await self.serve()
        await self.register()

    async def serve(self) -> None:
        """Serve, without registering."""
        self._server = grpc.aio.server()
        pb_grpc.add_DevicePluginServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{self._folder / self.socket}")
        await self._server.start()

    async def register(self, *, version: str = "v1beta1") -> None:
        """Announce the plugin and wait until the kubelet reads its device list."""
        self.listened.clear()
        request = pb.RegisterRequest(
            version=version,
            endpoint=self.socket,
            resource_name=self.resource,
            options=pb.DevicePluginOptions(get_preferred_allocation_available=self._prefer is not None),
        )
        async with grpc.aio.insecure_channel(f"unix:{self._folder / 'kubelet.sock'}") as channel:
            await pb_grpc.RegistrationStub(channel).Register(request, wait_for_ready=True)
        await self.listened.wait()

    async def stop(self) -> None:
        """End as a plugin that is shut down: its socket goes."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(grace=None)
            (self._folder / self.socket).unlink(missing_ok=True)

    def set_health(self, **health: str) -> None:
        """Change the health of devices and send the list again."""
        self._ids.update(health)
        self._changed.set()

    async def next_call(self) -> Call:
        """Wait for the kubelet's next call that no test has taken yet."""
        return await self._arrived.get()

    def allocated(self) -> list[frozenset[str]]:
        """Return the IDs of every Allocate so far."""
        return [call.ids for call in self.calls if call.method == "Allocate"]

    async def GetDevicePluginOptions(self, request: pb.Empty, context: Context) -> pb.DevicePluginOptions:
        self.option_requests += 1
        return pb.DevicePluginOptions(get_preferred_allocation_available=self._prefer is not None)

    async def ListAndWatch(self, request: pb.Empty, context: Context) -> AsyncIterator[pb.ListAndWatchResponse]:
        self.stream_ended.clear()
        self.listened.set()
        try:
            while True:
                self._changed.clear()
                yield pb.ListAndWatchResponse(
                    devices=[pb.Device(ID=device, health=health) for device, health in self._ids.items()]
                )
                await self._changed.wait()
        finally:
            self.stream_ended.set()

    async def GetPreferredAllocation(
        self, request: pb.PreferredAllocationRequest, context: Context
    ) -> pb.PreferredAllocationResponse:
        asked = request.container_requests[0]
        call = await self._record(
            "GetPreferredAllocation",
            asked.available_deviceIDs,
            must_include=asked.must_include_deviceIDs,
            size=asked.allocation_size,
        )
        assert self._prefer is not None
        try:
            response = pb.ContainerPreferredAllocationResponse(deviceIDs=self._prefer(call))
        except PermissionError as exc:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(exc))
        return pb.PreferredAllocationResponse(container_responses=[response])

    async def Allocate(self, request: pb.AllocateRequest, context: Context) -> pb.AllocateResponse:
        call = await self._record("Allocate", request.container_requests[0].devices_ids)
        try:
            return pb.AllocateResponse(container_responses=[await self._allocate(call)])
        except PermissionError as exc:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(exc))

    async def PreStartContainer(
        self, request: pb.PreStartContainerRequest, context: Context
    ) -> pb.PreStartContainerResponse:
        raise AssertionError("PreStartContainer was never asked for")

    async def _record(
        self, method: str, ids: Iterable[str], *, must_include: Iterable[str] = (), size: int = 0
    ) -> Call:
        listing = await list_pod_resources(self._pod_resources) if self._pod_resources else {}
        call = Call(method, frozenset(ids), frozenset(must_include), size, listing)
        self.calls.append(call)
        self._arrived.put_nowait(call)
        return call
