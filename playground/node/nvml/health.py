"""The functions that tell of a GPU's health: ECC errors, remapped rows, the recovery it wants, and XID events.

Events of other kinds than XIDs can be registered for and never come. While a GPU of an event set is lost, waiting
fails at once, after the events that came before.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass, field
from typing import Any, get_args

import pynvml

from playground.node.nvml.session import Refused, Session, handle_number, put, put_handle, returns_code
from playground.node.nvml.state import RecoveryAction

POLL_SECONDS = 0.01
"""How often a waiting program looks at the state file."""

_RECOVERY_ACTIONS: tuple[RecoveryAction, ...] = get_args(RecoveryAction)


class HealthFunctions(Session):
    """ECC, row remapping, recovery action."""

    @returns_code
    def nvmlDeviceGetEccMode(self, device: Any, current: Any, pending: Any) -> None:
        """Return whether ECC is on."""
        mode = int(self.gpu(device).ecc)
        put(current, mode)
        put(pending, mode)

    @returns_code
    def nvmlDeviceGetTotalEccErrors(self, device: Any, error_type: Any, _counter_type: Any, count: Any) -> None:
        """Return how many errors there were; corrected ones never."""
        gpu = self.gpu(device)
        if not gpu.ecc:
            raise Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
        uncorrected = error_type.value == pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
        put(count, gpu.ecc_uncorrected if uncorrected else 0)

    @returns_code
    def nvmlDeviceGetRemappedRows(
        self, device: Any, corrected: Any, uncorrected: Any, pending: Any, failure: Any
    ) -> None:
        """Return the rows; NVIDIA documents that GPUs with MIG instances do not answer."""
        gpu = self.gpu(device)
        if gpu.remapped is None or gpu.mig:
            raise Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
        put(corrected, gpu.remapped.corrected)
        put(uncorrected, gpu.remapped.uncorrected)
        put(pending, int(gpu.remapped.pending))
        put(failure, int(gpu.remapped.failure))

    @returns_code
    def nvmlDeviceGetFieldValues(self, device: Any, count: Any, values: Any) -> None:
        """Answer each field for itself; only the recovery action is known."""
        action = self.gpu(device).recovery_action
        for value in values._obj[: count.value]:
            if value.fieldId == pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION and action is not None:
                value.nvmlReturn, value.valueType = pynvml.NVML_SUCCESS, pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
                value.value.uiVal = _RECOVERY_ACTIONS.index(action)
                value.timestamp = time.time_ns() // 1000
            else:
                value.nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED


@dataclass(slots=True)
class _EventSet:
    generation: int
    registered: dict[str, tuple[int, int]] = field(default_factory=dict)  # uuid -> device handle, mask of event types
    had: dict[str, int] = field(default_factory=dict)  # uuid -> number of the last XID that is no news


class EventFunctions(Session):
    """Event sets."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._sets: dict[int, _EventSet] = {}  # handle -> set
        self._last_set = 0

    @returns_code
    def nvmlDeviceGetSupportedEventTypes(self, device: Any, types: Any) -> None:
        """Return the kinds that can be registered for."""
        put(types, self._supported(device))

    @returns_code
    def nvmlEventSetCreate(self, event_set: Any) -> None:
        """Create an empty set."""
        self.state()
        self._last_set += 1
        self._sets[self._last_set] = _EventSet(self.generation)
        put_handle(event_set, self._last_set)

    @returns_code
    def nvmlDeviceRegisterEvents(self, device: Any, types: Any, event_set: Any) -> None:
        """Have a set told of what happens from now on."""
        target = self._set(event_set)
        if types.value & ~self._supported(device):
            raise Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
        gpu = self.gpu(device)
        _, mask = target.registered.get(gpu.uuid, (0, 0))
        if not mask & pynvml.nvmlEventTypeXidCriticalError:
            target.had[gpu.uuid] = max((xid.number for xid in gpu.xids), default=0)
        target.registered[gpu.uuid] = handle_number(device), mask | types.value

    def nvmlEventSetWait_v2(self, event_set: Any, data: Any, timeout: Any) -> int:
        """Wait for an event, at most so many milliseconds. Others may call meanwhile."""
        deadline = time.monotonic() + timeout.value / 1000
        while (code := self._take(event_set, data)) == pynvml.NVML_ERROR_TIMEOUT:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, POLL_SECONDS))
        return code

    @returns_code
    def nvmlEventSetFree(self, event_set: Any) -> None:
        """Forget a set; whoever waits for it is answered INVALID_ARGUMENT."""
        self._set(event_set)
        del self._sets[handle_number(event_set)]

    @returns_code
    def _take(self, event_set: Any, data: Any) -> None:
        target = self._set(event_set)
        gpus = {gpu.uuid: gpu for gpu in self.state().gpus}
        for uuid, (handle, mask) in target.registered.items():
            news = [xid for xid in gpus[uuid].xids if xid.number > target.had[uuid]] if uuid in gpus else []
            if news and mask & pynvml.nvmlEventTypeXidCriticalError:
                first = min(news, key=lambda xid: xid.number)
                target.had[uuid] = first.number
                ctypes.c_void_p.from_buffer(data._obj).value = handle  # its first field is the device
                data._obj.eventType, data._obj.eventData = pynvml.nvmlEventTypeXidCriticalError, first.xid
                data._obj.gpuInstanceId, data._obj.computeInstanceId = first.gpu_instance, first.compute_instance
                return
        for uuid in target.registered:
            self.find(uuid)
        raise Refused(pynvml.NVML_ERROR_TIMEOUT)

    def _set(self, handle: Any) -> _EventSet:
        self.state()
        found = self._sets.get(handle_number(handle))
        if found is None or found.generation != self.generation:
            raise Refused(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return found

    def _supported(self, device: Any) -> int:
        ecc = pynvml.nvmlEventTypeSingleBitEccError | pynvml.nvmlEventTypeDoubleBitEccError
        return int(pynvml.nvmlEventTypeXidCriticalError | (ecc if self.gpu(device).ecc else 0))
