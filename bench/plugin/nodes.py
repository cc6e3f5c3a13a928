"""The nodes that the device plugin is measured on, and their pods: the same every time. Pure."""

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bench.cluster import CONTAINER, NAMESPACE, SEED, Shape
from bench.objects import waiting_pod
from fracgpu.names import ANNOTATION_ALLOCATION, RESOURCE_MEMORY, GpuUuid, NodeName, PodUid
from fracgpu.plans import Plan, Share, encode_plan
from fracgpu.quantities import DEFAULT_MEMORY_UNIT, Mib, capacity_units
from playground.node.nvml import SimulatedGpu

NODE: Final = NodeName("gpu-node-0001.eu-central-1.compute.internal")
_UNITS: Final = (1, 2, 2, 4, 4, 4, 8, 8, 12, 16)  # of a pod


@dataclass(frozen=True, slots=True)
class Machine:
    """GPUs of a node: how many, and their memory as NVML tells it."""

    name: str
    gpus: int
    memory: Mib
    product: str

    @property
    def units(self) -> int:
        """Memory units of each GPU."""
        return capacity_units(self.memory, reserved=Mib(0), unit=DEFAULT_MEMORY_UNIT)

    def simulated(self) -> list[SimulatedGpu]:
        """Its GPUs for the NVML stand-in."""
        rng = random.Random(SEED)  # noqa: S311 (the same in every run)
        return [
            SimulatedGpu(
                uuid=f"GPU-{uuid.UUID(int=rng.getrandbits(128), version=4)}",
                product=self.product,
                memory_mib=self.memory,
                minor=index,
                pci_bus_id=f"00000000:{16 + index:02X}:00.0",
                numa_node=index * 2 // self.gpus,
            )
            for index in range(self.gpus)
        ]


MACHINES: Final = (
    Machine("8 x 80 GB", 8, Mib(81_559), "NVIDIA H100 80GB HBM3"),
    Machine("8 x 141 GB", 8, Mib(143_771), "NVIDIA H200"),
    Machine("16 x 288 GB", 16, Mib(294_912), "NVIDIA B300 SXM6 AC"),
)


@dataclass(frozen=True, slots=True)
class PlannedPod:
    """A pod bound to the node: `units` of one GPU, by its plan."""

    name: str
    gpu: GpuUuid
    units: int

    def as_json(self) -> dict[str, Any]:
        """What is created at the API server: of a real pod's size, with its plan, bound already."""
        pod = waiting_pod(self.name, PodUid(""), Shape(units=self.units))
        for key in ("uid", "resourceVersion", "generation", "creationTimestamp"):
            pod["metadata"].pop(key, None)
        plan = Plan(DEFAULT_MEMORY_UNIT, {CONTAINER: (Share(self.gpu, self.units),)})
        pod["metadata"]["annotations"][ANNOTATION_ALLOCATION] = encode_plan(plan)
        pod["spec"]["nodeName"] = NODE
        return pod

    @property
    def path(self) -> str:
        """Where the API server keeps it."""
        return f"/api/v1/namespaces/{NAMESPACE}/pods/{self.name}"

    def running(self, ids: list[str]) -> dict[str, Any]:
        """The status of the pod that has these devices, as Kubernetes 1.36 writes it: every ID is in it."""
        devices = {"name": RESOURCE_MEMORY, "resources": [{"resourceID": text, "health": "Healthy"} for text in ids]}
        container = {"name": CONTAINER, "ready": True, "restartCount": 0, "allocatedResourcesStatus": [devices]}
        return {"phase": "Running", "containerStatuses": [container]}


def pods_for(gpus: list[GpuUuid]) -> Iterator[PlannedPod]:
    """Pods without end, on one GPU after the other, so that a hundred fit on the smallest node at once."""
    rng = random.Random(SEED)  # noqa: S311 (the same in every run)
    number = 0
    while True:
        name = f"llm-server-7d9c5b8f6d-{number:05}"
        yield PlannedPod(name, gpus[number % len(gpus)], rng.choice(_UNITS))
        number += 1
