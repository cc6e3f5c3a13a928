"""GPU discovery through the unchanged pynvml, on the playground's NVML."""

from __future__ import annotations

from pathlib import Path

import pytest

from fracgpu.errors import UnavailableError
from playground.node.nvml import SimulatedGpu, install, write_state
from plugin.gpus.cards import Card
from plugin.gpus.nvml import discover

WELL = SimulatedGpu(uuid="GPU-a", product="NVIDIA L4", memory_mib=23034, numa_node=1)


def test_gpus_become_plain_data(tmp_path: Path) -> None:
    state = tmp_path / "nvml.json"
    write_state(state, [WELL, SimulatedGpu(uuid="GPU-b", product="NVIDIA H100", memory_mib=81559)])
    install(state)
    assert discover().cards == (
        Card("GPU-a", 0, "NVIDIA L4", 23034, numa_node=1),  # type: ignore[arg-type]
        Card("GPU-b", 1, "NVIDIA H100", 81559),  # type: ignore[arg-type]
    )


def test_a_gpu_that_fell_off_the_bus_does_not_stop_the_others(tmp_path: Path) -> None:
    state = tmp_path / "nvml.json"
    write_state(state, [SimulatedGpu(uuid="GPU-x", product="", memory_mib=1, lost=True), WELL])
    install(state)
    found = discover()
    assert [card.uuid for card in found.cards] == ["GPU-a"]
    assert "GPU 0 of this node cannot be used" in found.nameless[0]


def test_a_gpu_that_tells_its_name_but_not_its_memory_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "nvml.json"
    write_state(state, [WELL])
    library = install(state)
    monkeypatch.setattr(library, "nvmlDeviceGetMemoryInfo", lambda *_: 999, raising=False)
    (card,) = discover().cards
    assert (card.uuid, card.memory) == ("GPU-a", 0)
    assert "when asked about GPU-a" in card.problem


def test_without_a_driver_the_sentence_says_what_to_do(tmp_path: Path) -> None:
    install(tmp_path / "missing.json")
    with pytest.raises(UnavailableError, match=r"no NVIDIA driver on this node .* check with nvidia-smi"):
        discover()
