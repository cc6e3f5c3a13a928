"""MPS: one process of NVIDIA's serves all containers of a GPU, and the CUDA driver in each process keeps its limits.

The limits are per process, and variables that a process may unset: they hold in programs by accident, not by force. So
this is never called enforced. The daemon itself is kept up in `mps_daemon`.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fracgpu.errors import NoRoomError, UnavailableError
from fracgpu.gpunodes import IsolationStatus
from fracgpu.names import GpuUuid
from plugin.gpus.cards import Card
from plugin.handout import Edits, LentShare, Mount
from plugin.isolation.driver_limit import driver_major
from plugin.isolation.mechanism import sentences
from plugin.isolation.mps_daemon import MpsDaemon
from plugin.isolation.shares import in_container_order, smallest_core_percent

CONTROL: Final = "nvidia-cuda-mps-control"
_FIRST_DRIVER: Final = 495  # CUDA 11.5: limits of device memory
_FIRST_CAPABILITY: Final = (7, 0)  # Volta: limits for each client
_CLIENTS: Final = 48
_MORE_CLIENTS: Final = 60
_MORE_CLIENTS_DRIVER: Final = 590  # CUDA 13.1
_LONGEST_SOCKET: Final = 107  # bytes of a Unix socket's path
_MEANING: Final = (
    "the CUDA driver refuses each process more GPU memory than its container's share, but counts each process by "
    "itself, and a process may unset the variables that say so: this stops mistakes, not malice"
)


@dataclass(frozen=True, slots=True)
class MpsNeeds:
    """What has to be there.

    Attributes:
        root: the setting mps_root.
        control: where nvidia-cuda-mps-control was found, see `find_control`.
        driver_version: as NVML says it.
        cards: the GPUs that are shared.
        capabilities: GPU -> its compute capability, major and minor.
    """

    root: Path | None
    control: Path | None
    driver_version: str
    cards: Sequence[Card]
    capabilities: Mapping[GpuUuid, tuple[int, int]]

    @property
    def obstacle(self) -> str:
        """Why this node has no MPS, as a part of a sentence; empty where it has."""
        if self.root is None:
            return "it needs a folder of the host for its pipes and shared memory (mps_root), and none is set"
        if not self.root.is_absolute():
            return f"mps_root has to be an absolute path, and is {self.root}"
        if len(str(self.root / "pipe" / "control_privileged").encode()) > _LONGEST_SOCKET:
            return f"mps_root is too long: {self.root}/pipe/control_privileged has more than {_LONGEST_SOCKET} bytes"
        if self.control is None:
            return f"{CONTROL} is neither on this plugin's PATH nor under the driver's root"
        if driver_major(self.driver_version) < _FIRST_DRIVER:
            return f"it needs the driver R{_FIRST_DRIVER} or newer, and this is {self.driver_version or 'unknown'}"
        if any(card.mig is not None for card in self.cards):
            return "fracgpu does not use MPS for MIG instances, and some are shared"
        for card in self.cards:
            capability = self.capabilities.get(card.uuid)
            if not card.problem and (capability is None or capability < _FIRST_CAPABILITY):
                found = "unknown" if capability is None else f"{capability[0]}.{capability[1]}"
                return f"it limits memory from compute capability 7.0 (Volta) on, and {card.uuid} has {found}"
        return ""


def find_control(driver_root: Path) -> Path | None:
    """Look for nvidia-cuda-mps-control on PATH, then where the driver's container keeps it."""
    found = shutil.which(CONTROL)
    if found is not None:
        return Path(found)
    below = driver_root / "usr/bin" / CONTROL
    return below if below.is_file() else None


def most_clients(driver_version: str) -> int:
    """How many processes may use one GPU through MPS at a time."""
    return _MORE_CLIENTS if driver_major(driver_version) >= _MORE_CLIENTS_DRIVER else _CLIENTS


class Mps:
    """Containers as clients of the node's MPS daemon.

    Args:
        daemon: that one.
        most_clients: how many processes may use one GPU at a time.
        why_not_more: why this node has nothing stronger; empty where this was chosen.
    """

    def __init__(self, daemon: MpsDaemon, *, most_clients: int, why_not_more: str = "") -> None:
        self._daemon = daemon
        self._most_clients = most_clients
        self._why_not_more = why_not_more

    @property
    def status(self) -> IsolationStatus:
        """What is in force, and what the daemon lacks."""
        problem = self._daemon.problem and f"no GPU is handed out here now, because {self._daemon.problem}"
        return IsolationStatus("mps", enforced=False, message=sentences(problem, _MEANING, self._why_not_more))

    def edits(self, shares: Sequence[LentShare], *, neighbours: Mapping[GpuUuid, int]) -> Edits:
        """Make a container a client, with a limit for each of its GPUs.

        Raises:
            UnavailableError: the daemon does not answer: the container would have no limits.
            NoRoomError: a GPU has as many clients as MPS serves.
        """
        if self._daemon.problem:
            raise UnavailableError(
                f"this container is to use its GPU through MPS, and {self._daemon.problem}; see GPUNode's "
                "status.isolation and the device plugin's log on that node"
            )
        for uuid in (share.card.uuid for share in shares):
            if neighbours.get(uuid, 0) >= self._most_clients:
                raise NoRoomError(
                    f"GPU {uuid} is lent to {neighbours[uuid]} containers, and MPS serves at most {self._most_clients} "
                    "processes on a GPU; use larger shares, or another isolation on this node"
                )
        ordered = in_container_order(shares)
        env = {
            "CUDA_MPS_PIPE_DIRECTORY": str(self._daemon.pipe),
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": ",".join(
                f"{ordinal}={share.memory}M" for ordinal, share in enumerate(ordered)
            ),
        }
        if len(ordered) > 1:
            env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # else CUDA numbers the fastest first, and limits change places
        if any(share.seats for share in shares):
            env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = str(smallest_core_percent(shares))
        mounts = (
            Mount(str(self._daemon.pipe), str(self._daemon.pipe), read_only=False),
            Mount(str(self._daemon.shm), "/dev/shm", read_only=False),  # noqa: S108 (the name that the driver uses)
        )
        return Edits(env=env, mounts=mounts)

    async def run(self) -> None:
        """Keep the daemon up until cancelled."""
        await self._daemon.run()

    async def end(self) -> None:
        """End the daemon and open its GPUs to everybody.

        Raises:
            FracgpuError: it did not end, or a compute mode could not be set.
        """
        await self._daemon.end()
