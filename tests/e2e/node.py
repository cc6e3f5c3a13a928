"""A real kubelet with the real device plugin on two simulated GPUs."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cli.simulation import SimulatedNode
from fracgpu.device_ids import parse_device_id
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid, PodUid
from fracgpu.quantities import seat_units
from playground.cluster import JsonObject
from playground.node import cri_pb2 as pb
from playground.node.cgroups import CgroupTree
from playground.node.cri import (
    LABEL_CONTAINER,
    LABEL_POD_UID,
    ContainerRuntimeStub,
    Context,
    CriContainer,
    end_at_once,
)
from playground.node.nvml import write_state
from tests.conformance.lab import poll
from tests.deploy.conftest import PLUGIN
from tests.e2e.cluster import Cluster
from tests.nodebench import PATIENCE_SECONDS, until
from tests.realkubelet import KUBELET_USER, NODE, RealKubelet
from tests.recordingplugin import list_pod_resources

GPU_MIB: Final = 10240
UNITS: Final = 20
SEATS: Final = 4
LABEL_POD_NAME: Final = "io.kubernetes.pod.name"


class CountingRuntime(ContainerRuntimeStub):
    """The container runtime, with a cgroup per container, and a count of the device IDs that living containers hold.

    Attributes:
        overcommitted: what was ever wrong at the start of a container, one sentence each.
    """

    def __init__(self, cgroups: CgroupTree, pod_resources: Path) -> None:
        super().__init__()
        self.overcommitted: list[str] = []
        self._cgroups = cgroups
        self._pod_resources = pod_resources
        self._ids: dict[str, frozenset[str]] = {}  # container ID -> the device IDs it was started with
        self._pids: dict[str, int] = {}  # container ID -> its process
        self._next_pid = itertools.count(4_000_001)  # nobody's: above what Linux gives

    def ids_of(self, container: CriContainer) -> frozenset[str]:
        """The device IDs that the kubelet had given a container when it started."""
        return self._ids[container.status.id]

    def held(self) -> list[str]:
        """The device IDs that living containers hold, repeated where two hold the same one."""
        return [text for found in self.containers if found.is_running for text in self._ids.get(found.status.id, ())]

    def used_units(self) -> dict[GpuUuid, int]:
        """GPU -> units that living containers hold."""
        used: Counter[GpuUuid] = Counter()
        for (gpu, resource), count in Counter((i.gpu, i.resource) for i in map(parse_device_id, self.held())).items():
            used[gpu] += count if resource == RESOURCE_MEMORY else seat_units(count, replicas=SEATS, units=UNITS)
        return dict(used)

    async def StartContainer(self, request: pb.StartContainerRequest, context: Context) -> pb.StartContainerResponse:
        """Start it, and note what it holds."""
        container = await self._existing(request.container_id, context)
        labels, container_id = container.config.labels, container.status.id
        listing = await list_pod_resources(self._pod_resources)
        resources = listing.get(labels[LABEL_POD_NAME], {}).get(labels[LABEL_CONTAINER], {})
        self._ids[container_id] = frozenset().union(*resources.values())
        self._pids[container_id] = next(self._next_pid)
        pod = {"metadata": {"uid": labels[LABEL_POD_UID]}, "status": {"qosClass": "BestEffort"}}
        self._cgroups.enter(self._pids[container_id], pod=pod, container_id=container_id)
        response = await super().StartContainer(request, context)
        self._check(labels[LABEL_POD_NAME])
        return response

    def finish(self, container: CriContainer, exit_code: int) -> None:
        """End a container's process."""
        if container.is_running:
            self._cgroups.leave(self._pids.pop(container.status.id))
        super().finish(container, exit_code)

    def _check(self, name: str) -> None:
        self.overcommitted += [
            f"{gpu} gave {units} of {UNITS} units when {name} started"
            for gpu, units in self.used_units().items()
            if units > UNITS
        ]


class RealNode:
    """Kubelet, container runtime and device plugin of one node.

    Attributes:
        name: of the Node.
        gpus: the UUIDs of its GPUs, each of ``UNITS`` units and ``SEATS`` seats.
        kubelet, runtime, plugin: the parts.
        nvml_state: what NVML says of the GPUs (see `playground.node.nvml`).
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.name = NODE
        self.kubelet = RealKubelet(folder, kubeconfig=cluster.plane.kubeconfig(KUBELET_USER))
        cgroup_root = folder / "cgroup"
        self._cgroups = CgroupTree(cgroup_root)
        self.runtime = CountingRuntime(self._cgroups, self.kubelet.pod_resources_socket)
        self.kubelet.runtime = self.runtime
        simulated = SimulatedNode(self.name, "Simulated GPU", GPU_MIB, 2).gpus()
        self.gpus = [GpuUuid(gpu.uuid) for gpu in simulated]
        self.nvml_state = folder / "gpus.json"
        write_state(self.nvml_state, simulated)
        self.plugin = cluster.service(
            *("plugin", "-m", "playground.node.plugin_launcher", str(self.nvml_state), "--"),
            *("--node-name", self.name, "--kubeconfig", str(cluster.plane.kubeconfig(PLUGIN))),
            *("--kubelet-socket", str(self.kubelet.plugins_folder / "kubelet.sock")),
            *("--port", "0"),
            *("--pod-resources-socket", str(self.kubelet.pod_resources_socket)),
            *("--cgroup-root", str(cgroup_root)),
        )
        self._cluster = cluster
        self._let_end: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Start it; returns when pods can be placed on it."""
        self._cgroups.prepare()
        await self.kubelet.start()
        await self.plugin.start()
        await self.plugin.ready()
        await self.offers_gpus()
        await until(self._cluster.api, "nodes", self.name, _is_ready)
        await self._cluster.admit_node(self.name)
        await self._cluster.gpunode(self.name)

    async def stop(self) -> None:
        """End everything."""
        await self.plugin.stop()
        await self.kubelet.stop()

    async def restart_kubelet(self) -> None:
        """Restart the kubelet, and wait for the plugin to be known to it: pods that it admits before, it refuses."""
        known = self._registrations()
        await self.kubelet.restart()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self._registrations() < known + 2:  # noqa: ASYNC110 (nobody here could set an event)
                await asyncio.sleep(0.1)

    def _registrations(self) -> int:
        return self.plugin.log.read_text().count('"event":"registered"')

    async def offers_gpus(self, *, units: int = 2 * UNITS, seats: int = 2 * SEATS) -> JsonObject:
        """Wait until the Node offers so many units and seats of its GPUs; without an argument, all."""
        want = {RESOURCE_MEMORY: str(units), RESOURCE_REPLICA: str(seats)}
        return await until(
            self._cluster.api,
            "nodes",
            self.name,
            lambda found: want.items() <= found.get("status", {}).get("allocatable", {}).items(),
        )

    async def clean(self) -> None:
        """Delete all pods, let their processes end, and wait until nothing is held."""
        self._let_end()
        self.runtime.on_sigterm = end_at_once
        await self._cluster.clean()
        await poll(self._has_no_process)  # first: a grant may be published after its pod is gone
        await self._cluster.grants(self.name, lambda names: not names)

    async def _has_no_process(self) -> bool:
        return not any(container.is_running for container in self.runtime.containers)

    def container(self, uid: PodUid, name: str = "main") -> CriContainer:
        """The newest container of that name."""
        found = self.runtime.latest(uid, name)
        assert found is not None
        return found

    def let_processes_live_on(self) -> Callable[[], None]:
        """Make processes ignore SIGTERM until the returned function is called, or the test is over."""
        may_end = asyncio.Event()

        async def wait(_: CriContainer) -> None:
            await may_end.wait()

        self.runtime.on_sigterm = wait
        self._let_end = may_end.set
        return may_end.set


def _is_ready(node: dict[str, object]) -> bool:
    status = node.get("status")
    conditions = status.get("conditions", []) if isinstance(status, dict) else []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
