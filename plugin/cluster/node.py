"""This node as the API server knows it: its labels, by which sharing is declared, and what else is advertised on it."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from fracgpu.errors import SettingError
from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.kube.reflector import Change, Reflector
from fracgpu.kube.resources import NODES
from fracgpu.names import NodeName
from fracgpu.nodes import Node
from fracgpu.trouble import Backoff, TroubleLog

_NVIDIA_DEVICES: Final = ("nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-")

_logger = logging.getLogger(__name__)


class NodeWatch:
    """Follows one Node.

    Args:
        client: how to reach the API server.
        node: its name.
        on_labels: called when its labels have changed.
    """

    def __init__(self, client: KubeClient, node: NodeName, *, on_labels: Callable[[], None]) -> None:
        self._client = client
        self._name = node
        self._on_labels = on_labels
        self._labels: Mapping[str, str] = {}
        self._offered = ""  # by NVIDIA's plugin
        self._reflector = Reflector(client, NODES, on_change=self._changed, field_selector=f"metadata.name={node}")
        self._backoff = Backoff(max_seconds=10.0)
        self._trouble = TroubleLog(_logger, subject="reading the node", clock=time.monotonic)

    @property
    def labels(self) -> Mapping[str, str]:
        """The node's labels, as new as known."""
        return self._labels

    async def first(self) -> Node:
        """Read the node; tries until the API server answers and the node is there."""
        while True:
            try:
                node = await self._client.get(NODES, self._name)
            except KubeError as exc:
                self._trouble.failed(exc)
                await asyncio.sleep(self._backoff.next_seconds())
                continue
            self._trouble.succeeded()
            self._labels = node.metadata.labels or {}
            self._offered = offered_by_nvidia(node)
            return node

    async def run(self) -> None:
        """Follow the node until cancelled."""
        await self._reflector.run()

    def _changed(self, change: Change[Node]) -> None:
        offered = offered_by_nvidia(change.object)
        if offered and not self._offered:
            _logger.error(
                "this node advertises GPUs of another device plugin now: their memory is promised twice",
                extra={"resources": offered},
            )
        self._offered = offered
        labels = change.object.metadata.labels or {}
        if labels != self._labels:
            self._labels = labels
            self._on_labels()


def offered_by_nvidia(node: Node) -> str:
    """What NVIDIA's device plugin advertises on a node, as text; empty where it does not."""
    capacity = (node.status and node.status.capacity) or {}
    return ", ".join(
        f"{name}: {count}"
        for name, count in sorted(capacity.items())
        if name.startswith(_NVIDIA_DEVICES) and str(count) != "0"
    )


def refuse_beside_nvidia(node: Node) -> None:
    """Refuse a node on which NVIDIA's device plugin offers GPUs: the same memory would be promised twice.

    Raises:
        SettingError: it does; says what to do.
    """
    offered = offered_by_nvidia(node)
    if offered:
        raise SettingError(
            f"node {node.metadata.name} advertises {offered} too: the memory of these GPUs would be "
            "promised twice. Keep NVIDIA's device plugin away from this node (with the GPU Operator by the label "
            "nvidia.com/gpu.deploy.device-plugin=false), and restart the kubelet where the resource stays; or, only if "
            "that plugin serves other GPUs than this one, set --allow-nvidia-device-plugin"
        )
