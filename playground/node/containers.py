"""The container runtime of a simulated node: what really runs, whatever the kubelet or the API server believe.

Containers outlive a kubelet restart and a force deletion; they end only when their process ends. This is where tests
count ("nothing was over-committed"). A process is a number in the cgroup tree and, where the container sees GPUs, in
the NVML state file. Left out: images, sandboxes, logs.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fracgpu.names import CDI_KIND, PodUid
from playground.cluster import JsonObject
from playground.node.cgroups import CgroupTree
from playground.node.devicemanager import ContainerKind
from playground.node.nvml import GpuProcess, set_process

EXIT_SIGTERM = 143
PROCESS_MIB = 256
"""What a simulated process uses on each of its GPUs: the size of a CUDA context."""

_pids = itertools.count(2**22 + 1)  # above Linux' largest pid_max: never a real process


def timestamp() -> str:
    """Return now, as the API server writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """What the kubelet asks of the runtime for one container."""

    pod: JsonObject
    name: str
    kind: ContainerKind
    env: tuple[tuple[str, str], ...]  # in order: a later one overrides
    cdi_devices: tuple[str, ...]
    device_ids: dict[str, frozenset[str]]  # resource -> IDs
    restart_count: int = 0

    @property
    def pod_uid(self) -> PodUid:
        """The UID of the container's pod."""
        return PodUid(self.pod["metadata"]["uid"])


@dataclass(eq=False, slots=True)
class Container:
    """One container, running as long as ``exit_code`` is None."""

    config: ContainerConfig
    id: str = field(default_factory=lambda: secrets.token_hex(32))
    pid: int = field(default_factory=lambda: next(_pids))
    exit_code: int | None = None
    started_at: str = field(default_factory=timestamp)
    finished_at: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Task[None] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What the process sees: the last value of a name wins."""
        return dict(self.config.env)

    def visible_gpus(self) -> set[str]:
        """Return the UUIDs or indices that the NVIDIA container toolkit would inject; "all" is possible."""
        named = {uuid for uuid in self.environment.get("NVIDIA_VISIBLE_DEVICES", "").split(",") if uuid}
        by_cdi = (name.partition("=") for name in self.config.cdi_devices)
        return named | {device for kind, _, device in by_cdi if kind == CDI_KIND}


async def end_at_once(_container: Container) -> None:
    """How a well-behaved process reacts to SIGTERM."""


class ContainerRuntime:
    """The containers of one node."""

    def __init__(self, *, cgroups: CgroupTree, nvml_state: Path | None = None) -> None:
        """Start with nothing running.

        Args:
            cgroups: where processes appear.
            nvml_state: the state file where processes that see GPUs appear; None for a node without GPUs.
        """
        self._cgroups = cgroups
        self._nvml_state = nvml_state
        self.containers: list[Container] = []  # every container ever created, in order
        self.on_sigterm: Callable[[Container], Awaitable[None]] = end_at_once
        """Awaited after SIGTERM; the process ends when it returns. Tests replace it to let a process live on."""

    def start(self, config: ContainerConfig) -> Container:
        """Create a container and its process."""
        container = Container(config)
        self.containers.append(container)
        self._cgroups.enter(container.pid, pod=config.pod, container_id=container.id)
        if config.device_ids:
            self._set_gpu_process(container, alive=True)
        return container

    def end(self, container: Container, exit_code: int) -> None:
        """End the process."""
        if container.exit_code is not None:
            return
        container.exit_code, container.finished_at = exit_code, timestamp()
        self._cgroups.leave(container.pid)
        if container.config.device_ids:
            self._set_gpu_process(container, alive=False)
        container.ended.set()

    async def stop(self, container: Container) -> None:
        """Send SIGTERM once and wait for the end; the process ends even if the caller stops waiting."""
        if container.stopping is None:
            container.stopping = asyncio.create_task(self._terminate(container), name=f"stop {container.id}")
        await container.ended.wait()

    async def _terminate(self, container: Container) -> None:
        await self.on_sigterm(container)
        self.end(container, EXIT_SIGTERM)

    def alive(self, pod_uid: PodUid | None = None) -> list[Container]:
        """Return the running containers, of one pod or of all."""
        return [
            container
            for container in self.containers
            if container.exit_code is None and pod_uid in (None, container.config.pod_uid)
        ]

    def latest(self, pod_uid: PodUid, name: str) -> Container | None:
        """Return the newest container of that name, running or not."""
        named = (c for c in reversed(self.containers) if (c.config.pod_uid, c.config.name) == (pod_uid, name))
        return next(named, None)

    def held_device_ids(self) -> dict[tuple[PodUid, str], dict[str, frozenset[str]]]:
        """Return (pod, container) -> resource -> device IDs, for every process that is alive."""
        return {
            (container.config.pod_uid, container.config.name): container.config.device_ids
            for container in self.alive()
            if container.config.device_ids
        }

    def _set_gpu_process(self, container: Container, *, alive: bool) -> None:
        if self._nvml_state is None:
            return
        process = GpuProcess(pid=container.pid, used_mib=PROCESS_MIB)
        set_process(self._nvml_state, process, on=container.visible_gpus() if alive else ())

    async def close(self) -> None:
        """End everything, as a reboot does."""
        for container in self.alive():
            self.end(container, 137)
        stopping = [container.stopping for container in self.containers if container.stopping]
        for task in stopping:
            task.cancel()
        await asyncio.gather(*stopping, return_exceptions=True)
