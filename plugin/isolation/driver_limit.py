"""The driver's own memory limits: a hard limit for each container's cgroup, kept by the kernel driver.

The NVIDIA container toolkit sets it: its CDI hook ``apply-cuda-memory-limits`` (toolkit 1.20.1, GPU Operator 26.7.1)
reads two variables of the container, whole numbers of MiB and the same for all its GPUs, and calls NVML's
SetMemoryLimits, new in the driver R615 (CUDA 13.4). Where that call fails, the hook fails, and the container does not
start: a container that runs has its limit. It does not count managed memory, and was not yet seen here on a real GPU
(docs/isolation.md), so it is not called enforced.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fracgpu.gpunodes import IsolationStatus
from fracgpu.names import CDI_KIND, GpuUuid
from plugin.gpus.cards import Card
from plugin.handout import Edits, LentShare
from plugin.isolation.mechanism import StandingIsolation
from plugin.isolation.shares import smallest_memory

FIRST_DRIVER: Final = 615
HOOK: Final = "apply-cuda-memory-limits"
CDI_STRATEGIES: Final = ("cdi-annotations", "cdi-cri")
_FIRST_TOOLKIT: Final = "1.20.1"
_KIND: Final = re.compile(rf"""^[\s{{,]*["']?kind["']?\s*:\s*["']?{re.escape(CDI_KIND)}["']?\s*,?\s*$""", re.MULTILINE)
_SPEC_SUFFIXES: Final = frozenset({".json", ".yaml", ".yml"})
_MEANING: Final = (
    "the driver refuses each container more GPU memory than its share, all its processes together; this is not called "
    "enforced, because NVIDIA says that managed memory (cudaMallocManaged) on the GPU is not counted, and because "
    "fracgpu has not seen it on a real GPU yet"
)


@dataclass(frozen=True, slots=True)
class DriverLimitNeeds:
    """What has to be there.

    Attributes:
        driver_version: as NVML says it, for example ``615.65.06``; empty where it could not be read.
        strategies: how the runtime is told of GPUs (device_list_strategy).
        cgroup_v2: whether containers are in a unified cgroup hierarchy.
        hook: whether the CDI specification that containers are given names the toolkit's hook.
        cards: the GPUs that are shared.
    """

    driver_version: str
    strategies: Sequence[str]
    cgroup_v2: bool
    hook: bool
    cards: Sequence[Card]

    @property
    def obstacle(self) -> str:
        """Why this node has no driver limits, as a part of a sentence; empty where it has."""
        major = driver_major(self.driver_version)
        if major < FIRST_DRIVER:
            return f"it needs the driver R{FIRST_DRIVER} or newer, and this is {self.driver_version or 'unknown'}"
        if not set(self.strategies).intersection(CDI_STRATEGIES):
            return (
                f"it needs device_list_strategy {' or '.join(CDI_STRATEGIES)}, because a CDI hook sets the limits, and "
                f"this is {','.join(self.strategies)}"
            )
        if not self.cgroup_v2:
            return "it needs cgroup v2, and this node has v1"
        if any(card.mig is not None for card in self.cards):
            return (
                "the driver has no memory limits for MIG instances (which have their own memory), and some are shared"
            )
        if not self.hook:
            return (
                f"the CDI specification of {CDI_KIND} does not name the hook {HOOK}: install the NVIDIA container "
                f"toolkit {_FIRST_TOOLKIT} or newer and have it write the specification anew (nvidia-ctk cdi generate)"
            )
        return ""


def driver_major(version: str) -> int:
    """The branch of a driver: 615 of ``615.65.06``; 0 where the text says none."""
    head = version.partition(".")[0]
    return int(head) if head.isascii() and head.isdigit() else 0


def names_hook(folders: Iterable[Path]) -> bool:
    """Whether a CDI specification of our kind in one of these folders names the toolkit's hook.

    Reads files of some kilobytes; those that cannot be read name nothing.
    """
    return any(_names_hook(path) for folder in folders for path in _specs(folder))


def _specs(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in _SPEC_SUFFIXES)
    except OSError:
        return []


def _names_hook(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    # Not parsed: a runtime that cannot read it says so itself, and a YAML parser here costs more than it tells.
    one_line = text.replace(",", ",\n").replace("{", "{\n").replace("}", "\n}")
    return HOOK in text and _KIND.search(one_line) is not None


class DriverLimit(StandingIsolation):
    """Hands the limits to the toolkit's hook; the highest rung."""

    def __init__(self) -> None:
        super().__init__(IsolationStatus("driver-limit", enforced=False, message=_MEANING))

    def edits(self, shares: Sequence[LentShare], *, neighbours: Mapping[GpuUuid, int]) -> Edits:
        """Set both variables, without which the hook does nothing.

        The guarantee (REQUEST) is the limit: a container never borrows, so none is evicted for having done so. Where a
        container is lent different amounts on different GPUs, the smallest counts on all: the hook knows only one.
        """
        memory = str(smallest_memory(shares))
        return Edits(env={"NVIDIA_GPU_MEMORY_REQUEST": memory, "NVIDIA_GPU_MEMORY_LIMIT": memory})
