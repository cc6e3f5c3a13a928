"""Each GPU of the cluster in numbers. Pure.

Sizes are in bytes here, as Prometheus has them. What is claimed is what placement counts: what pods have by the ledger
and by grants that the ledger does not know yet, and what is held for pods on their way.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from extender.exposition.text import escaped
from extender.placement.views import GpuView, NodeView
from fracgpu.gpunodes import GpuNode
from fracgpu.names import GpuUuid
from fracgpu.quantities import MIB_BYTES, Mib

_Value = Callable[[GpuView, int, bool], int]
"""Of a GPU, the memory unit in bytes, and whether it is usable."""

GPU_GAUGES: Final[Mapping[str, tuple[str, _Value]]] = {
    "fracgpu_gpu_memory_bytes": ("Video memory of a GPU.", lambda gpu, unit, usable: gpu.memory * MIB_BYTES),
    "fracgpu_gpu_memory_offered_bytes": (
        "What of a GPU's memory is offered to pods, in whole units.",
        lambda gpu, unit, usable: gpu.units * unit,
    ),
    "fracgpu_gpu_memory_claimed_bytes": (
        "What of the offered memory pods have, holds among them; more than is offered where a GPU is overdrawn.",
        lambda gpu, unit, usable: (gpu.units - gpu.free_units) * unit,
    ),
    "fracgpu_gpu_memory_free_bytes": (
        "What of a GPU's memory can be given away now; 0 where it is not usable.",
        lambda gpu, unit, usable: free_units(gpu) * unit if usable else 0,
    ),
    "fracgpu_gpu_seats": ("Seats (time slices) of a GPU.", lambda gpu, unit, usable: gpu.replicas),
    "fracgpu_gpu_seats_claimed": (
        "Seats of a GPU that pods have, holds among them.",
        lambda gpu, unit, usable: gpu.replicas - gpu.free_seats,
    ),
    "fracgpu_gpu_usable": (
        "1 for a GPU that takes pods; 0 where it is unhealthy, its plugin has not spoken yet, or it counts in another "
        "memory unit.",
        lambda gpu, unit, usable: int(usable),
    ),
}
"""Name -> help and value, of what every GPU has."""

GPU_INFO: Final = "fracgpu_gpu_info"
GPU_USED: Final = "fracgpu_gpu_memory_used_bytes"
GPU_HELP: Final[Mapping[str, str]] = {
    GPU_INFO: "1 for each GPU, with its model and its number on the node.",
    GPU_USED: "Memory of a GPU that pods use, as their plugin last published it; absent where it measured nothing.",
} | {name: text for name, (text, _) in GPU_GAUGES.items()}
"""Name -> help, of all that is said of single GPUs."""


class NodeRow(NamedTuple):
    """One node, as it was when the numbers were taken.

    Attributes:
        view: what placement sees.
        unit: memory unit in bytes.
        is_counted: whether the node counts in the cluster's unit, and so is used.
        used: GPU -> bytes in use; None where that is not known.
        indices: GPU -> its number on the node.
        labels: of its GPUs, in the view's order.
    """

    view: NodeView
    unit: int
    is_counted: bool
    used: Mapping[GpuUuid, int] | None
    indices: Mapping[GpuUuid, int]
    labels: tuple[str, ...]


def row_of(node: GpuNode, view: NodeView, *, unit: Mib) -> NodeRow:
    """Note what is to be said of a node.

    Args:
        node: as its plugin published it.
        view: the same as placement sees it.
        unit: the cluster's memory unit.
    """
    name = escaped(view.name)
    labels = tuple(f'node="{name}",gpu="{escaped(gpu.uuid)}"' for gpu in view.gpus)
    indices = {gpu.uuid: gpu.index for gpu in node.spec.gpus}
    return NodeRow(view, view.unit * MIB_BYTES, view.unit == unit, _used(node), indices, labels)


def gpu_lines(name: str, rows: Iterable[NodeRow]) -> Iterator[str]:
    """The samples of one of the gauges of single GPUs, as Prometheus' text.

    Args:
        name: one of `GPU_HELP`.
        rows: the nodes.
    """
    if name == GPU_INFO:
        for row in rows:
            for gpu, labels in zip(row.view.gpus, row.labels, strict=True):
                number = row.indices.get(gpu.uuid, "")
                yield f'{name}{{{labels},index="{number}",product="{escaped(gpu.product)}"}} 1\n'
    elif name == GPU_USED:
        for row in rows:
            if row.used is not None:
                for gpu, labels in zip(row.view.gpus, row.labels, strict=True):
                    yield f"{name}{{{labels}}} {row.used.get(gpu.uuid, 0)}\n"
    else:
        _, value = GPU_GAUGES[name]
        for row in rows:
            unit, is_counted = row.unit, row.is_counted
            for gpu, labels in zip(row.view.gpus, row.labels, strict=True):
                yield f"{name}{{{labels}}} {value(gpu, unit, is_counted and gpu.usable)}\n"


def free_units(gpu: GpuView) -> int:
    """What of a GPU can be given away, if it is usable."""
    return 0 if gpu.is_overdrawn else gpu.free_units


def _used(node: GpuNode) -> dict[GpuUuid, int] | None:
    if node.status.usage is None:
        return None
    found: dict[GpuUuid, int] = {}
    for usage in node.status.usage:
        found[usage.gpu] = found.get(usage.gpu, 0) + usage.used * MIB_BYTES
    return found
