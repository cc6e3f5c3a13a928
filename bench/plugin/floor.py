"""The floor: a bare grpc.aio server on a Unix socket that echoes sizes, in a process of its own.

A request begins with the length of the answer that it wants (4 bytes, the most significant first). ``Echo`` sends that
many bytes; ``Listed`` first asks PodResources as the plugin does, so that the difference between the two is what that
costs. ``python -m bench.plugin.floor --socket S --pod-resources-socket P``.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any, Final

from grpc import RpcMethodHandler, aio, method_handlers_generic_handler, unary_unary_rpc_method_handler

from fracgpu.process.running import announce_ready, prepare_process, run_service
from fracgpu.process.settings import ServiceSettings
from plugin.kubelet.podresources import PodResourcesClient

SERVICE: Final = "floor.Floor"


class FloorSettings(ServiceSettings):
    """A device plugin that does nothing, for benchmarks."""

    socket: Path
    """Where to listen."""

    pod_resources_socket: Path
    """The socket of PodResources."""


async def _serve(stop: asyncio.Event) -> None:
    settings = FloorSettings.load(sys.argv[1:])
    prepare_process(settings)
    devices = PodResourcesClient(settings.pod_resources_socket)

    async def echo(request: bytes, _context: Any) -> bytes:
        return bytes(int.from_bytes(request[:4]))

    async def listed(request: bytes, _context: Any) -> bytes:
        await devices.list()
        return bytes(int.from_bytes(request[:4]))

    server = aio.server()
    methods: dict[str, RpcMethodHandler[bytes, bytes]] = {
        "Echo": unary_unary_rpc_method_handler(echo),
        "Listed": unary_unary_rpc_method_handler(listed),
    }
    server.add_generic_rpc_handlers((method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(f"unix:{settings.socket}")
    await server.start()
    announce_ready(f"unix:{settings.socket}", ready_file=settings.ready_file)
    await stop.wait()
    await server.stop(grace=None)
    await devices.close()


if __name__ == "__main__":
    sys.exit(run_service(_serve))
