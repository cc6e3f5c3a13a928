"""How amounts of units and seats are written in the sentences that users see. Pure."""

from collections.abc import Mapping

from fracgpu.names import RESOURCE_MEMORY, GpuUuid


def amount(count: int, resource: str) -> str:
    """``1 unit``, ``4 units``, ``2 seats``."""
    word = "unit" if resource == RESOURCE_MEMORY else "seat"
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def amounts(counts: Mapping[GpuUuid, int], resource: str) -> str:
    """``4 units on GPU-a and 2 units on GPU-b``, ordered by GPU."""
    return " and ".join(f"{amount(count, resource)} on {gpu}" for gpu, count in sorted(counts.items())) or "nothing"
