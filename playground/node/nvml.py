"""An NVML without a GPU: the object that the unchanged ``pynvml`` talks to, driven by a JSON state file.

``pynvml`` looks each function up by name on its library handle and passes ctypes arguments, so a Python object
with methods of those names is a driver to it. The state file is read again whenever it changes (writers replace it
atomically), so that a test or the kubelet stub adds processes and loses GPUs under a running plugin. As in the real
library the set of GPUs is fixed at ``nvmlInit``: one that leaves the file later is lost, and so is one marked
``lost``. Left out: events and XIDs, MIG, utilisation, everything that a device plugin does not ask; such a symbol is
missing here and ``pynvml`` reports FUNCTION_NOT_FOUND.
"""

from __future__ import annotations

import ctypes
import functools
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pynvml

MIB = 1024 * 1024
MEMORY_V2 = 0x02000028
"""The version word of ``nvmlMemory_v2_t``; another one is refused as the real library does."""


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """One compute process on a GPU."""

    pid: int
    used_mib: int


@dataclass(frozen=True, slots=True)
class SimulatedGpu:
    """One GPU of the state file; ``reserved_mib`` is what the driver keeps for itself."""

    uuid: str
    product: str
    memory_mib: int
    minor: int = 0
    pci_bus_id: str = "00000000:01:00.0"
    reserved_mib: int = 0
    numa_node: int | None = None
    lost: bool = False
    processes: list[GpuProcess] = field(default_factory=list)


def write_state(path: Path, gpus: Sequence[SimulatedGpu]) -> None:
    """Replace the state file atomically: a reader sees the old or the new one, never a half."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "wb") as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(gpus), indent=1))
    os.replace(temporary, path)


def read_state(path: Path) -> list[SimulatedGpu]:
    """Return the GPUs of a state file, in NVML's order."""
    return msgspec.json.decode(path.read_bytes(), type=list[SimulatedGpu])


def install(path: Path) -> SimulatedNvml:
    """Make ``pynvml`` talk to the GPUs of ``path`` from now on, in this process."""
    library = SimulatedNvml(path)
    pynvml.nvmlLib = library
    pynvml._nvmlGetFunctionPointer_cache.clear()
    return library


class _Refused(Exception):
    """Never leaves this module: it becomes a return code."""

    def __init__(self, code: int) -> None:
        self.code = code


def _returns_code(function: Callable[..., None]) -> Callable[..., int]:
    """Turn a method that raises ``_Refused`` into a C function that returns an ``nvmlReturn_t``."""

    @functools.wraps(function)
    def wrapper(self: SimulatedNvml, *args: Any) -> int:
        try:
            function(self, *args)
        except _Refused as refused:
            return refused.code
        return int(pynvml.NVML_SUCCESS)

    return wrapper


def _put_text(text: str, buffer: Any, length: Any) -> None:
    if len(text) + 1 > length.value:
        raise _Refused(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
    buffer.value = text.encode()


def _put(reference: Any, value: int) -> None:
    """Write through ``byref(c_uint())``: the object behind a byref is its ``_obj``."""
    reference._obj.value = value


class SimulatedNvml:
    """The library handle: every public method is the C function of that name and returns its code."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int] | None = None
        self._gpus: list[SimulatedGpu] = []
        self._uuids: list[str] = []  # fixed at nvmlInit; a device handle is a position in it, plus 1
        self._inits = 0

    def _state(self) -> list[SimulatedGpu]:
        if not self._inits:
            raise _Refused(pynvml.NVML_ERROR_UNINITIALIZED)
        status = self._path.stat()
        version = (status.st_ino, status.st_mtime_ns)
        if version != self._version:
            self._gpus = read_state(self._path)
            self._version = version
        return self._gpus

    def _gpu(self, handle: Any) -> SimulatedGpu:
        position = (ctypes.cast(handle, ctypes.c_void_p).value or 0) - 1
        if not 0 <= position < len(self._uuids):
            raise _Refused(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        for gpu in self._state():
            if gpu.uuid == self._uuids[position] and not gpu.lost:
                return gpu
        raise _Refused(pynvml.NVML_ERROR_GPU_IS_LOST)

    def _put_handle(self, reference: Any, position: int) -> None:
        # The handle is a pointer that only the library may follow, so any number but 0 will do.
        ctypes.c_void_p.from_buffer(reference._obj).value = position + 1

    @_returns_code
    def nvmlInitWithFlags(self, _flags: int) -> None:
        """Start; without a state file the driver counts as not loaded."""
        if not self._path.exists():
            raise _Refused(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        self._inits += 1
        if self._inits == 1:
            self._uuids = [gpu.uuid for gpu in self._state()]

    def nvmlInit_v2(self) -> int:
        """Start."""
        return self.nvmlInitWithFlags(0)

    @_returns_code
    def nvmlShutdown(self) -> None:
        """Undo one init."""
        self._state()
        self._inits -= 1

    @staticmethod
    def nvmlErrorString(code: int) -> bytes:
        """Return the text of a code; static, because pynvml sets attributes on the function."""
        names: dict[int, str] = {
            value: name.removeprefix("NVML_ERROR_")
            for name, value in vars(pynvml).items()
            if name.startswith("NVML_ERROR_")
        }
        return names.get(code, "Unknown Error").replace("_", " ").capitalize().encode()

    @_returns_code
    def nvmlSystemGetDriverVersion(self, buffer: Any, length: Any) -> None:
        """Return a driver of today."""
        self._state()
        _put_text("580.95.05", buffer, length)

    @_returns_code
    def nvmlDeviceGetCount_v2(self, count: Any) -> None:
        """Return how many GPUs there were at init."""
        self._state()
        _put(count, len(self._uuids))

    @_returns_code
    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, device: Any) -> None:
        """Return a handle by position."""
        self._state()
        if index.value >= len(self._uuids):
            raise _Refused(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        self._put_handle(device, index.value)

    @_returns_code
    def nvmlDeviceGetHandleByUUID(self, uuid: Any, device: Any) -> None:
        """Return a handle by UUID."""
        self._state()
        text = uuid.value.decode()
        if text not in self._uuids:
            raise _Refused(pynvml.NVML_ERROR_NOT_FOUND)
        self._put_handle(device, self._uuids.index(text))

    @_returns_code
    def nvmlDeviceGetUUID(self, device: Any, buffer: Any, length: Any) -> None:
        """Return the UUID."""
        _put_text(self._gpu(device).uuid, buffer, length)

    @_returns_code
    def nvmlDeviceGetName(self, device: Any, buffer: Any, length: Any) -> None:
        """Return the product's name."""
        _put_text(self._gpu(device).product, buffer, length)

    @_returns_code
    def nvmlDeviceGetIndex(self, device: Any, index: Any) -> None:
        """Return the position."""
        _put(index, self._uuids.index(self._gpu(device).uuid))

    @_returns_code
    def nvmlDeviceGetMinorNumber(self, device: Any, minor: Any) -> None:
        """Return N of ``/dev/nvidiaN``."""
        _put(minor, self._gpu(device).minor)

    @_returns_code
    def nvmlDeviceGetPciInfo_v3(self, device: Any, info: Any) -> None:
        """Return the PCI address in both of its forms."""
        bus_id = self._gpu(device).pci_bus_id
        domain, bus, rest = bus_id.split(":")
        target = info._obj
        target.busId = bus_id.encode()
        target.busIdLegacy = f"{domain[-4:]}:{bus}:{rest}".encode()
        target.domain, target.bus = int(domain, 16), int(bus, 16)
        target.device = int(rest.split(".")[0], 16)

    @_returns_code
    def nvmlDeviceGetNumaNodeId(self, device: Any, node: Any) -> None:
        """Return the NUMA node, NOT_SUPPORTED where there is none."""
        numa_node = self._gpu(device).numa_node
        if numa_node is None:
            raise _Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
        _put(node, numa_node)

    @_returns_code
    def nvmlDeviceGetMigMode(self, device: Any, current: Any, pending: Any) -> None:
        """Return that MIG is off."""
        self._gpu(device)
        _put(current, pynvml.NVML_DEVICE_MIG_DISABLE)
        _put(pending, pynvml.NVML_DEVICE_MIG_DISABLE)

    @_returns_code
    def nvmlDeviceGetMemoryInfo(self, device: Any, memory: Any) -> None:
        """Return bytes; in this older form ``used`` includes what the driver reserved."""
        gpu = self._gpu(device)
        used_mib = gpu.reserved_mib + sum(process.used_mib for process in gpu.processes)
        memory._obj.total = gpu.memory_mib * MIB
        memory._obj.used = used_mib * MIB
        memory._obj.free = (gpu.memory_mib - used_mib) * MIB

    @_returns_code
    def nvmlDeviceGetMemoryInfo_v2(self, device: Any, memory: Any) -> None:
        """Return bytes, with the driver's share apart."""
        target = memory._obj
        if target.version != MEMORY_V2:
            raise _Refused(pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH)
        gpu = self._gpu(device)
        used_mib = sum(process.used_mib for process in gpu.processes)
        target.total, target.reserved = gpu.memory_mib * MIB, gpu.reserved_mib * MIB
        target.used = used_mib * MIB
        target.free = (gpu.memory_mib - gpu.reserved_mib - used_mib) * MIB

    @_returns_code
    def nvmlDeviceGetComputeRunningProcesses_v3(self, device: Any, count: Any, array: Any) -> None:
        """Fill the caller's array; too small a one is answered with the size that it takes."""
        processes = self._gpu(device).processes
        room, count._obj.value = count._obj.value, len(processes)
        if len(processes) > room:
            raise _Refused(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        for position, process in enumerate(processes):
            array[position].pid = process.pid
            array[position].usedGpuMemory = process.used_mib * MIB
