"""The session with NVML: which GPUs there are, how they are, what runs on them. The only module that imports pynvml.

Calls block, and hang when a GPU is sick: callers make them in threads (`plugin.gpus.patience`). A GPU is asked by one
thread at a time; who comes while a question to it hangs hears after 2 s that it does not answer. So at most one thread
for each GPU is ever stuck here, and the other GPUs are not concerned. The session is never closed under a call.
"""

import ctypes
import threading
import warnings
from _ctypes import dlclose
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from fracgpu.errors import UnavailableError
from fracgpu.names import GpuUuid
from fracgpu.quantities import MIB_BYTES, Mib
from plugin.gpus.cards import Card, MigPlace
from plugin.gpus.discovery import Discovery, FoundGpu, MigStrategy, choose
from plugin.gpus.vitals import Vitals, XidEvent

with warnings.catch_warnings():
    # The package "pynvml" depends on nvidia-ml-py, which brings the module, and warns of its own name.
    warnings.simplefilter("ignore", FutureWarning)
    import pynvml

CLOSING_SECONDS: Final = 2.0
"""How long the end of a session waits for calls that are under way."""
BUSY_SECONDS: Final = 2.0
"""How long a question to a GPU waits for the one before it."""
LONGEST_WAIT_MS: Final = 1000
"""For an event: short, so that a session can be closed."""

_NO_DRIVER: Final = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
_SESSION_OVER: Final = (
    *_NO_DRIVER,
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
)
"""Codes that are not about one GPU: the driver was unloaded or exchanged under us."""
_NOT_TOLD: Final = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NO_PERMISSION,
)
"""Codes of a GPU that answers, but not this: too old, of another kind, or not to us."""
_SERIOUS: Final = (*_SESSION_OVER, pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)
"""Codes that matter whatever was asked."""
_NO_INSTANCE: Final = 0xFFFFFFFF

_LOST: Final = "the driver has lost it"
"""The same words for a GPU that is lost in a session and for one that a new session does not find: one problem."""

_T = TypeVar("_T")


@dataclass(slots=True)
class _Gpu:
    """A GPU of the session: NVML's handle of it, and what keeps questions to it apart."""

    uuid: GpuUuid
    index: int
    handle: Any
    asking: threading.Lock = field(default_factory=threading.Lock)


class Nvml:
    """One session with NVML, that can be opened again when the driver was restarted.

    Safe to use from several threads. All methods raise UnavailableError, with a sentence, where NVML as a whole does
    not answer: no session, no driver, or another driver than when the session began.
    """

    def __init__(self) -> None:
        self._gate = threading.Condition()  # guards all below
        self._calls = 0
        self._open = False
        self._closed_because = "there is no session with NVML"
        self._gpus: dict[GpuUuid, _Gpu] = {}  # UUID -> GPU, of this session
        self._nameless: tuple[str, ...] = ()
        self._events: Any = None
        self._driver_version = ""
        self._notes: tuple[str, ...] = ()

    def open(self) -> None:
        """Begin, unless that has been done; the GPUs of the session are those that the driver has now."""
        with self._gate:
            if self._open:
                return
        try:
            _translated(pynvml.nvmlInit)
            try:
                self._driver_version = str(_translated(pynvml.nvmlSystemGetDriverVersion))
                gpus, nameless = _enumerate()
                self._events, self._notes = _listen(gpus)
            except UnavailableError:
                _shut_down()
                raise
        except UnavailableError as exc:
            self._closed_because = str(exc)
            raise
        with self._gate:
            self._gpus, self._nameless = gpus, nameless
            self._open = True

    def close(self) -> bool:
        """End the session; False, and it goes on, where a call still hangs in it after 2 s.

        Ending it under that call could end the process.
        """
        with self._gate:
            if not self._open:
                return True
            self._open = False
            if not self._gate.wait_for(lambda: not self._calls, CLOSING_SECONDS):
                self._open = True
                return False
            events, self._events = self._events, None
        if events is not None:
            with suppress(pynvml.NVMLError):
                pynvml.nvmlEventSetFree(events)
        _shut_down()
        return True

    def reopen(self) -> bool:
        """End and begin again: sees GPUs that are new or back, and a driver that was restarted.

        False where a call hangs in the session, so that the old one goes on.
        """
        if not self.close():
            return False
        try:
            self.open()
        except UnavailableError as exc:
            if _code(exc.__cause__) == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
                _unload_library()
            raise
        return True

    @property
    def driver_version(self) -> str:
        """Of the session's driver, such as ``580.95.05``."""
        return self._driver_version

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each GPU that does not report its errors as they happen."""
        return self._notes

    def cards(self, mig_strategy: MigStrategy = "none") -> Discovery:
        """List the cards of this node, in NVML's order.

        A GPU that does not answer is listed with its `problem`, or among the `nameless` where not even its UUID could
        be read when the session began. It never keeps the others from being used.

        Raises:
            SettingError: the GPUs' MIG mode or instances do not go with the strategy.
        """
        with self._session():
            found, nameless = [], list(self._nameless)
            for gpu in self._gpus.values():
                try:
                    with self._asking(gpu):
                        found.append(_found(gpu))
                except pynvml.NVMLError as exc:
                    found.append(FoundGpu(_unread(gpu.uuid, gpu.index, exc)))
            return choose(found, strategy=mig_strategy, nameless=tuple(nameless))

    def vitals(self, gpu: GpuUuid) -> Vitals:
        """Look at one whole GPU; a GPU that does not answer is an answer, not an error."""
        with self._session():
            known = self._gpus.get(gpu)
            if known is None:
                return Vitals(problem=_silent(gpu, _LOST), down=True)
            try:
                with self._asking(known):
                    return _vitals(known.handle)
            except pynvml.NVMLError as exc:
                why = _LOST if _code(exc) == pynvml.NVML_ERROR_GPU_IS_LOST else f"NVML says {str(exc)!r}"
                # A GPU that is merely busy will not have been reset when it answers again.
                return Vitals(problem=_silent(gpu, why), down=_code(exc) != pynvml.NVML_ERROR_TIMEOUT)

    def wait_for_event(self, timeout_ms: int) -> XidEvent | None:
        """Wait for an Xid error of any GPU, at most a second; None where there was none."""
        with self._session():
            if self._events is None:
                return None
            try:
                data = pynvml.nvmlEventSetWait_v2(self._events, min(timeout_ms, LONGEST_WAIT_MS))
            except pynvml.NVMLError as exc:
                if _code(exc) == pynvml.NVML_ERROR_TIMEOUT:
                    return None
                raise _unavailable(exc) from exc
            gpu = next((gpu for gpu in self._gpus.values() if _address(gpu.handle) == _address(data.device)), None)
            if gpu is None or data.eventType != pynvml.nvmlEventTypeXidCriticalError:
                return None
            return XidEvent(
                gpu.uuid, int(data.eventData), _instance(data.gpuInstanceId), _instance(data.computeInstanceId)
            )

    def processes(self) -> dict[GpuUuid, tuple[tuple[int, int | None], ...]]:
        """Tell what runs: card -> (process ID on the host, bytes of video memory, None where that is not told).

        Both for whole GPUs and for MIG instances; those that do not answer are left out.
        """
        found: dict[GpuUuid, tuple[tuple[int, int | None], ...]] = {}
        with self._session():
            for gpu in self._gpus.values():
                with suppress(pynvml.NVMLError), self._asking(gpu):
                    found[gpu.uuid] = _processes(gpu.handle)
                    for _, handle in _instances(gpu.handle):
                        found[GpuUuid(pynvml.nvmlDeviceGetUUID(handle))] = _processes(handle)
        return found

    def cuda_compute_capability(self, gpu: GpuUuid) -> tuple[int, int]:
        """Major and minor, such as (9, 0); of a whole GPU. UnavailableError where it does not tell."""
        major, minor = self._of(gpu, pynvml.nvmlDeviceGetCudaComputeCapability)
        return int(major), int(minor)

    def set_compute_mode(self, gpu: GpuUuid, *, exclusive: bool) -> None:
        """Let one process compute on a whole GPU (an MPS daemon), or any; UnavailableError where that fails."""
        mode = pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS if exclusive else pynvml.NVML_COMPUTEMODE_DEFAULT
        self._of(gpu, lambda handle: pynvml.nvmlDeviceSetComputeMode(handle, mode))

    def _of(self, gpu: GpuUuid, function: Callable[[Any], _T]) -> _T:
        with self._session():
            known = self._gpus.get(gpu)
            if known is None:
                raise UnavailableError(f"NVML knows no GPU {gpu} on this node")
            try:
                with self._asking(known):
                    return function(known.handle)
            except pynvml.NVMLError as exc:
                raise UnavailableError(f"NVML says {str(exc)!r} of {gpu}") from exc

    @contextmanager
    def _session(self) -> Iterator[None]:
        with self._gate:
            if not self._open:
                raise UnavailableError(self._closed_because)
            self._calls += 1
        try:
            yield
        finally:
            with self._gate:
                self._calls -= 1
                self._gate.notify_all()

    @staticmethod
    @contextmanager
    def _asking(gpu: _Gpu) -> Iterator[None]:
        if not gpu.asking.acquire(timeout=BUSY_SECONDS):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
        try:
            yield
        except pynvml.NVMLError as exc:
            if _code(exc) in _SESSION_OVER:
                raise _unavailable(exc) from exc
            raise
        finally:
            gpu.asking.release()


def _enumerate() -> tuple[dict[GpuUuid, _Gpu], tuple[str, ...]]:
    gpus: dict[GpuUuid, _Gpu] = {}
    nameless: list[str] = []
    for index in range(_translated(pynvml.nvmlDeviceGetCount)):
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            uuid = GpuUuid(pynvml.nvmlDeviceGetUUID(handle))
        except pynvml.NVMLError as exc:
            nameless.append(f"GPU {index} of this node cannot be used: NVML says {str(exc)!r} when asked for its UUID")
        else:
            gpus[uuid] = _Gpu(uuid, index, handle)
    return gpus, tuple(nameless)


def _listen(gpus: dict[GpuUuid, _Gpu]) -> tuple[Any, tuple[str, ...]]:
    """Register for Xid errors; a GPU that has none is looked at all the same."""
    notes: list[str] = []
    try:
        events = pynvml.nvmlEventSetCreate()
    except pynvml.NVMLError as exc:
        return None, (f"no GPU of this node reports Xid errors: NVML says {str(exc)!r}",)
    for gpu in gpus.values():
        try:
            mask = pynvml.nvmlDeviceGetSupportedEventTypes(gpu.handle) & pynvml.nvmlEventTypeXidCriticalError
            if not mask:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            pynvml.nvmlDeviceRegisterEvents(gpu.handle, mask, events)
        except pynvml.NVMLError as exc:
            notes.append(f"{gpu.uuid} does not report Xid errors: NVML says {str(exc)!r}")
    return events, tuple(notes)


def _found(gpu: _Gpu) -> FoundGpu:
    handle = gpu.handle
    try:
        card = Card(
            gpu.uuid,
            gpu.index,
            product=str(pynvml.nvmlDeviceGetName(handle)),
            memory=_memory(handle),
            numa_node=_optional(pynvml.nvmlDeviceGetNumaNodeId, handle),
            minor=_optional(pynvml.nvmlDeviceGetMinorNumber, handle),
        )
    except pynvml.NVMLError as exc:
        if _code(exc) in _SESSION_OVER:
            raise
        return FoundGpu(_unread(gpu.uuid, gpu.index, exc))
    mig_mode = _mig_mode(handle)
    return FoundGpu(card, mig_mode, tuple(_instance_card(card, *each) for each in _instances(handle)))


def _instance_card(parent: Card, position: int, handle: Any) -> Card:
    uuid = GpuUuid(pynvml.nvmlDeviceGetUUID(handle))
    place = MigPlace(
        parent.uuid,
        position,
        gpu_instance=pynvml.nvmlDeviceGetGpuInstanceId(handle),
        compute_instance=pynvml.nvmlDeviceGetComputeInstanceId(handle),
    )
    problem, product, memory = "", "", Mib(0)
    try:
        product, memory = str(pynvml.nvmlDeviceGetName(handle)), _memory(handle)
    except pynvml.NVMLError as exc:
        if _code(exc) in _SESSION_OVER:
            raise
        problem = f"NVML says {str(exc)!r} when asked about {uuid}"
    return Card(uuid, parent.index, product, memory, parent.numa_node, problem, parent.minor, place)


def _unread(uuid: GpuUuid, index: int, exc: Exception) -> Card:
    return Card(uuid, index, product="", memory=Mib(0), problem=f"NVML says {str(exc)!r} when asked about {uuid}")


def _memory(handle: Any) -> Mib:
    return Mib(pynvml.nvmlDeviceGetMemoryInfo(handle).total // MIB_BYTES)


def _mig_mode(handle: Any) -> bool:
    mode = _optional(lambda handle: pynvml.nvmlDeviceGetMigMode(handle)[0], handle)
    return bool(mode == pynvml.NVML_DEVICE_MIG_ENABLE)


def _instances(handle: Any) -> Iterator[tuple[int, Any]]:
    """Position and handle of each MIG instance; positions may have gaps."""
    if not _mig_mode(handle):
        return
    for position in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            yield position, pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, position)
        except pynvml.NVMLError as exc:
            if _code(exc) not in (pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_INVALID_ARGUMENT):
                raise


def _vitals(handle: Any) -> Vitals:
    _where_supported(pynvml.nvmlDeviceGetMemoryInfo, handle)  # unlike the UUID, nothing that the library knows by heart
    rows = _optional(pynvml.nvmlDeviceGetRemappedRows, handle)
    return Vitals(
        uncorrected=_optional(
            lambda handle: pynvml.nvmlDeviceGetTotalEccErrors(
                handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
            ),
            handle,
        ),
        remap_pending=None if rows is None else bool(rows[2]),
        remap_failed=None if rows is None else bool(rows[3]),
        recovery=_optional(_recovery, handle),
    )


def _recovery(handle: Any) -> int | None:
    (value,) = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
    return int(value.value.uiVal) if value.nvmlReturn == pynvml.NVML_SUCCESS else None


def _processes(handle: Any) -> tuple[tuple[int, int | None], ...]:
    """One entry for each process, though it may compute and draw; its memory is the same in both lists."""
    found: dict[int, int | None] = {}
    for ask in (pynvml.nvmlDeviceGetComputeRunningProcesses_v3, pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3):
        for process in _where_supported(ask, handle) or ():
            if found.get(process.pid) is None:
                found[int(process.pid)] = process.usedGpuMemory
    return tuple(found.items())


def _optional(ask: Callable[[Any], _T], handle: Any) -> _T | None:
    """Ask for what can be done without: None where it is not told, for whatever reason."""
    try:
        return ask(handle)
    except pynvml.NVMLError as exc:
        if _code(exc) in _SERIOUS:
            raise
        return None


def _where_supported(ask: Callable[[Any], _T], handle: Any) -> _T | None:
    """Ask for what every GPU tells that is well, if it has it at all."""
    try:
        return ask(handle)
    except pynvml.NVMLError as exc:
        if _code(exc) in _NOT_TOLD:
            return None
        raise


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def _instance(number: int) -> int | None:
    return None if number == _NO_INSTANCE else int(number)


def _silent(gpu: GpuUuid, why: str) -> str:
    return (
        f"{gpu} does not answer: {why}. Look for Xid errors in the node's kernel log; where it stays so, drain the "
        "node, and reset the GPU (nvidia-smi --gpu-reset) or reboot"
    )


def _code(exc: BaseException | None) -> int | None:
    return getattr(exc, "value", None) if isinstance(exc, pynvml.NVMLError) else None


def _translated(function: Callable[[], _T]) -> _T:
    try:
        return function()
    except pynvml.NVMLError as exc:
        raise _unavailable(exc) from exc


def _unavailable(exc: Exception) -> UnavailableError:
    if _code(exc) in _NO_DRIVER:
        return UnavailableError(
            f"no NVIDIA driver on this node (NVML says {str(exc)!r}): install the driver, check with nvidia-smi, and "
            "run this plugin in the NVIDIA runtime (or with the driver's libraries mounted) on GPU nodes only"
        )
    if _code(exc) == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return UnavailableError(
            "the NVIDIA driver was exchanged, and this plugin sees the libraries of the other one (NVML says "
            f"{str(exc)!r}): restart the plugin's pod when the driver's upgrade is complete"
        )
    return UnavailableError(f"NVML does not answer on this node: {exc}; check with nvidia-smi")


def _shut_down() -> None:
    with suppress(pynvml.NVMLError):  # the driver may be gone, which is why the session ends
        pynvml.nvmlShutdown()


def _unload_library() -> None:
    """Forget the loaded library, so that the next session loads the one that the new driver has brought.

    The loader would otherwise return the old one for ever, as both have the same name.
    """
    library = pynvml.nvmlLib
    if isinstance(library, ctypes.CDLL):
        pynvml.nvmlLib = None
        pynvml._nvmlGetFunctionPointer_cache.clear()
        dlclose(library._handle)
