"""The session with NVML through the unchanged pynvml, on the playground's NVML."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pynvml
import pytest

from fracgpu.errors import UnavailableError
from fracgpu.names import GpuUuid
from playground.node.nvml import (
    GpuProcess,
    RemappedRows,
    SimulatedGpu,
    SimulatedMig,
    SimulatedXid,
    compute_mode,
    install,
    restart_driver,
    unload_driver,
    write_state,
)
from plugin.gpus import nvml as module
from plugin.gpus.cards import Card
from plugin.gpus.discovery import Discovery
from plugin.gpus.nvml import Nvml
from plugin.gpus.vitals import Vitals, XidEvent

WELL = SimulatedGpu(uuid="GPU-a", product="NVIDIA L4", memory_mib=23034, numa_node=1)


def discover() -> Discovery:
    session = Nvml()
    session.open()
    try:
        return session.cards()
    finally:
        session.close()


def test_gpus_become_plain_data(tmp_path: Path) -> None:
    state = tmp_path / "nvml.json"
    write_state(state, [WELL, SimulatedGpu(uuid="GPU-b", product="NVIDIA H100", memory_mib=81559)])
    install(state)
    assert discover().cards == (
        Card("GPU-a", 0, "NVIDIA L4", 23034, numa_node=1, minor=0),  # type: ignore[arg-type]
        Card("GPU-b", 1, "NVIDIA H100", 81559, minor=0),  # type: ignore[arg-type]
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


A, B = GpuUuid("GPU-a"), GpuUuid("GPU-b")
H100 = SimulatedGpu(
    uuid="GPU-b",
    product="NVIDIA H100",
    memory_mib=81559,
    minor=1,
    processes=[GpuProcess(11, 300)],
    mig=[
        SimulatedMig("MIG-x", "1g.10gb", 9984, gpu_instance=7, processes=[GpuProcess(12, 100)]),
        SimulatedMig("MIG-y", "1g.10gb", 9984, gpu_instance=8),
    ],
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "nvml.json"
    write_state(path, [WELL, H100])
    install(path)
    return path


@pytest.fixture
def nvml(state: Path) -> Iterator[Nvml]:
    session = Nvml()
    session.open()
    yield session
    session.close()


def test_mig_instances_are_cards_of_their_own(nvml: Nvml) -> None:
    whole, first, second = nvml.cards("mixed").cards
    assert (whole.uuid, whole.mig) == ("GPU-a", None)
    assert (first.uuid, first.memory, first.minor, first.index_name) == ("MIG-x", 9984, 1, "1:0")
    assert "1g.10gb" in first.product
    assert second.mig is not None
    assert (second.mig.parent, second.mig.gpu_instance, second.mig.compute_instance) == ("GPU-b", 8, 0)


def test_without_a_strategy_a_gpu_in_mig_mode_is_a_whole_one_and_that_is_said(nvml: Nvml) -> None:
    found = nvml.cards("none")
    assert [card.uuid for card in found.cards] == ["GPU-a", "GPU-b"]
    assert "GPU-b is in MIG mode" in found.notes[0]


def test_vitals_tell_what_is_supported(nvml: Nvml, state: Path) -> None:
    assert nvml.vitals(A) == Vitals(uncorrected=0, remap_pending=False, remap_failed=False, recovery=0)
    write_state(state, [replace(WELL, ecc=False, remapped=None, recovery_action=None), H100])
    assert nvml.vitals(A) == Vitals()
    sick = replace(WELL, ecc_uncorrected=3, remapped=RemappedRows(pending=True, failure=True), recovery_action="reboot")
    write_state(state, [sick, H100])
    assert nvml.vitals(A) == Vitals(uncorrected=3, remap_pending=True, remap_failed=True, recovery=2)


def test_a_lost_gpu_is_an_answer_and_the_others_go_on(nvml: Nvml, state: Path) -> None:
    write_state(state, [replace(WELL, lost=True), H100])
    lost = nvml.vitals(A)
    assert lost.down
    assert "GPU-a does not answer" in lost.problem
    assert nvml.vitals(B).problem == ""
    assert set(nvml.processes()) == {"GPU-b", "MIG-x", "MIG-y"}
    assert [bool(card.problem) for card in nvml.cards("mixed").cards] == [True, False, False]


def test_xid_errors_arrive_with_their_instance(nvml: Nvml, state: Path) -> None:
    write_state(state, [WELL, replace(H100, xids=[SimulatedXid(1, 95, gpu_instance=7, compute_instance=0)])])
    assert nvml.wait_for_event(1000) == XidEvent(B, 95, gpu_instance=7, compute_instance=0)
    write_state(state, [replace(WELL, xids=[SimulatedXid(1, 79)]), H100])
    assert nvml.wait_for_event(1000) == XidEvent(A, 79)
    assert nvml.wait_for_event(0) is None


def test_processes_are_those_of_gpus_and_of_instances(nvml: Nvml, state: Path) -> None:
    write_state(state, [replace(WELL, processes=[GpuProcess(10, 5)]), H100])
    found = nvml.processes()
    assert found[A] == ((10, 5 * 2**20),)
    assert found[GpuUuid("MIG-x")] == ((12, 100 * 2**20),)
    assert found[GpuUuid("MIG-y")] == ()


def test_a_driver_that_was_restarted_needs_a_new_session(nvml: Nvml, state: Path) -> None:
    unload_driver(state)
    with pytest.raises(UnavailableError, match="no NVIDIA driver"):
        nvml.vitals(A)
    with pytest.raises(UnavailableError, match="no NVIDIA driver"):
        nvml.reopen()
    restart_driver(state, version="590.1")
    assert nvml.reopen()
    assert (nvml.vitals(A).problem, nvml.driver_version) == ("", "590.1")
    write_state(state, [replace(WELL, xids=[SimulatedXid(1, 79)]), H100])
    assert nvml.wait_for_event(1000) == XidEvent(A, 79)


def test_the_session_ends_only_when_nobody_waits_in_it(nvml: Nvml) -> None:
    ended = threading.Event()

    def wait() -> None:
        try:
            while True:
                nvml.wait_for_event(50)
        except UnavailableError:
            ended.set()

    threading.Thread(target=wait, daemon=True).start()
    assert nvml.close()
    assert ended.wait(10)


def test_a_gpu_that_hangs_stops_neither_the_others_nor_the_end(
    nvml: Nvml, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BUSY_SECONDS", "CLOSING_SECONDS"):
        monkeypatch.setattr(module, name, 0.2)
    library = install(state)
    assert nvml.reopen()
    hanging, go_on = threading.Event(), threading.Event()
    ask = library.nvmlDeviceGetMemoryInfo

    def hang(device: object, memory: object) -> int:
        hanging.set()
        go_on.wait(60)
        return ask(device, memory)

    library.nvmlDeviceGetMemoryInfo = hang  # type: ignore[method-assign]
    pynvml._nvmlGetFunctionPointer_cache.clear()
    stuck = threading.Thread(target=nvml.vitals, args=(A,), daemon=True)
    stuck.start()
    assert hanging.wait(10)
    library.nvmlDeviceGetMemoryInfo = ask  # type: ignore[method-assign]
    pynvml._nvmlGetFunctionPointer_cache.clear()
    assert "does not answer" in nvml.vitals(A).problem
    assert not nvml.vitals(A).down
    assert nvml.vitals(B).problem == ""
    assert A not in nvml.processes()
    assert not nvml.close()
    assert nvml.vitals(B).problem == ""
    go_on.set()
    stuck.join(10)
    assert nvml.vitals(A).problem == ""


def test_compute_mode_and_capability(nvml: Nvml, state: Path) -> None:
    assert nvml.cuda_compute_capability(A) == (8, 0)
    nvml.set_compute_mode(A, exclusive=True)
    assert compute_mode(state, "GPU-a") == 3
    nvml.set_compute_mode(A, exclusive=False)
    assert compute_mode(state, "GPU-a") == 0
    with pytest.raises(UnavailableError, match="knows no GPU"):
        nvml.set_compute_mode(GpuUuid("GPU-z"), exclusive=True)
