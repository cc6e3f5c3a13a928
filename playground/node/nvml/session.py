"""What all functions of the simulated NVML stand on: return codes, the session, and handles to devices.

As in the real library the set of GPUs is fixed at ``nvmlInit``: one that leaves the state file later is lost, and so is
one marked ``lost``. MIG instances come and go. When the driver's generation changes, or it is not loaded, a session
answers UNINITIALIZED (DRIVER_NOT_LOADED) until the next ``nvmlInit``, and handles of an earlier generation are invalid
after it.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import pynvml

from playground.node.nvml.state import NvmlState, SimulatedGpu, SimulatedMig, parse_state

_Self = TypeVar("_Self", bound="Session")
_Arguments = ParamSpec("_Arguments")


class Refused(Exception):
    """Never leaves this package: it becomes a return code."""

    def __init__(self, code: int) -> None:
        self.code = code


def returns_code(
    function: Callable[Concatenate[_Self, _Arguments], None],
) -> Callable[Concatenate[_Self, _Arguments], int]:
    """Turn a method that raises ``Refused`` into a C function that returns an ``nvmlReturn_t``, one at a time."""

    @functools.wraps(function)
    def wrapper(self: _Self, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> int:
        try:
            with self.lock:
                function(self, *args, **kwargs)
        except Refused as refused:
            return refused.code
        return int(pynvml.NVML_SUCCESS)

    return wrapper


def put(reference: Any, value: int) -> None:
    """Write through ``byref(c_uint())``: the object behind a byref is its ``_obj``."""
    reference._obj.value = value


def put_text(text: str, buffer: Any, length: Any) -> None:
    """Fill a C string's buffer, or refuse with INSUFFICIENT_SIZE."""
    if len(text.encode()) + 1 > length.value:
        raise Refused(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
    buffer.value = text.encode()


def put_handle(reference: Any, number: int) -> None:
    """Write a handle: a pointer that only the library may follow, so any number but 0 will do."""
    ctypes.c_void_p.from_buffer(reference._obj).value = number


def handle_number(handle: Any) -> int:
    """Return the number that `put_handle` wrote; 0 for none."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


class _Place(NamedTuple):
    """What a device handle stands for."""

    generation: int
    uuid: str


class Session:
    """Start, end, and who is meant by a handle."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()  # guards everything here and in the subclasses
        self.generation = -1  # the driver's, at the nvmlInit that counts
        self._inits = 0
        self._uuids: list[str] = []  # fixed at nvmlInit
        self._places: list[_Place] = []  # a device handle is a position in it, plus 1
        self._raw = b""
        self._state = NvmlState([])

    @returns_code
    def nvmlInitWithFlags(self, _flags: int) -> None:
        """Start; without a state file the driver counts as not loaded."""
        state = self._read()
        if self._inits == 0 or self.generation != state.driver.generation:
            self.generation = state.driver.generation
            self._uuids = [gpu.uuid for gpu in state.gpus]
        self._inits += 1

    def nvmlInit_v2(self) -> int:
        """Start."""
        return self.nvmlInitWithFlags(0)

    @returns_code
    def nvmlShutdown(self) -> None:
        """Undo one init; that needs no driver."""
        if not self._inits:
            raise Refused(pynvml.NVML_ERROR_UNINITIALIZED)
        self._inits -= 1

    def state(self) -> NvmlState:
        """Return what the state file says now, to a session that is in force."""
        if not self._inits:
            raise Refused(pynvml.NVML_ERROR_UNINITIALIZED)
        state = self._read()
        if state.driver.generation != self.generation:
            raise Refused(pynvml.NVML_ERROR_UNINITIALIZED)
        return state

    def uuids(self) -> list[str]:
        """Return the GPUs of the session."""
        self.state()
        return self._uuids

    def put_device(self, reference: Any, uuid: str) -> None:
        """Write the handle of a device, always the same one."""
        place = _Place(self.generation, uuid)
        if place not in self._places:
            self._places.append(place)
        put_handle(reference, self._places.index(place) + 1)

    def find(self, uuid: str) -> SimulatedGpu:
        """Return a GPU of the session."""
        gpu = next((gpu for gpu in self.state().gpus if gpu.uuid == uuid and not gpu.lost), None)
        if gpu is None:
            raise Refused(pynvml.NVML_ERROR_GPU_IS_LOST)
        return gpu

    def find_mig(self, uuid: str) -> tuple[SimulatedGpu, SimulatedMig] | None:
        """Return a MIG instance, with its GPU."""
        for gpu in self.state().gpus:
            for instance in gpu.mig or ():
                if instance.uuid == uuid and gpu.uuid in self._uuids:
                    return gpu, instance
        return None

    def device(self, handle: Any) -> tuple[SimulatedGpu, SimulatedMig | None]:
        """Return whom a handle means: a GPU, or a MIG instance of it."""
        self.state()
        position = handle_number(handle) - 1
        if not 0 <= position < len(self._places) or self._places[position].generation != self.generation:
            raise Refused(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        uuid = self._places[position].uuid
        if uuid in self._uuids:
            return self.find(uuid), None
        found = self.find_mig(uuid)
        if found is None:  # a MIG instance that was destroyed
            raise Refused(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return self.find(found[0].uuid), found[1]

    def gpu(self, handle: Any) -> SimulatedGpu:
        """Return the GPU of a handle, for a function that has no answer about a MIG instance."""
        gpu, instance = self.device(handle)
        if instance is not None:
            raise Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return gpu

    def _read(self) -> NvmlState:
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            raise Refused(pynvml.NVML_ERROR_DRIVER_NOT_LOADED) from None
        if raw != self._raw:
            self._raw, self._state = raw, parse_state(raw)
        if not self._state.driver.loaded:
            raise Refused(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        return self._state
