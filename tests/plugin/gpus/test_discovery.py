"""Which cards the MIG strategies choose."""

from __future__ import annotations

import pytest

from fracgpu.errors import SettingError
from fracgpu.names import GpuUuid
from fracgpu.quantities import Mib
from plugin.gpus.cards import Card, MigPlace
from plugin.gpus.discovery import FoundGpu, choose


def gpu(name: str, *profiles: str, mig_mode: bool = False) -> FoundGpu:
    uuid = GpuUuid(f"GPU-{name}")
    instances = tuple(
        Card(GpuUuid(f"MIG-{name}{at}"), 0, f"NVIDIA H100 MIG {profile}", Mib(9984), mig=MigPlace(uuid, at, at, 0))
        for at, profile in enumerate(profiles)
    )
    return FoundGpu(Card(uuid, 0, "NVIDIA H100", Mib(81559)), mig_mode or bool(profiles), instances)


def names(found: list[FoundGpu], strategy: str) -> list[str]:
    return [card.uuid for card in choose(found, strategy=strategy).cards]  # type: ignore[arg-type]


def test_mixed_takes_instances_where_mig_is_on_and_whole_gpus_elsewhere() -> None:
    assert names([gpu("a", "1g.10gb", "3g.40gb"), gpu("b")], "mixed") == ["MIG-a0", "MIG-a1", "GPU-b"]


@pytest.mark.parametrize("strategy", ["single", "mixed"])
def test_a_gpu_in_mig_mode_without_instances_offers_nothing(strategy: str) -> None:
    found = [gpu("a", mig_mode=True), gpu("b", "1g.10gb")]
    assert names(found, strategy) == ["MIG-b0"]
    assert "GPU-a is in MIG mode and has no instances" in choose(found, strategy=strategy).notes[0]  # type: ignore[arg-type]


def test_single_takes_nodes_of_one_kind() -> None:
    assert names([gpu("a", "1g.10gb"), gpu("b", "1g.10gb")], "single") == ["MIG-a0", "MIG-b0"]
    assert names([gpu("a"), gpu("b")], "single") == ["GPU-a", "GPU-b"]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([gpu("a", "1g.10gb"), gpu("b")], "GPU-a is and GPU-b is not"),
        ([gpu("a", "1g.10gb", "3g.40gb")], "1g.10gb, 3g.40gb"),
        ([gpu("a", "1g.10gb"), gpu("b", "3g.40gb")], "1g.10gb, 3g.40gb"),
    ],
)
def test_single_refuses_other_nodes_with_what_it_found(found: list[FoundGpu], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        choose(found, strategy="single")
