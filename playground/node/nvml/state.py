"""The state file: which GPUs a simulated node has, how they are, and which driver runs them.

Plain data as JSON: one object with `driver` and `gpus`; a bare list of GPUs is read as well. Writers replace the file
atomically, and both libraries look at it in every call, so that a test or the kubelet stub adds processes, XIDs and
faults under a running plugin. The compute mode, which programs set, lies beside it in a file for each GPU: the driver
too keeps it for all processes, until it restarts.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

MIB = 1024 * 1024
ANY_INSTANCE = 0xFFFFFFFF
"""NVML's number for "no GPU instance" and "no compute instance"."""

RecoveryAction = Literal["none", "reset", "reboot", "drain-p2p", "drain-and-reset"]
"""What the driver wants done about a GPU, in the order of NVML's numbers."""


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """One compute process on a GPU or a MIG instance."""

    pid: int
    used_mib: int


@dataclass(frozen=True, slots=True)
class SimulatedMig:
    """One MIG instance of a GPU; its index is its position among them."""

    uuid: str
    profile: str
    memory_mib: int
    gpu_instance: int
    compute_instance: int = 0
    processes: list[GpuProcess] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SimulatedXid:
    """One XID error: `number` rises along a GPU's list, and tells which of them a program has had already."""

    number: int
    xid: int
    gpu_instance: int = ANY_INSTANCE
    compute_instance: int = ANY_INSTANCE


@dataclass(frozen=True, slots=True)
class RemappedRows:
    """Memory rows that the GPU has replaced, or should have."""

    corrected: int = 0
    uncorrected: int = 0
    pending: bool = False
    failure: bool = False


@dataclass(frozen=True, slots=True)
class SimulatedGpu:
    """One GPU of the state file.

    Attributes:
        uuid: ``GPU-...``.
        product: its name.
        memory_mib: all of its memory.
        minor: N of ``/dev/nvidiaN``.
        pci_bus_id: domain:bus:device.function.
        reserved_mib: what the driver keeps for itself.
        numa_node: None where the driver does not tell.
        lost: whether it has fallen off the bus.
        processes: compute processes on the whole GPU.
        mig: its MIG instances; None where MIG mode is off.
        xids: every XID error so far.
        ecc: whether ECC is on.
        ecc_uncorrected: volatile errors that ECC could not correct.
        remapped: None for a GPU that remaps no rows.
        recovery_action: None for a driver too old to tell.
        compute_capability: major and minor.
    """

    uuid: str
    product: str
    memory_mib: int
    minor: int = 0
    pci_bus_id: str = "00000000:01:00.0"
    reserved_mib: int = 0
    numa_node: int | None = None
    lost: bool = False
    processes: list[GpuProcess] = field(default_factory=list)
    mig: list[SimulatedMig] | None = None
    xids: list[SimulatedXid] = field(default_factory=list)
    ecc: bool = True
    ecc_uncorrected: int = 0
    remapped: RemappedRows | None = field(default_factory=RemappedRows)
    recovery_action: RecoveryAction | None = "none"
    compute_capability: tuple[int, int] = (8, 0)


@dataclass(frozen=True, slots=True)
class SimulatedDriver:
    """The driver; sessions and handles end with its `generation`.

    Attributes:
        version: as the driver says it.
        cuda_version: 1000 * major + 10 * minor.
        generation: which start of the driver this is.
        loaded: False while it is being replaced.
    """

    version: str = "580.95.05"
    cuda_version: int = 13000
    generation: int = 0
    loaded: bool = True


@dataclass(frozen=True, slots=True)
class NvmlState:
    """All of a state file."""

    gpus: list[SimulatedGpu]
    driver: SimulatedDriver = field(default_factory=SimulatedDriver)


_decoder: msgspec.json.Decoder[NvmlState | list[SimulatedGpu]] = msgspec.json.Decoder(NvmlState | list[SimulatedGpu])


def parse_state(raw: bytes) -> NvmlState:
    """Return what a state file says, in either form."""
    state = _decoder.decode(raw)
    return NvmlState(state) if isinstance(state, list) else state


def write_state(path: Path, gpus: Sequence[SimulatedGpu], *, driver: SimulatedDriver | None = None) -> None:
    """Replace the state file atomically: a reader sees the old or the new one, never a half.

    Args:
        path: the file.
        gpus: in NVML's order.
        driver: None leaves the driver as it is.
    """
    if driver is None:
        driver = read_driver(path) if path.exists() else SimulatedDriver()
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "wb") as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(NvmlState(list(gpus), driver)), indent=1))
    os.replace(temporary, path)


def read_state(path: Path) -> list[SimulatedGpu]:
    """Return the GPUs of a state file, in NVML's order."""
    return parse_state(path.read_bytes()).gpus


def read_driver(path: Path) -> SimulatedDriver:
    """Return the driver of a state file."""
    return parse_state(path.read_bytes()).driver


def unload_driver(path: Path) -> None:
    """Take the driver away: NVML answers DRIVER_NOT_LOADED until `restart_driver`."""
    write_state(path, read_state(path), driver=dataclasses.replace(read_driver(path), loaded=False))


def restart_driver(path: Path, *, version: str | None = None) -> None:
    """Start the driver anew, perhaps as another version: sessions and handles from before are void."""
    before = read_driver(path)
    after = dataclasses.replace(
        before, version=version or before.version, generation=before.generation + 1, loaded=True
    )
    write_state(path, read_state(path), driver=after)


def set_process(path: Path, process: GpuProcess, *, on: Collection[str]) -> None:
    """Have a process on exactly these GPUs and MIG instances.

    Args:
        path: the state file.
        process: what it uses on each; one of the same pid is replaced.
        on: UUIDs, indices (``0``, of a MIG instance ``0:1``), or ``all``.
    """

    def changed(processes: list[GpuProcess], names: set[str]) -> list[GpuProcess]:
        others = [other for other in processes if other.pid != process.pid]
        return others if names.isdisjoint(on) else [*others, process]

    gpus = []
    for index, gpu in enumerate(read_state(path)):
        # "all" is what a process can use: with MIG mode on that is the instances.
        names = {gpu.uuid, str(index)} | ({"all"} if gpu.mig is None else set())
        mig = gpu.mig and [
            dataclasses.replace(
                instance, processes=changed(instance.processes, {instance.uuid, f"{index}:{position}", "all"})
            )
            for position, instance in enumerate(gpu.mig)
        ]
        gpus.append(dataclasses.replace(gpu, processes=changed(gpu.processes, names), mig=mig))
    write_state(path, gpus)


def compute_mode(path: Path, uuid: str) -> int:
    """Return the compute mode (NVML_COMPUTEMODE_...) that a program has set on a GPU since the driver started."""
    try:
        generation, mode = _compute_mode_file(path, uuid).read_text().split()
    except FileNotFoundError:
        return 0
    return int(mode) if int(generation) == read_driver(path).generation else 0


def set_compute_mode(path: Path, uuid: str, *, mode: int) -> None:
    """Set it."""
    _compute_mode_file(path, uuid).write_text(f"{read_driver(path).generation} {mode}\n")


def _compute_mode_file(path: Path, uuid: str) -> Path:
    return path.with_name(f"{path.name}.{uuid}.compute-mode")
