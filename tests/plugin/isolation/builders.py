"""Shares, nodes and compute modes for the isolation's tests."""

from __future__ import annotations

from pathlib import Path

from fracgpu.names import GpuUuid
from fracgpu.quantities import Mib
from plugin.gpus.cards import Card, MigPlace
from plugin.handout import LentShare
from plugin.isolation.driver_limit import DriverLimitNeeds
from plugin.isolation.mps import MpsNeeds

A, B, C = (GpuUuid(f"GPU-{letter}") for letter in "abc")


def card(uuid: GpuUuid = A, *, index: int = 0, mig: MigPlace | None = None, problem: str = "") -> Card:
    return Card(uuid, index, "NVIDIA A100", Mib(40960), minor=index, mig=mig, problem=problem)


def mig_card() -> Card:
    return card(GpuUuid("MIG-a"), mig=MigPlace(A, position=0, gpu_instance=1, compute_instance=0))


def share(
    uuid: GpuUuid = A,
    *,
    memory: int = 4096,
    seats: int = 0,
    of_seats: int = 4,
    index: int = 0,
    lent: Card | None = None,
) -> LentShare:
    return LentShare(lent or card(uuid, index=index), memory // 512, seats, Mib(memory), 80, of_seats)


def driver_needs(
    *,
    version: str = "615.65.06",
    strategies: tuple[str, ...] = ("cdi-cri",),
    cgroup_v2: bool = True,
    hook: bool = True,
    cards: tuple[Card, ...] = (card(),),
) -> DriverLimitNeeds:
    return DriverLimitNeeds(version, strategies, cgroup_v2, hook, cards)


def mps_needs(
    *,
    root: Path | None = Path("/run/fracgpu/mps"),
    control: Path | None = Path("/usr/bin/nvidia-cuda-mps-control"),
    version: str = "580.65.06",
    cards: tuple[Card, ...] = (card(),),
    capability: tuple[int, int] | None = (8, 0),
) -> MpsNeeds:
    capabilities = {} if capability is None else {card.uuid: capability for card in cards}
    return MpsNeeds(root, control, version, cards, capabilities)


class RecordedModes:
    """Compute modes that are only written down."""

    def __init__(self) -> None:
        self.exclusive: dict[GpuUuid, bool] = {}

    async def set(self, uuid: GpuUuid, *, exclusive: bool) -> None:
        self.exclusive[uuid] = exclusive
