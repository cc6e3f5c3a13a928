"""The session with NVML through ctypes, in a process that loads the C twin of the playground's NVML by its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from playground.node.nvml import (
    STATE_VARIABLE,
    GpuProcess,
    SimulatedGpu,
    SimulatedMig,
    build_library,
    write_state,
)

PROGRAM = """
import json, sys, threading
from dataclasses import asdict
from pathlib import Path
from playground.node.nvml import SimulatedXid, read_state, restart_driver, unload_driver, write_state
from dataclasses import replace
from fracgpu.errors import UnavailableError
from plugin.gpus.nvml import Nvml

state = Path(sys.argv[1])
nvml = Nvml()
nvml.open()
waiting = threading.Event()
heard = []
def listen():
    while not heard:
        waiting.set()
        event = nvml.wait_for_event(1000)
        if event is not None:
            heard.append(asdict(event))
thread = threading.Thread(target=listen)
thread.start()
waiting.wait()
whole, mig = read_state(state)
write_state(state, [whole, replace(mig, xids=[SimulatedXid(1, 95, gpu_instance=7, compute_instance=0)])])
thread.join()
said = {
    "cards": [asdict(card) for card in nvml.cards("mixed").cards],
    "vitals": asdict(nvml.vitals("GPU-a")),
    "processes": nvml.processes(),
    "heard": heard,
}
unload_driver(state)
try:
    nvml.vitals("GPU-a")
except UnavailableError as exc:
    said["without a driver"] = str(exc)
restart_driver(state)
nvml.reopen()
said["again"] = nvml.vitals("GPU-a").problem
said["closed"] = nvml.close()
print(json.dumps(said))
"""


def test_the_real_ctypes_path_gives_the_same_answers(tmp_path: Path) -> None:
    library = build_library(tmp_path)
    if library is None:
        pytest.skip("no C compiler to build the simulated NVML with")
    state = tmp_path / "nvml.json"
    gpu = SimulatedGpu(uuid="GPU-a", product="NVIDIA L4", memory_mib=23034, processes=[GpuProcess(10, 5)])
    instance = SimulatedMig("MIG-x", "1g.10gb", 9984, gpu_instance=7, processes=[GpuProcess(12, 100)])
    write_state(state, [gpu, SimulatedGpu(uuid="GPU-b", product="NVIDIA H100", memory_mib=81559, mig=[instance])])
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(state)],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path), STATE_VARIABLE: str(state), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert [card["uuid"] for card in said["cards"]] == ["GPU-a", "MIG-x"]
    assert said["cards"][1]["mig"] == {"parent": "GPU-b", "position": 0, "gpu_instance": 7, "compute_instance": 0}
    assert (said["vitals"]["problem"], said["vitals"]["uncorrected"], said["vitals"]["recovery"]) == ("", 0, 0)
    assert said["processes"]["GPU-a"] == [[10, 5 * 2**20]]
    assert said["processes"]["MIG-x"] == [[12, 100 * 2**20]]
    assert said["heard"] == [{"gpu": "GPU-b", "xid": 95, "gpu_instance": 7, "compute_instance": 0}]
    assert "no NVIDIA driver" in said["without a driver"]
    assert said["again"] == ""
    assert said["closed"]
