"""The state file of the simulated NVML, and the launcher that runs the plugin on it."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pynvml
import pytest

from playground.node import plugin_launcher
from playground.node.nvml import (
    GpuProcess,
    SimulatedDriver,
    SimulatedGpu,
    SimulatedMig,
    read_driver,
    read_state,
    restart_driver,
    set_process,
    unload_driver,
    write_state,
)

L4 = SimulatedGpu(uuid="GPU-l4", product="NVIDIA L4", memory_mib=23034, processes=[GpuProcess(pid=1, used_mib=9)])
SPLIT = SimulatedGpu(
    uuid="GPU-split",
    product="NVIDIA A100",
    memory_mib=81920,
    mig=[
        SimulatedMig(uuid="MIG-a", profile="3g.40gb", memory_mib=40448, gpu_instance=1),
        SimulatedMig(uuid="MIG-b", profile="3g.40gb", memory_mib=40448, gpu_instance=2),
    ],
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "nvml.json"
    write_state(path, [L4, SPLIT])
    return path


def test_writing_gpus_leaves_the_driver_as_it_is(state: Path) -> None:
    driver = SimulatedDriver(version="590.10", cuda_version=13010, generation=4)
    write_state(state, [L4], driver=driver)
    write_state(state, [SPLIT])
    assert (read_state(state), read_driver(state)) == ([SPLIT], driver)


def test_a_bare_list_of_gpus_is_a_state(state: Path) -> None:
    state.write_text('[{"uuid": "GPU-a", "product": "NVIDIA L4", "memory_mib": 23034}]')
    assert read_state(state) == [SimulatedGpu(uuid="GPU-a", product="NVIDIA L4", memory_mib=23034)]
    assert read_driver(state) == SimulatedDriver()


def test_a_restart_of_the_driver_keeps_the_gpus(state: Path) -> None:
    unload_driver(state)
    assert not read_driver(state).loaded
    restart_driver(state, version="590.10")
    assert read_driver(state) == SimulatedDriver(version="590.10", generation=1)
    assert read_state(state) == [L4, SPLIT]


@pytest.mark.parametrize(
    ("on", "want"),
    [
        pytest.param({"GPU-l4"}, [[1, 7], [], []], id="a GPU by UUID"),
        pytest.param({"0"}, [[1, 7], [], []], id="a GPU by index"),
        pytest.param({"MIG-b"}, [[1], [], [7]], id="an instance by UUID"),
        pytest.param({"1:0"}, [[1], [7], []], id="an instance by index"),
        pytest.param({"all"}, [[1, 7], [7], [7]], id="everything"),
        pytest.param(set(), [[1], [], []], id="nothing"),
    ],
)
def test_a_process_is_where_it_is_said_to_be_and_nowhere_else(state: Path, on: set[str], want: list[list[int]]) -> None:
    set_process(state, GpuProcess(pid=7, used_mib=1), on={"GPU-l4", "MIG-a"})
    set_process(state, GpuProcess(pid=7, used_mib=5), on=on)
    gpu, split = read_state(state)
    assert split.processes == []
    holders = [gpu.processes, *(instance.processes for instance in split.mig or [])]
    assert [[process.pid for process in processes] for processes in holders] == want
    assert all(process.used_mib == 5 for processes in holders for process in processes if process.pid == 7)


def test_the_launcher_runs_the_plugin_on_the_state_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_state(tmp_path / "nvml.json", [L4])
    module = types.ModuleType("plugin.__main__")

    def plugin_main(arguments: list[str]) -> int:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount()) if arguments == ["--node", "n"] else 99

    module.__dict__["main"] = plugin_main
    monkeypatch.setitem(sys.modules, "plugin.__main__", module)
    assert plugin_launcher.main([str(tmp_path / "nvml.json"), "--", "--node", "n"]) == 1
    assert plugin_launcher.main(["state"]) == 2
    assert "usage" in capsys.readouterr().err
