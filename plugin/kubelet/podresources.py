"""Asks the kubelet what it has given to whom: its PodResources interface, over a Unix socket.

The only client of that socket. Left out: matching the answer to pods (`grants`, `admission`).
"""

import asyncio
from pathlib import Path
from typing import Final

import grpc
from grpc import aio

from fracgpu.errors import UnavailableError
from fracgpu.kubelet.podresources_pb2 import (
    ContainerResources,
    ListPodResourcesRequest,
    ListPodResourcesResponse,
    PodResources,
)
from fracgpu.kubelet.podresources_pb2_grpc import PodResourcesListerStub
from plugin.gpus.layout import RESOURCES
from plugin.granting.listing import ListedPod, Listing

LIST_SECONDS: Final = 1.0
"""How long an answer may take; the kubelet, which takes 1 ms, admits nothing meanwhile."""
_RATE_LIMIT_SECONDS: Final = 0.02  # the kubelet answers 100 calls a second, 10 at once, and refuses the others

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 16 * 2**20),  # what the kubelet's own client of this interface allows
    # The socket is a new one after each start of the kubelet: find it at once, not after gRPC's usual 1 to 120 s.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


class PodResourcesClient:
    """A client of one kubelet; to be closed."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._channel = aio.insecure_channel(f"unix:{socket}", options=_OPTIONS)
        self._stub = PodResourcesListerStub(self._channel)

    async def list(self) -> Listing:
        """What each pod holds of fracgpu's resources, pods that hold nothing included.

        Raises:
            UnavailableError: no answer within `LIST_SECONDS`, or an error for an answer.
        """
        try:
            async with asyncio.timeout(LIST_SECONDS):
                answer = await self._ask()
        except (TimeoutError, grpc.RpcError) as exc:
            reason = exc.details() if isinstance(exc, aio.AioRpcError) else f"no answer in {LIST_SECONDS} s"
            raise UnavailableError(f"the kubelet's PodResources at {self._socket} does not answer: {reason}") from exc
        return tuple(_listed(pod) for pod in answer.pod_resources)

    async def _ask(self) -> ListPodResourcesResponse:
        while True:
            try:
                return await self._stub.List(ListPodResourcesRequest(), wait_for_ready=True)
            except aio.AioRpcError as exc:
                if exc.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
            await asyncio.sleep(_RATE_LIMIT_SECONDS)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


def _listed(pod: PodResources) -> ListedPod:
    return ListedPod(f"{pod.namespace}/{pod.name}", {container.name: _held(container) for container in pod.containers})


def _held(container: ContainerResources) -> dict[str, frozenset[str]]:
    held: dict[str, set[str]] = {}
    for devices in container.devices:  # the kubelet makes an entry for each device
        if devices.resource_name in RESOURCES:
            held.setdefault(devices.resource_name, set()).update(devices.device_ids)
    return {resource: frozenset(ids) for resource, ids in held.items()}
