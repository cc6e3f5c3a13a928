"""The functions that say what a node's GPUs are and what runs on them, MIG included.

On a MIG handle answer UUID, name, memory, processes, instance numbers and the parent's handle. Whatever else NVIDIA's
documentation does not promise for it (minor number, index, PCI address, NUMA node and so on) is NOT_SUPPORTED, so that
a plugin asks the parent, as NVIDIA's own plugin does.
"""

from __future__ import annotations

from typing import Any

import pynvml

from playground.node.nvml.session import Refused, Session, put, put_text, returns_code
from playground.node.nvml.state import (
    ANY_INSTANCE,
    MIB,
    GpuProcess,
    SimulatedGpu,
    SimulatedMig,
    compute_mode,
    set_compute_mode,
)

MEMORY_V2 = 0x02000028
"""The version word of ``nvmlMemory_v2_t``; another one is refused as the real library does."""

MAX_MIG_DEVICES = 7


def _placed(gpu: SimulatedGpu, instance: SimulatedMig | None) -> list[tuple[GpuProcess, int, int]]:
    """Return the processes of a device, each with its GPU and compute instance; a GPU includes its instances."""
    whole = [(process, ANY_INSTANCE, ANY_INSTANCE) for process in gpu.processes] if instance is None else []
    instances = (gpu.mig or []) if instance is None else [instance]
    return whole + [(process, mig.gpu_instance, mig.compute_instance) for mig in instances for process in mig.processes]


class DeviceFunctions(Session):
    """Identity, memory and processes."""

    @returns_code
    def nvmlDeviceGetCount_v2(self, count: Any) -> None:
        """Return how many GPUs there were at init."""
        put(count, len(self.uuids()))

    @returns_code
    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, device: Any) -> None:
        """Return a handle by position."""
        if index.value >= len(self.uuids()):
            raise Refused(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        self.put_device(device, self.uuids()[index.value])

    @returns_code
    def nvmlDeviceGetHandleByUUID(self, uuid: Any, device: Any) -> None:
        """Return a handle by the UUID of a GPU or a MIG instance."""
        text = uuid.value.decode()
        if text not in self.uuids() and self.find_mig(text) is None:
            raise Refused(pynvml.NVML_ERROR_NOT_FOUND)
        self.put_device(device, text)

    @returns_code
    def nvmlDeviceGetUUID(self, device: Any, buffer: Any, length: Any) -> None:
        """Return the UUID."""
        gpu, instance = self.device(device)
        put_text((instance or gpu).uuid, buffer, length)

    @returns_code
    def nvmlDeviceGetName(self, device: Any, buffer: Any, length: Any) -> None:
        """Return the product's name, of a MIG instance with its profile."""
        gpu, instance = self.device(device)
        put_text(gpu.product if instance is None else f"{gpu.product} MIG {instance.profile}", buffer, length)

    @returns_code
    def nvmlDeviceGetIndex(self, device: Any, index: Any) -> None:
        """Return the position."""
        put(index, self.uuids().index(self.gpu(device).uuid))

    @returns_code
    def nvmlDeviceGetMinorNumber(self, device: Any, minor: Any) -> None:
        """Return N of ``/dev/nvidiaN``."""
        put(minor, self.gpu(device).minor)

    @returns_code
    def nvmlDeviceGetPciInfo_v3(self, device: Any, info: Any) -> None:
        """Return the PCI address in both of its forms."""
        bus_id = self.gpu(device).pci_bus_id
        domain, bus, rest = bus_id.split(":")
        target = info._obj
        target.busId = bus_id.encode()
        target.busIdLegacy = f"{domain[-4:]}:{bus}:{rest}".encode()
        target.domain, target.bus = int(domain, 16), int(bus, 16)
        target.device = int(rest.split(".")[0], 16)

    @returns_code
    def nvmlDeviceGetNumaNodeId(self, device: Any, node: Any) -> None:
        """Return the NUMA node, NOT_SUPPORTED where there is none."""
        numa_node = self.gpu(device).numa_node
        if numa_node is None:
            raise Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
        put(node, numa_node)

    @returns_code
    def nvmlDeviceGetCudaComputeCapability(self, device: Any, major: Any, minor: Any) -> None:
        """Return the generation of the GPU."""
        capability = self.gpu(device).compute_capability
        put(major, capability[0])
        put(minor, capability[1])

    @returns_code
    def nvmlDeviceGetMemoryInfo(self, device: Any, memory: Any) -> None:
        """Return bytes; in this older form ``used`` includes what the driver reserved."""
        total, reserved, used = self._memory(device)
        memory._obj.total, memory._obj.used = total * MIB, (reserved + used) * MIB
        memory._obj.free = (total - reserved - used) * MIB

    @returns_code
    def nvmlDeviceGetMemoryInfo_v2(self, device: Any, memory: Any) -> None:
        """Return bytes, with the driver's share apart."""
        target = memory._obj
        if target.version != MEMORY_V2:
            raise Refused(pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH)
        total, reserved, used = self._memory(device)
        target.total, target.reserved, target.used = total * MIB, reserved * MIB, used * MIB
        target.free = (total - reserved - used) * MIB

    def _memory(self, device: Any) -> tuple[int, int, int]:
        gpu, instance = self.device(device)
        used = sum(process.used_mib for process, _, _ in _placed(gpu, instance))
        return (gpu.memory_mib, gpu.reserved_mib, used) if instance is None else (instance.memory_mib, 0, used)

    @returns_code
    def nvmlDeviceGetComputeRunningProcesses_v3(self, device: Any, count: Any, array: Any) -> None:
        """Fill the caller's array; too small a one is answered with the size that it takes."""
        processes = _placed(*self.device(device))
        room, count._obj.value = count._obj.value, len(processes)
        if len(processes) > room:
            raise Refused(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        for position, (process, gpu_instance, compute_instance) in enumerate(processes):
            array[position].pid, array[position].usedGpuMemory = process.pid, process.used_mib * MIB
            array[position].gpuInstanceId, array[position].computeInstanceId = gpu_instance, compute_instance

    @returns_code
    def nvmlDeviceGetComputeMode(self, device: Any, mode: Any) -> None:
        """Return who may use the GPU."""
        put(mode, compute_mode(self.path, self.gpu(device).uuid))

    @returns_code
    def nvmlDeviceSetComputeMode(self, device: Any, mode: Any) -> None:
        """Set it for all processes; with MIG mode on that cannot be done."""
        gpu = self.gpu(device)
        if mode.value >= pynvml.NVML_COMPUTEMODE_COUNT:
            raise Refused(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        if gpu.mig is not None or mode.value == pynvml.NVML_COMPUTEMODE_EXCLUSIVE_THREAD:
            raise Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
        set_compute_mode(self.path, gpu.uuid, mode=mode.value)


class MigFunctions(Session):
    """MIG mode, instances and their handles."""

    @returns_code
    def nvmlDeviceGetMigMode(self, device: Any, current: Any, pending: Any) -> None:
        """Return whether MIG mode is on."""
        mode = int(self.gpu(device).mig is not None)
        put(current, mode)
        put(pending, mode)

    @returns_code
    def nvmlDeviceGetMaxMigDeviceCount(self, device: Any, count: Any) -> None:
        """Return how many instances are possible, not how many there are; 0 where MIG mode is off."""
        put(count, MAX_MIG_DEVICES if self.gpu(device).mig is not None else 0)

    @returns_code
    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Any, index: Any, mig_device: Any) -> None:
        """Return the handle of an instance, NOT_FOUND where there is none."""
        instances = self.gpu(device).mig
        if instances is None or index.value >= MAX_MIG_DEVICES:
            raise Refused(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        if index.value >= len(instances):
            raise Refused(pynvml.NVML_ERROR_NOT_FOUND)
        self.put_device(mig_device, instances[index.value].uuid)

    @returns_code
    def nvmlDeviceGetGpuInstanceId(self, device: Any, number: Any) -> None:
        """Return the number of an instance's GPU instance."""
        put(number, self._instance(device, pynvml.NVML_ERROR_NOT_SUPPORTED)[1].gpu_instance)

    @returns_code
    def nvmlDeviceGetComputeInstanceId(self, device: Any, number: Any) -> None:
        """Return the number of an instance's compute instance."""
        put(number, self._instance(device, pynvml.NVML_ERROR_NOT_SUPPORTED)[1].compute_instance)

    @returns_code
    def nvmlDeviceIsMigDeviceHandle(self, device: Any, answer: Any) -> None:
        """Return whether a handle is one of a MIG instance."""
        put(answer, int(self.device(device)[1] is not None))

    @returns_code
    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, mig_device: Any, device: Any) -> None:
        """Return the handle of the GPU that an instance is a part of."""
        self.put_device(device, self._instance(mig_device, pynvml.NVML_ERROR_INVALID_ARGUMENT)[0].uuid)

    def _instance(self, handle: Any, otherwise: int) -> tuple[SimulatedGpu, SimulatedMig]:
        gpu, instance = self.device(handle)
        if instance is None:
            raise Refused(otherwise)
        return gpu, instance
