"""The simulated NVML through the unchanged pynvml: the Python object and the C library answer the same."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pynvml
import pytest

from playground.node.nvml import (
    ANY_INSTANCE,
    MIB,
    STATE_VARIABLE,
    GpuProcess,
    RecoveryAction,
    RemappedRows,
    SimulatedGpu,
    SimulatedMig,
    SimulatedXid,
    build_library,
    compute_mode,
    install,
    restart_driver,
    unload_driver,
    write_state,
)

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
B = SimulatedGpu(uuid="GPU-b", product='NVIDIA "L4"', memory_mib=23034, compute_capability=(8, 9))
SPLIT = SimulatedGpu(
    uuid="GPU-m",
    product="NVIDIA H100",
    memory_mib=81559,
    reserved_mib=500,
    mig=[
        SimulatedMig(
            uuid="MIG-1",
            profile="1g.10gb",
            memory_mib=9856,
            gpu_instance=9,
            processes=[GpuProcess(pid=51, used_mib=100)],
        ),
        SimulatedMig(uuid="MIG-2", profile="1c.3g.40gb", memory_mib=40448, gpu_instance=2, compute_instance=1),
    ],
)
XID = pynvml.nvmlEventTypeXidCriticalError


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = build_library(tmp_path_factory.mktemp("nvml"))
    if built is None:
        pytest.skip("needs a C compiler: there is no `cc` on PATH")
    return built


Start = Callable[[Path], object]


@pytest.fixture(params=["python", "c"])
def use(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Make pynvml talk to one of the two, on a state file."""
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    start: Start = install
    if request.param == "c":
        loaded = ctypes.CDLL(str(request.getfixturevalue("library")))

        def start(path: Path) -> None:
            monkeypatch.setenv(STATE_VARIABLE, str(path))
            pynvml.nvmlLib = loaded

    yield start
    while pynvml.nvmlLib.nvmlShutdown() == pynvml.NVML_SUCCESS:
        pass  # the C library is loaded once for all tests


@pytest.fixture
def state(tmp_path: Path, use: Start) -> Path:
    path = tmp_path / "nvml.json"
    write_state(path, [A, B, SPLIT])
    use(path)
    pynvml.nvmlInit()
    return path


def c_function(name: str) -> Any:
    """A function of the library, past pynvml's convenience."""
    return pynvml._nvmlGetFunctionPointer(name)


class TestWholeGpus:
    def test_identity(self, state: Path) -> None:
        assert pynvml.nvmlDeviceGetCount() == 3
        handle = pynvml.nvmlDeviceGetHandleByUUID("GPU-a")
        assert pynvml.nvmlDeviceGetUUID(handle) == "GPU-a"
        assert pynvml.nvmlDeviceGetName(handle) == "NVIDIA A100-SXM4-80GB"
        assert pynvml.nvmlDeviceGetMinorNumber(handle) == 3
        assert pynvml.nvmlDeviceGetNumaNodeId(handle) == 1
        assert pynvml.nvmlDeviceGetCudaComputeCapability(handle) == (8, 0)
        info = pynvml.nvmlDeviceGetPciInfo(handle)
        assert (info.busId, info.busIdLegacy) == ("00000000:3B:00.0", "0000:3B:00.0")
        assert (info.domain, info.bus, info.device) == (0, 0x3B, 0)
        second = pynvml.nvmlDeviceGetHandleByIndex(1)
        assert pynvml.nvmlDeviceGetUUID(second) == "GPU-b"
        assert pynvml.nvmlDeviceGetName(second) == 'NVIDIA "L4"'
        assert pynvml.nvmlDeviceGetIndex(second) == 1
        assert pynvml.nvmlDeviceGetCudaComputeCapability(second) == (8, 9)
        with pytest.raises(pynvml.NVMLError_NotSupported):
            pynvml.nvmlDeviceGetNumaNodeId(second)

    def test_driver(self, state: Path) -> None:
        assert pynvml.nvmlSystemGetDriverVersion() == "580.95.05"
        assert pynvml.nvmlSystemGetCudaDriverVersion_v2() == 13000

    def test_memory_in_both_versions(self, state: Path) -> None:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        old = pynvml.nvmlDeviceGetMemoryInfo(handle)
        assert (old.total, old.used, old.free) == (81920 * MIB, 1624 * MIB, 80296 * MIB)
        new = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
        assert (new.total, new.reserved, new.used) == (81920 * MIB, 600 * MIB, 1024 * MIB)
        assert new.free == old.free
        with pytest.raises(pynvml.NVMLError) as refused:
            pynvml.nvmlDeviceGetMemoryInfo(handle, version=0x03000028)
        assert refused.value.value == pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH

    def test_processes(self, state: Path) -> None:
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(0))
        assert [(p.pid, p.usedGpuMemory) for p in processes] == [(41, 1000 * MIB), (42, 24 * MIB)]
        assert {(p.gpuInstanceId, p.computeInstanceId) for p in processes} == {(ANY_INSTANCE, ANY_INSTANCE)}
        assert pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(1)) == []

    def test_room_that_is_too_small_is_refused_with_the_size_it_takes(self, state: Path) -> None:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        count, array = ctypes.c_uint(1), (pynvml.c_nvmlProcessInfo_v3_t * 1)()
        function = c_function("nvmlDeviceGetComputeRunningProcesses_v3")
        assert function(handle, ctypes.byref(count), array) == pynvml.NVML_ERROR_INSUFFICIENT_SIZE
        assert count.value == 2
        buffer = ctypes.create_string_buffer(5)
        for name in ("nvmlDeviceGetUUID", "nvmlDeviceGetName"):
            code = c_function(name)(handle, buffer, ctypes.c_uint(5))
            assert (code, buffer.value) == (pynvml.NVML_ERROR_INSUFFICIENT_SIZE, b"")
        code = c_function("nvmlSystemGetDriverVersion")(buffer, ctypes.c_uint(5))
        assert (code, buffer.value) == (pynvml.NVML_ERROR_INSUFFICIENT_SIZE, b"")

    def test_changes_of_the_file_are_seen_at_once(self, state: Path) -> None:
        handle = pynvml.nvmlDeviceGetHandleByUUID("GPU-b")
        for pid in range(20):
            write_state(state, [A, replace(B, processes=[GpuProcess(pid=pid, used_mib=5)])])
            assert [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)] == [pid]

    @pytest.mark.parametrize("after", [[B], [replace(A, lost=True), B]], ids=["removed", "marked lost"])
    def test_a_lost_gpu_fails_and_the_others_keep_their_handles(self, state: Path, after: list[SimulatedGpu]) -> None:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(2)]
        write_state(state, after)
        for function in (pynvml.nvmlDeviceGetMemoryInfo, pynvml.nvmlDeviceGetUUID, pynvml.nvmlDeviceGetMigMode):
            with pytest.raises(pynvml.NVMLError_GpuIsLost):
                function(handles[0])
        assert pynvml.nvmlDeviceGetUUID(handles[1]) == "GPU-b"
        assert pynvml.nvmlDeviceGetCount() == 3
        write_state(state, [A, B])
        assert pynvml.nvmlDeviceGetUUID(handles[0]) == "GPU-a"

    def test_compute_mode_is_kept_for_all_until_the_driver_restarts(self, state: Path) -> None:
        handle = pynvml.nvmlDeviceGetHandleByUUID("GPU-b")
        assert pynvml.nvmlDeviceGetComputeMode(handle) == pynvml.NVML_COMPUTEMODE_DEFAULT
        pynvml.nvmlDeviceSetComputeMode(handle, pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS)
        assert pynvml.nvmlDeviceGetComputeMode(handle) == pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS
        assert [compute_mode(state, uuid) for uuid in ("GPU-a", "GPU-b")] == [0, 3]
        with pytest.raises(pynvml.NVMLError_NotSupported):
            pynvml.nvmlDeviceSetComputeMode(handle, pynvml.NVML_COMPUTEMODE_EXCLUSIVE_THREAD)
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            pynvml.nvmlDeviceSetComputeMode(handle, pynvml.NVML_COMPUTEMODE_COUNT)
        with pytest.raises(pynvml.NVMLError_NotSupported):
            pynvml.nvmlDeviceSetComputeMode(pynvml.nvmlDeviceGetHandleByUUID("GPU-m"), 3)
        restart_driver(state)
        pynvml.nvmlInit()
        assert pynvml.nvmlDeviceGetComputeMode(pynvml.nvmlDeviceGetHandleByUUID("GPU-b")) == 0
        assert compute_mode(state, "GPU-b") == 0


class TestMig:
    def instances(self) -> list[Any]:
        """As NVIDIA's tools list them: by trying every index."""
        found = []
        gpu = pynvml.nvmlDeviceGetHandleByUUID("GPU-m")
        for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
            try:
                found.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index))
            except pynvml.NVMLError_NotFound:
                continue
        return found

    def test_mode(self, state: Path) -> None:
        whole, split = pynvml.nvmlDeviceGetHandleByUUID("GPU-a"), pynvml.nvmlDeviceGetHandleByUUID("GPU-m")
        assert pynvml.nvmlDeviceGetMigMode(whole) == [0, 0]
        assert pynvml.nvmlDeviceGetMigMode(split) == [1, 1]
        assert pynvml.nvmlDeviceGetMaxMigDeviceCount(whole) == 0
        assert pynvml.nvmlDeviceGetMaxMigDeviceCount(split) == 7
        for gpu, index in ((whole, 0), (split, 7)):
            with pytest.raises(pynvml.NVMLError_InvalidArgument):
                pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)

    def test_mode_may_be_on_without_instances(self, state: Path) -> None:
        write_state(state, [replace(SPLIT, mig=[])])
        assert pynvml.nvmlDeviceGetMigMode(pynvml.nvmlDeviceGetHandleByUUID("GPU-m")) == [1, 1]
        assert self.instances() == []

    def test_identity_of_instances(self, state: Path) -> None:
        one, two = self.instances()
        assert [pynvml.nvmlDeviceGetUUID(handle) for handle in (one, two)] == ["MIG-1", "MIG-2"]
        assert pynvml.nvmlDeviceGetName(two) == "NVIDIA H100 MIG 1c.3g.40gb"
        assert [pynvml.nvmlDeviceGetGpuInstanceId(handle) for handle in (one, two)] == [9, 2]
        assert [pynvml.nvmlDeviceGetComputeInstanceId(handle) for handle in (one, two)] == [0, 1]
        assert pynvml.nvmlDeviceIsMigDeviceHandle(one).value == 1
        by_uuid = pynvml.nvmlDeviceGetHandleByUUID("MIG-2")
        assert pynvml.nvmlDeviceGetComputeInstanceId(by_uuid) == 1
        parent = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(by_uuid)
        assert pynvml.nvmlDeviceGetUUID(parent) == "GPU-m"
        assert pynvml.nvmlDeviceIsMigDeviceHandle(parent).value == 0

    def test_memory_and_processes_are_the_instances_own_and_the_parents_all(self, state: Path) -> None:
        one, two = self.instances()
        memory = pynvml.nvmlDeviceGetMemoryInfo(one, version=pynvml.nvmlMemory_v2)
        assert (memory.total, memory.reserved, memory.used) == (9856 * MIB, 0, 100 * MIB)
        assert pynvml.nvmlDeviceGetMemoryInfo(two).used == 0
        assert pynvml.nvmlDeviceGetComputeRunningProcesses(two) == []
        parent = pynvml.nvmlDeviceGetHandleByUUID("GPU-m")
        assert pynvml.nvmlDeviceGetMemoryInfo(parent).used == 600 * MIB
        for handle in (one, parent):
            [process] = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
            assert (process.pid, process.usedGpuMemory) == (51, 100 * MIB)
            assert (process.gpuInstanceId, process.computeInstanceId) == (9, 0)

    @pytest.mark.parametrize(
        "ask",
        [
            pynvml.nvmlDeviceGetMinorNumber,
            pynvml.nvmlDeviceGetIndex,
            pynvml.nvmlDeviceGetPciInfo,
            pynvml.nvmlDeviceGetNumaNodeId,
            pynvml.nvmlDeviceGetMigMode,
            pynvml.nvmlDeviceGetRemappedRows,
            pynvml.nvmlDeviceGetEccMode,
            pynvml.nvmlDeviceGetSupportedEventTypes,
            pynvml.nvmlDeviceGetComputeMode,
        ],
    )
    def test_what_only_the_parent_answers(self, state: Path, ask: Callable[[Any], object]) -> None:
        with pytest.raises(pynvml.NVMLError_NotSupported):
            ask(self.instances()[0])

    def test_what_only_an_instance_answers(self, state: Path) -> None:
        parent = pynvml.nvmlDeviceGetHandleByUUID("GPU-m")
        for ask in (pynvml.nvmlDeviceGetGpuInstanceId, pynvml.nvmlDeviceGetComputeInstanceId):
            with pytest.raises(pynvml.NVMLError_NotSupported):
                ask(parent)
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(parent)

    def test_an_instance_that_is_destroyed_leaves_an_invalid_handle(self, state: Path) -> None:
        one, two = self.instances()
        write_state(state, [A, B, replace(SPLIT, mig=SPLIT.mig[1:] if SPLIT.mig else None)])
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            pynvml.nvmlDeviceGetMemoryInfo(one)
        with pytest.raises(pynvml.NVMLError_NotFound):
            pynvml.nvmlDeviceGetHandleByUUID("MIG-1")
        assert pynvml.nvmlDeviceGetUUID(two) == "MIG-2"
        assert len(self.instances()) == 1

    def test_the_instances_of_a_lost_gpu_are_lost(self, state: Path) -> None:
        one, _ = self.instances()
        write_state(state, [A, B, replace(SPLIT, lost=True)])
        with pytest.raises(pynvml.NVMLError_GpuIsLost):
            pynvml.nvmlDeviceGetMemoryInfo(one)


class TestHealth:
    def test_ecc(self, state: Path) -> None:
        handle = pynvml.nvmlDeviceGetHandleByUUID("GPU-a")
        write_state(state, [replace(A, ecc_uncorrected=5_000_000_000)])
        assert pynvml.nvmlDeviceGetEccMode(handle) == [1, 1]

        def errors(kind: int) -> int:
            return int(pynvml.nvmlDeviceGetTotalEccErrors(handle, kind, pynvml.NVML_VOLATILE_ECC))

        assert errors(pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED) == 5_000_000_000
        assert errors(pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED) == 0
        write_state(state, [replace(A, ecc=False)])
        assert pynvml.nvmlDeviceGetEccMode(handle) == [0, 0]
        with pytest.raises(pynvml.NVMLError_NotSupported):
            errors(pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED)

    def test_remapped_rows(self, state: Path) -> None:
        handle = pynvml.nvmlDeviceGetHandleByUUID("GPU-a")
        assert pynvml.nvmlDeviceGetRemappedRows(handle) == (0, 0, 0, 0)
        write_state(state, [replace(A, remapped=RemappedRows(corrected=4, uncorrected=3, pending=True))])
        assert pynvml.nvmlDeviceGetRemappedRows(handle) == (4, 3, 1, 0)
        write_state(state, [replace(A, remapped=RemappedRows(failure=True))])
        assert pynvml.nvmlDeviceGetRemappedRows(handle) == (0, 0, 0, 1)
        write_state(state, [replace(A, remapped=None)])
        with pytest.raises(pynvml.NVMLError_NotSupported):
            pynvml.nvmlDeviceGetRemappedRows(handle)

    def test_remapped_rows_are_not_told_of_a_gpu_with_mig_instances(self, state: Path) -> None:
        handle = pynvml.nvmlDeviceGetHandleByUUID("GPU-m")
        with pytest.raises(pynvml.NVMLError_NotSupported):
            pynvml.nvmlDeviceGetRemappedRows(handle)
        write_state(state, [replace(SPLIT, mig=[])])
        assert pynvml.nvmlDeviceGetRemappedRows(handle) == (0, 0, 0, 0)

    @pytest.mark.parametrize(
        ("action", "want"),
        [
            ("none", pynvml.NVML_GPU_RECOVERY_ACTION_NONE),
            ("reset", pynvml.NVML_GPU_RECOVERY_ACTION_GPU_RESET),
            ("reboot", pynvml.NVML_GPU_RECOVERY_ACTION_NODE_REBOOT),
            ("drain-p2p", pynvml.NVML_GPU_RECOVERY_ACTION_DRAIN_P2P),
            ("drain-and-reset", pynvml.NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET),
        ],
    )
    def test_recovery_action(self, state: Path, action: RecoveryAction, want: int) -> None:
        write_state(state, [replace(A, recovery_action=action)])
        [value] = pynvml.nvmlDeviceGetFieldValues(
            pynvml.nvmlDeviceGetHandleByUUID("GPU-a"), [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION]
        )
        assert (value.nvmlReturn, value.valueType) == (pynvml.NVML_SUCCESS, pynvml.NVML_VALUE_TYPE_UNSIGNED_INT)
        assert value.value.uiVal == want
        assert value.timestamp > 0

    def test_each_field_is_answered_for_itself(self, state: Path) -> None:
        fields = [pynvml.NVML_FI_DEV_RESET_STATUS, pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION]
        handle = pynvml.nvmlDeviceGetHandleByUUID("GPU-a")

        def codes() -> list[int]:
            return [value.nvmlReturn for value in pynvml.nvmlDeviceGetFieldValues(handle, fields)]

        assert codes() == [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_SUCCESS]
        write_state(state, [replace(A, recovery_action=None)])
        assert codes() == [pynvml.NVML_ERROR_NOT_SUPPORTED] * 2


class Waiter(threading.Thread):
    """Waits for one event; what came is the event, or the error's class."""

    def __init__(self, event_set: object) -> None:
        super().__init__(daemon=True)
        self.event_set = event_set
        self.event: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.event = pynvml.nvmlEventSetWait(self.event_set, 20_000)
        except pynvml.NVMLError as exc:
            self.event = type(exc)

    def result(self) -> Any:
        self.join(timeout=30)
        return self.event


class TestEvents:
    def registered(self, *uuids: str) -> Any:
        event_set = pynvml.nvmlEventSetCreate()
        for uuid in uuids:
            pynvml.nvmlDeviceRegisterEvents(pynvml.nvmlDeviceGetHandleByUUID(uuid), XID, event_set)
        return event_set

    def take(self, event_set: object) -> tuple[str, int, int, int]:
        event = pynvml.nvmlEventSetWait_v2(event_set, 0)
        assert event.eventType == XID
        return pynvml.nvmlDeviceGetUUID(event.device), event.eventData, event.gpuInstanceId, event.computeInstanceId

    def nothing(self, event_set: object, *, milliseconds: int = 0) -> None:
        with pytest.raises(pynvml.NVMLError_Timeout):
            pynvml.nvmlEventSetWait(event_set, milliseconds)

    def test_each_xid_after_the_registration_comes_once_and_in_order(self, state: Path) -> None:
        before = SimulatedXid(number=1, xid=31)
        write_state(state, [replace(A, xids=[before]), B, SPLIT])
        event_set = self.registered("GPU-a", "GPU-b", "GPU-m")
        self.nothing(event_set, milliseconds=15)
        news = [SimulatedXid(number=3, xid=79), SimulatedXid(number=2, xid=48)]
        inside = SimulatedXid(number=1, xid=94, gpu_instance=9, compute_instance=0)
        write_state(state, [replace(A, xids=[before, *news]), B, replace(SPLIT, xids=[inside])])
        assert self.take(event_set) == ("GPU-a", 48, ANY_INSTANCE, ANY_INSTANCE)
        assert self.take(event_set) == ("GPU-a", 79, ANY_INSTANCE, ANY_INSTANCE)
        assert self.take(event_set) == ("GPU-m", 94, 9, 0)
        self.nothing(event_set)

    def test_sets_are_told_independently_and_only_of_their_gpus(self, state: Path) -> None:
        both, other = self.registered("GPU-a", "GPU-b"), self.registered("GPU-b")
        write_state(state, [replace(A, xids=[SimulatedXid(number=1, xid=79)]), B])
        self.nothing(other)
        assert self.take(both)[1] == 79
        write_state(state, [A, replace(B, xids=[SimulatedXid(number=1, xid=63)])])
        assert (self.take(both)[1], self.take(other)[1]) == (63, 63)

    def test_registering_again_repeats_nothing_and_loses_nothing(self, state: Path) -> None:
        event_set = self.registered("GPU-a")
        write_state(state, [replace(A, xids=[SimulatedXid(number=1, xid=79)])])
        pynvml.nvmlDeviceRegisterEvents(pynvml.nvmlDeviceGetHandleByUUID("GPU-a"), XID, event_set)
        assert self.take(event_set)[1] == 79
        self.nothing(event_set)

    def test_a_thread_waits_while_others_ask(self, state: Path) -> None:
        waiter = Waiter(self.registered("GPU-a", "GPU-b"))
        assert pynvml.nvmlDeviceGetCount() == 3
        write_state(state, [A, replace(B, xids=[SimulatedXid(number=1, xid=79)]), SPLIT])
        event = waiter.result()
        assert (pynvml.nvmlDeviceGetUUID(event.device), event.eventData) == ("GPU-b", 79)

    def test_kinds_that_a_gpu_does_not_have_are_refused(self, state: Path) -> None:
        write_state(state, [A, replace(B, ecc=False), SPLIT])
        ecc = pynvml.nvmlEventTypeSingleBitEccError | pynvml.nvmlEventTypeDoubleBitEccError
        event_set = pynvml.nvmlEventSetCreate()
        for uuid, want in (("GPU-a", XID | ecc), ("GPU-b", XID)):
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            assert pynvml.nvmlDeviceGetSupportedEventTypes(handle) == want
            pynvml.nvmlDeviceRegisterEvents(handle, want, event_set)
        for uuid, types in (("GPU-b", ecc), ("GPU-a", pynvml.nvmlEventTypeClock), ("MIG-1", XID)):
            with pytest.raises(pynvml.NVMLError_NotSupported):
                pynvml.nvmlDeviceRegisterEvents(pynvml.nvmlDeviceGetHandleByUUID(uuid), types, event_set)

    def test_a_lost_gpu_ends_the_wait_after_its_last_event(self, state: Path) -> None:
        event_set = self.registered("GPU-b", "GPU-a")
        write_state(state, [replace(A, lost=True, xids=[SimulatedXid(number=1, xid=79)]), B])
        assert pynvml.nvmlEventSetWait(event_set, 0).eventData == 79
        assert Waiter(event_set).result() is pynvml.NVMLError_GpuIsLost
        with pytest.raises(pynvml.NVMLError_GpuIsLost):
            pynvml.nvmlDeviceRegisterEvents(pynvml.nvmlDeviceGetHandleByUUID("GPU-a"), XID, event_set)

    def test_a_set_that_is_freed_is_gone_for_whoever_waits(self, state: Path) -> None:
        event_set = self.registered("GPU-a")
        waiter = Waiter(event_set)
        pynvml.nvmlEventSetFree(event_set)
        assert waiter.result() is pynvml.NVMLError_InvalidArgument
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            pynvml.nvmlEventSetFree(event_set)

    def test_a_restart_of_the_driver_ends_the_wait(self, state: Path) -> None:
        event_set = self.registered("GPU-a")
        waiter = Waiter(event_set)
        restart_driver(state)
        assert waiter.result() is pynvml.NVMLError_Uninitialized
        pynvml.nvmlInit()
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            pynvml.nvmlEventSetWait(event_set, 0)


class TestSessions:
    def test_what_is_not_there_fails_as_in_the_real_library(self, state: Path) -> None:
        with pytest.raises(pynvml.NVMLError_FunctionNotFound):
            pynvml.nvmlDeviceGetFanSpeed(pynvml.nvmlDeviceGetHandleByIndex(0))
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            pynvml.nvmlDeviceGetHandleByIndex(3)
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            pynvml.nvmlDeviceGetUUID(pynvml.c_nvmlDevice_t())
        with pytest.raises(pynvml.NVMLError_NotFound):
            pynvml.nvmlDeviceGetHandleByUUID("GPU-z")

    def test_texts_of_codes(self, state: Path) -> None:
        names = {value: name for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_")}
        for code, name in names.items():
            assert "NVML_ERROR_" + pynvml.nvmlErrorString(code).upper().replace(" ", "_") == name
        assert pynvml.nvmlErrorString(pynvml.NVML_SUCCESS) == "Success"
        assert pynvml.nvmlErrorString(-1) == "Unknown"

    def test_a_session_ends_with_the_last_shutdown(self, state: Path) -> None:
        pynvml.nvmlInit()
        pynvml.nvmlShutdown()
        assert pynvml.nvmlDeviceGetCount() == 3
        pynvml.nvmlShutdown()
        for ask in (pynvml.nvmlDeviceGetCount, pynvml.nvmlEventSetCreate, pynvml.nvmlShutdown):
            with pytest.raises(pynvml.NVMLError_Uninitialized):
                ask()

    def test_no_state_file_is_no_driver(self, use: Start, tmp_path: Path) -> None:
        use(tmp_path / "absent.json")
        with pytest.raises(pynvml.NVMLError_DriverNotLoaded):
            pynvml.nvmlInit()

    def test_a_bare_list_of_gpus_is_a_state(self, use: Start, tmp_path: Path) -> None:
        path = tmp_path / "nvml.json"
        path.write_text('[{"uuid":"GPU-a","product":"NVIDIA L4","memory_mib":23034}]')
        use(path)
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        assert pynvml.nvmlDeviceGetName(handle) == "NVIDIA L4"
        assert pynvml.nvmlDeviceGetMemoryInfo(handle).free == 23034 * MIB
        assert pynvml.nvmlSystemGetDriverVersion() == "580.95.05"
        assert pynvml.nvmlDeviceGetCudaComputeCapability(handle) == (8, 0)
        assert pynvml.nvmlDeviceGetEccMode(handle) == [1, 1]
        assert pynvml.nvmlDeviceGetPciInfo(handle).busId == "00000000:01:00.0"

    def test_another_driver_wants_another_init(self, state: Path) -> None:
        handle = pynvml.nvmlDeviceGetHandleByUUID("GPU-b")
        unload_driver(state)
        for ask in (pynvml.nvmlDeviceGetCount, pynvml.nvmlInit, lambda: pynvml.nvmlDeviceGetUUID(handle)):
            with pytest.raises(pynvml.NVMLError_DriverNotLoaded):
                ask()
        restart_driver(state, version="590.10")
        write_state(state, [B])
        for ask in (
            pynvml.nvmlDeviceGetCount,
            pynvml.nvmlSystemGetDriverVersion,
            lambda: pynvml.nvmlDeviceGetUUID(handle),
        ):
            with pytest.raises(pynvml.NVMLError_Uninitialized):
                ask()
        pynvml.nvmlInit()
        assert pynvml.nvmlSystemGetDriverVersion() == "590.10"
        assert pynvml.nvmlDeviceGetCount() == 1
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            pynvml.nvmlDeviceGetUUID(handle)
        assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(0)) == "GPU-b"

    def test_inits_of_before_and_after_a_restart_are_counted_together(self, state: Path) -> None:
        restart_driver(state)
        pynvml.nvmlInit()
        pynvml.nvmlShutdown()
        assert pynvml.nvmlDeviceGetCount() == 3
        pynvml.nvmlShutdown()
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            pynvml.nvmlDeviceGetCount()


PROGRAM = """
import json, pynvml
pynvml.nvmlInit()
gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
events = pynvml.nvmlEventSetCreate()
pynvml.nvmlDeviceRegisterEvents(gpu, pynvml.nvmlEventTypeXidCriticalError, events)
print(json.dumps([pynvml.nvmlDeviceGetUUID(gpu), pynvml.nvmlDeviceGetMemoryInfo(gpu).total]), flush=True)
event = pynvml.nvmlEventSetWait(events, 60000)
print(json.dumps([pynvml.nvmlDeviceGetUUID(event.device), event.eventData]))
"""


def test_an_unmodified_program_loads_the_library_by_its_name(library: Path, tmp_path: Path) -> None:
    state = tmp_path / "nvml.json"
    write_state(state, [A])
    environment = os.environ | {"LD_LIBRARY_PATH": str(library.parent), STATE_VARIABLE: str(state)}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert json.loads(program.stdout.readline()) == ["GPU-a", 81920 * MIB]
        write_state(state, [replace(A, xids=[SimulatedXid(number=1, xid=79)])])
        output, _ = program.communicate(timeout=60)
        assert json.loads(output) == ["GPU-a", 79]
    assert program.returncode == 0
