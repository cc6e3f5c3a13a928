"""The nodes of a simulated cluster and their GPUs."""

from dataclasses import dataclass
from typing import Final

from playground.node.nvml import SimulatedGpu


@dataclass(frozen=True, slots=True)
class SimulatedNode:
    """A node with `count` equal GPUs of `memory_mib` MiB each."""

    name: str
    product: str
    memory_mib: int
    count: int

    def gpus(self) -> list[SimulatedGpu]:
        """Its GPUs, with UUIDs that tell where they are."""
        node = int.from_bytes(self.name.encode(), "big") % 2**32
        return [
            SimulatedGpu(
                uuid=f"GPU-{node:08x}-0000-4000-8000-{number:012d}",
                product=self.product,
                memory_mib=self.memory_mib,
                minor=number,
                pci_bus_id=f"00000000:{number + 1:02x}:00.0",
            )
            for number in range(self.count)
        ]


DEFAULT_NODES: Final = (
    SimulatedNode("node-1", "NVIDIA A100-SXM4-40GB", 40960, 2),
    SimulatedNode("node-2", "NVIDIA L4", 23034, 1),
    SimulatedNode("node-3", "Tesla T4", 15360, 2),
    SimulatedNode("node-4", "NVIDIA A10", 23028, 4),
)
