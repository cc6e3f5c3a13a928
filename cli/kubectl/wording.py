"""Words for amounts, GPUs and lists, in sentences and columns. Pure."""

from collections.abc import Sequence
from typing import Final

from fracgpu.gpunodes import Gpu, GpuNode
from fracgpu.quantities import format_mib

_NAMED: Final = 5


def count(number: int, noun: str) -> str:
    """``1 pod``, ``2 pods``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(parts: Sequence[str], *, most: int = _NAMED) -> str:
    """``a, b and c``; of a long list the first, and how many more."""
    shown = list(parts[:most])
    if len(parts) > most:
        return f"{', '.join(shown)} and {len(parts) - most} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def gpu_title(gpu: Gpu) -> str:
    """A kind of GPU: its model and how much memory it has."""
    return f"{gpu.product} with {format_mib(gpu.memory)}"


def gpu_name(uuid: str, node: GpuNode) -> str:
    """``GPU 0``, or the UUID where the node has no such GPU."""
    return next((f"GPU {gpu.index}" for gpu in node.spec.gpus if gpu.uuid == uuid), uuid)
