"""The Node object of a simulated node: created ready, its extended resources kept as the device manager counts them.

Left out: leases, taints, images, IP addresses; nobody here asks whether a kubelet is still alive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fracgpu.names import NodeName
from playground.cluster import ApiStatusError, ClusterApi, JsonObject
from playground.node.containers import timestamp

log = logging.getLogger(__name__)

PERIOD_SECONDS = 10.0
"""How often the kubelet looks at its capacity without being told of a change."""

_INFO = {
    "architecture": "amd64",
    "bootID": "",
    "containerRuntimeVersion": "playground://1",
    "kernelVersion": "none",
    "kubeProxyVersion": "",
    "kubeletVersion": "v1.36.2+playground",
    "machineID": "",
    "operatingSystem": "linux",
    "osImage": "fracgpu playground",
    "systemUUID": "",
}
"""What ``kubectl get nodes -o wide`` shows."""

Capacity = Callable[[], tuple[dict[str, int], dict[str, int]]]
"""Return capacity and allocatable by resource."""


class NodeStatus:
    """Writes one Node."""

    def __init__(self, *, cluster: ClusterApi, node_name: NodeName, capacity: Capacity) -> None:
        self._cluster = cluster
        self._node_name = node_name
        self._capacity = capacity
        self._changed = asyncio.Event()

    async def create(self) -> None:
        """Create the Node, or take over the one that is there."""
        amounts = {"cpu": "64", "memory": "256Gi", "pods": "110"}
        labels = {"kubernetes.io/hostname": self._node_name, "kubernetes.io/os": "linux"}
        now = timestamp()
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "playground",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self._node_name, "labels": labels},
            "status": {
                "capacity": amounts,
                "allocatable": amounts,
                "conditions": [ready],
                "addresses": [{"type": "Hostname", "address": self._node_name}],
                "nodeInfo": _INFO,
            },
        }
        try:
            await self._cluster.create("nodes", node)
        except ApiStatusError as exc:
            if exc.reason != "AlreadyExists":
                raise

    def look_again(self) -> None:
        """Devices changed."""
        self._changed.set()

    async def run(self) -> None:
        """Keep the extended resources of the Node up to date, for ever."""
        reported: JsonObject = {}
        while True:
            self._changed.clear()
            capacity, allocatable = self._capacity()
            status = {
                "capacity": {resource: str(count) for resource, count in capacity.items()},
                "allocatable": {resource: str(count) for resource, count in allocatable.items()},
            }
            if status != reported:
                try:
                    await self._cluster.patch("nodes", self._node_name, {"status": status}, subresource="status")
                    reported = status
                except ApiStatusError as exc:
                    log.warning("status of node %s not written: %s", self._node_name, exc)
            try:
                async with asyncio.timeout(PERIOD_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue  # the grace of a stopped plugin may have passed
