"""The simulated NVML, seen through the unchanged pynvml."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path

import pynvml
import pytest

from playground.node import plugin_launcher
from playground.node.nvml import MIB, GpuProcess, SimulatedGpu, install, read_state, write_state

A = SimulatedGpu(
    uuid="GPU-a",
    product="NVIDIA A100-SXM4-80GB",
    memory_mib=81920,
    minor=3,
    pci_bus_id="00000000:3B:00.0",
    reserved_mib=600,
    numa_node=1,
    processes=[GpuProcess(pid=41, used_mib=1000), GpuProcess(pid=42, used_mib=24)],
)
B = SimulatedGpu(uuid="GPU-b", product="NVIDIA L4", memory_mib=23034)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "nvml.json"
    write_state(path, [A, B])
    install(path)
    pynvml.nvmlInit()
    return path


def test_identity_of_a_gpu(state: Path) -> None:
    assert pynvml.nvmlDeviceGetCount() == 2
    handle = pynvml.nvmlDeviceGetHandleByUUID("GPU-a")
    assert pynvml.nvmlDeviceGetUUID(handle) == "GPU-a"
    assert pynvml.nvmlDeviceGetName(handle) == "NVIDIA A100-SXM4-80GB"
    assert pynvml.nvmlDeviceGetMinorNumber(handle) == 3
    assert pynvml.nvmlDeviceGetNumaNodeId(handle) == 1
    assert pynvml.nvmlDeviceGetMigMode(handle) == [0, 0]
    info = pynvml.nvmlDeviceGetPciInfo(handle)
    assert (info.busId, info.busIdLegacy) == ("00000000:3B:00.0", "0000:3B:00.0")
    assert (info.domain, info.bus, info.device) == (0, 0x3B, 0)
    second = pynvml.nvmlDeviceGetHandleByIndex(1)
    assert pynvml.nvmlDeviceGetUUID(second) == "GPU-b"
    assert pynvml.nvmlDeviceGetIndex(second) == 1
    assert pynvml.nvmlSystemGetDriverVersion().startswith("580.")


def test_memory_in_both_versions(state: Path) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    old = pynvml.nvmlDeviceGetMemoryInfo(handle)
    assert (old.total, old.used, old.free) == (81920 * MIB, 1624 * MIB, 80296 * MIB)
    new = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    assert (new.total, new.reserved, new.used) == (81920 * MIB, 600 * MIB, 1024 * MIB)
    assert new.free == old.free


def test_processes_come_by_the_two_call_protocol(state: Path) -> None:
    processes = pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(0))
    assert [(p.pid, p.usedGpuMemory) for p in processes] == [(41, 1000 * MIB), (42, 24 * MIB)]
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(1)) == []


def test_changes_of_the_file_are_seen_at_once(state: Path) -> None:
    handle = pynvml.nvmlDeviceGetHandleByUUID("GPU-b")
    write_state(state, [A, dataclasses.replace(B, processes=[GpuProcess(pid=7, used_mib=5)])])
    assert [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)] == [7]
    assert read_state(state)[1].processes == [GpuProcess(pid=7, used_mib=5)]


@pytest.mark.parametrize("after", [[B], [dataclasses.replace(A, lost=True), B]], ids=["removed", "marked lost"])
def test_a_lost_gpu_fails_and_the_others_keep_their_handles(state: Path, after: list[SimulatedGpu]) -> None:
    handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(2)]
    write_state(state, after)
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        pynvml.nvmlDeviceGetMemoryInfo(handles[0])
    assert pynvml.nvmlDeviceGetUUID(handles[1]) == "GPU-b"
    assert pynvml.nvmlDeviceGetCount() == 2


def test_what_is_not_there_fails_as_in_the_real_library(state: Path, tmp_path: Path) -> None:
    with pytest.raises(pynvml.NVMLError_FunctionNotFound):
        pynvml.nvmlDeviceGetFanSpeed(pynvml.nvmlDeviceGetHandleByIndex(0))
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlDeviceGetHandleByIndex(2)
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetHandleByUUID("GPU-z")
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetNumaNodeId(pynvml.nvmlDeviceGetHandleByIndex(1))
    assert pynvml.nvmlErrorString(pynvml.NVML_ERROR_GPU_IS_LOST) == "Gpu is lost"
    pynvml.nvmlShutdown()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()
    install(tmp_path / "absent.json")
    with pytest.raises(pynvml.NVMLError_DriverNotLoaded):
        pynvml.nvmlInit()


def test_the_launcher_runs_the_plugin_on_the_state_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_state(tmp_path / "nvml.json", [B])
    module = types.ModuleType("plugin.__main__")

    def plugin_main(arguments: list[str]) -> int:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount()) if arguments == ["--node", "n"] else 99

    module.__dict__["main"] = plugin_main
    monkeypatch.setitem(sys.modules, "plugin.__main__", module)
    assert plugin_launcher.main([str(tmp_path / "nvml.json"), "--", "--node", "n"]) == 1
    assert plugin_launcher.main(["state"]) == 2
    assert "usage" in capsys.readouterr().err
