"""The kubelet's side of the device plugin's sockets, as bare as it can be, so that what is timed is the plugin.

It keeps one resource's books: which device IDs are free, and which pod has which. Messages are sent as bytes that were
made before the clock starts. Left out: everything else that a kubelet does, and PodResources' limit of 100 calls a
second.
"""

import asyncio
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from grpc import RpcMethodHandler, aio, method_handlers_generic_handler, unary_unary_rpc_method_handler

from bench.cluster import CONTAINER, NAMESPACE, SEED
from bench.plugin import floor
from fracgpu.kubelet import deviceplugin_pb2 as pb
from fracgpu.kubelet import podresources_pb2 as podresources
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA

_PATIENCE_SECONDS: Final = 30.0
_SERVICE: Final = "v1beta1.DevicePlugin"
_ALL: Final = {RESOURCE_MEMORY, RESOURCE_REPLICA}
_UNLIMITED: Final = (("grpc.max_receive_message_length", -1),)


@dataclass(slots=True)
class Timed:
    """What the calls for one pod took, in seconds; the floor's are of messages of the same sizes.

    Attributes:
        prefer: GetPreferredAllocation.
        allocate: Allocate.
        prefer_floor: an echo for the former.
        allocate_floor: an echo for the latter.
        listed_floor: an echo for the latter that asks PodResources first.
        prefer_bytes: size of GetPreferredAllocation's request.
    """

    prefer: float
    allocate: float
    prefer_floor: float = 0.0
    allocate_floor: float = 0.0
    listed_floor: float = 0.0
    prefer_bytes: int = 0


@dataclass(slots=True)
class Books:
    """What the kubelet knows of one resource.

    Attributes:
        healthy: the IDs that were advertised.
        taken: pod name -> its IDs.
        message_bytes: resource -> size of the last ListAndWatch message.
    """

    healthy: list[str] = field(default_factory=list)
    taken: dict[str, list[str]] = field(default_factory=dict)
    message_bytes: dict[str, int] = field(default_factory=dict)


class BareKubelet:
    """One kubelet; PodResources lists the pods of `books.taken`, and the one under admission without devices.

    Args:
        folder: for its sockets.
    """

    def __init__(self, folder: Path) -> None:
        self.books = Books()
        self.plugins = folder / "kubelet.sock"
        self.pod_resources = folder / "pods.sock"
        self._folder = folder
        self._rng = random.Random(SEED)  # noqa: S311 (the same in every run)
        self._listing: dict[str, bytes] = {}  # pod name -> its entry in PodResources' answer
        self._servers: list[aio.Server] = []
        self._channels: dict[str, aio.Channel] = {}  # resource -> to its plugin
        self._streams: set[asyncio.Task[None]] = set()
        self._advertised = asyncio.Condition()
        self._floor: aio.Channel | None = None

    async def start(self) -> None:
        """Serve both sockets."""
        register: RpcMethodHandler[pb.RegisterRequest, bytes] = unary_unary_rpc_method_handler(
            self._register, pb.RegisterRequest.FromString
        )
        handler = method_handlers_generic_handler("v1beta1.Registration", {"Register": register})
        await self._serve(self.plugins, handler)
        listing: dict[str, RpcMethodHandler[bytes, bytes]] = {"List": unary_unary_rpc_method_handler(self._list)}
        await self._serve(self.pod_resources, method_handlers_generic_handler("v1.PodResourcesLister", listing))

    async def stop(self) -> None:
        """Hang up and close the sockets."""
        await self.forget_plugin()
        if self._floor is not None:
            await self._floor.close()
        for server in self._servers:
            await server.stop(grace=None)

    async def forget_plugin(self) -> None:
        """Hang up on the plugin, so that `advertised` waits for the next."""
        for stream in self._streams:
            stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()
        self.books.message_bytes.clear()

    async def advertised(self) -> float:
        """Wait until both resources were listed; returns when that was, by `time.time`."""
        async with asyncio.timeout(_PATIENCE_SECONDS), self._advertised:
            await self._advertised.wait_for(lambda: self.books.message_bytes.keys() >= _ALL)
        return time.time()

    def beside(self, socket: Path) -> None:
        """Measure a floor on this socket in turns with the plugin."""
        self._floor = aio.insecure_channel(f"unix:{socket}", options=_UNLIMITED)

    async def admit(self, name: str, size: int) -> Timed:
        """Admit one pod as the kubelet does; afterwards it has its devices.

        Raises:
            AioRpcError: the plugin refused.
        """
        self._listing[name] = _entry(name, [])
        taken = {text for ids in self.books.taken.values() for text in ids}
        free = [text for text in self.books.healthy if text not in taken]
        self._rng.shuffle(free)  # a Go map: no order
        asked = pb.ContainerPreferredAllocationRequest(available_deviceIDs=free, allocation_size=size)
        request = pb.PreferredAllocationRequest(container_requests=[asked]).SerializeToString()
        prefer, answer = await self._call("GetPreferredAllocation", request)
        ids = list(pb.PreferredAllocationResponse.FromString(answer).container_responses[0].deviceIDs)
        chosen = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=ids)])
        allocate, given = await self._call("Allocate", chosen.SerializeToString())
        timed = Timed(prefer, allocate, prefer_bytes=len(request))
        if self._floor is not None:
            timed.prefer_floor = await self._echo("Echo", request, len(answer))
            timed.allocate_floor = await self._echo("Echo", chosen.SerializeToString(), len(given))
            timed.listed_floor = await self._echo("Listed", chosen.SerializeToString(), len(given))
        self.books.taken[name] = ids
        self._listing[name] = _entry(name, ids)
        return timed

    def remove(self, name: str) -> None:
        """Forget a pod that has ended."""
        del self.books.taken[name], self._listing[name]

    async def _call(self, method: str, request: bytes) -> tuple[float, bytes]:
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channels[RESOURCE_MEMORY].unary_unary(
            f"/{_SERVICE}/{method}"
        )
        began = time.perf_counter()
        answer = await call(request)
        return time.perf_counter() - began, answer

    async def _echo(self, method: str, request: bytes, answer_bytes: int) -> float:
        assert self._floor is not None  # noqa: S101 (asked only where there is one)
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = self._floor.unary_unary(f"/{floor.SERVICE}/{method}")
        payload = answer_bytes.to_bytes(4) + request[4:]
        began = time.perf_counter()
        await call(payload)
        return time.perf_counter() - began

    async def _serve(self, socket: Path, handler: Any) -> None:
        server = aio.server()
        server.add_generic_rpc_handlers((handler,))
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        self._servers.append(server)

    async def _register(self, request: pb.RegisterRequest, _context: Any) -> bytes:
        channel = aio.insecure_channel(f"unix:{self._folder / request.endpoint}")
        self._channels[request.resource_name] = channel
        stream = asyncio.create_task(self._follow(request.resource_name, channel), name="ListAndWatch")
        self._streams.add(stream)
        stream.add_done_callback(self._streams.discard)
        return b""

    async def _follow(self, resource: str, channel: aio.Channel) -> None:
        call: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"/{_SERVICE}/ListAndWatch")
        async for message in call(b""):
            async with self._advertised:
                self.books.message_bytes[resource] = len(message)
                if resource == RESOURCE_MEMORY:
                    devices = pb.ListAndWatchResponse.FromString(message).devices
                    self.books.healthy = [device.ID for device in devices if device.health == "Healthy"]
                self._advertised.notify_all()

    async def _list(self, _request: bytes, _context: Any) -> bytes:
        return b"".join(self._listing.values())  # messages of a repeated field, one after the other, are one message


def _entry(name: str, ids: list[str]) -> bytes:
    """A pod in PodResources' answer: the kubelet makes an entry for each device."""
    devices = [podresources.ContainerDevices(resource_name=RESOURCE_MEMORY, device_ids=[text]) for text in ids]
    container = podresources.ContainerResources(name=CONTAINER, devices=devices)
    pod = podresources.PodResources(name=name, namespace=NAMESPACE, containers=[container])
    return podresources.ListPodResourcesResponse(pod_resources=[pod]).SerializeToString()
