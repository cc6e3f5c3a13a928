"""An NVML without a GPU, driven by a JSON state file.

It exists twice, with the same answers: as an object that the unchanged ``pynvml`` talks to in this process (`install`),
and as a C library for whole processes (`build_library`). Left out: power, clocks, utilisation, everything that a device
plugin does not ask; such a symbol is missing and ``pynvml`` reports FUNCTION_NOT_FOUND.
"""

from playground.node.nvml.library import SimulatedNvml, install
from playground.node.nvml.native import LIBRARY, STATE_VARIABLE, build_library
from playground.node.nvml.state import (
    ANY_INSTANCE,
    MIB,
    GpuProcess,
    RecoveryAction,
    RemappedRows,
    SimulatedDriver,
    SimulatedGpu,
    SimulatedMig,
    SimulatedXid,
    compute_mode,
    read_driver,
    read_state,
    restart_driver,
    set_process,
    unload_driver,
    write_state,
)

__all__ = [
    "ANY_INSTANCE",
    "LIBRARY",
    "MIB",
    "STATE_VARIABLE",
    "GpuProcess",
    "RecoveryAction",
    "RemappedRows",
    "SimulatedDriver",
    "SimulatedGpu",
    "SimulatedMig",
    "SimulatedNvml",
    "SimulatedXid",
    "build_library",
    "compute_mode",
    "install",
    "read_driver",
    "read_state",
    "restart_driver",
    "set_process",
    "unload_driver",
    "write_state",
]
