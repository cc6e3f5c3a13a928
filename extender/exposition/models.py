"""The GPUs of each model in numbers, all nodes together; and how much of what is free is of no use. Pure.

Sizes are in bytes, as in `gpus`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Final, NamedTuple

from extender.exposition.gpus import NodeRow, free_units
from extender.exposition.text import escaped, head
from extender.placement.mix import Ask
from extender.placement.views import GpuView
from fracgpu.names import GpuUuid
from fracgpu.quantities import Mib
from fracgpu.requests import ContainerRequest

_MAX_ASKS: Final = 64  # of the mix, by which fragmentation is weighed: the most frequent ones are all that matters


class Piece(NamedTuple):
    """What of a usable GPU is free, with what decides which requests it could take."""

    memory: Mib
    units: int
    replicas: int
    free_units: int
    free_seats: int


@dataclass(slots=True)
class ModelTotals:
    """The GPUs of one model, of all nodes together; memory in bytes.

    `pieces` counts the free pieces of usable GPUs of nodes in the cluster's unit.
    """

    gpus: int = 0
    usable_gpus: int = 0
    offered: int = 0
    claimed: int = 0
    free: int = 0
    used: int = 0
    seats: int = 0
    seats_claimed: int = 0
    largest_free: int = 0
    pieces: Counter[Piece] = field(default_factory=Counter)


MODEL_GAUGES: Final[Mapping[str, tuple[str, Callable[[ModelTotals], float]]]] = {
    "fracgpu_cluster_gpus": ("GPUs of a model.", lambda found: found.gpus),
    "fracgpu_cluster_usable_gpus": ("GPUs of a model that take pods.", lambda found: found.usable_gpus),
    "fracgpu_cluster_memory_offered_bytes": (
        "Memory that a model's GPUs offer to pods.",
        lambda found: found.offered,
    ),
    "fracgpu_cluster_memory_claimed_bytes": (
        "What of a model's offered memory pods have, holds among them.",
        lambda found: found.claimed,
    ),
    "fracgpu_cluster_memory_free_bytes": (
        "Memory that is free on a model's usable GPUs.",
        lambda found: found.free,
    ),
    "fracgpu_cluster_memory_used_bytes": (
        "Memory of a model's GPUs that pods use, where plugins publish it.",
        lambda found: found.used,
    ),
    "fracgpu_cluster_seats": ("Seats (time slices) of a model's GPUs.", lambda found: found.seats),
    "fracgpu_cluster_seats_claimed": (
        "Seats of a model's GPUs that pods have, holds among them.",
        lambda found: found.seats_claimed,
    ),
    "fracgpu_cluster_largest_free_bytes": (
        "The largest piece of memory that is free on one GPU of a model.",
        lambda found: found.largest_free,
    ),
}
"""Name -> help and value, of what every model has."""

FRAGMENTATION: Final = "fracgpu_cluster_fragmentation_ratio"
FRAGMENTATION_HELP: Final = (
    "The part of a model's free memory that lies in pieces too small for a share as it was asked for lately."
)


def model_lines(totals: Mapping[str, ModelTotals]) -> Iterator[str]:
    """The samples of `MODEL_GAUGES`, as Prometheus' text.

    Args:
        totals: model -> its totals.
    """
    for name, (text, value) in MODEL_GAUGES.items():
        yield head(name, text)
        for model, found in sorted(totals.items()):
            yield f'{name}{{product="{escaped(model)}"}} {value(found)}\n'


def add_to(totals: dict[str, ModelTotals], row: NodeRow) -> None:
    """Count a node's GPUs.

    Args:
        totals: model -> its totals so far.
        row: the node.
    """
    unit = row.unit
    for gpu in row.view.gpus:
        found = totals.get(gpu.product)
        if found is None:
            found = totals[gpu.product] = ModelTotals()
        found.gpus += 1
        found.offered += gpu.units * unit
        found.claimed += (gpu.units - gpu.free_units) * unit
        found.seats += gpu.replicas
        found.seats_claimed += gpu.replicas - gpu.free_seats
        found.used += row.used.get(gpu.uuid, 0) if row.used is not None else 0
        if gpu.usable and row.is_counted:
            units = free_units(gpu)
            found.usable_gpus += 1
            found.free += units * unit
            found.largest_free = max(found.largest_free, units * unit)
            if units:
                found.pieces[Piece(gpu.memory, gpu.units, gpu.replicas, units, gpu.free_seats)] += 1


def fragmentation_of(product: str, totals: ModelTotals, weights: Mapping[Ask, float]) -> float:
    """The part of a model's free memory that a share as it was asked for lately could not use.

    A free piece is of no use to a share that is larger; the average over the requests seen, each weighted by how often
    it was seen, as the fragmentation measure of FGD (USENIX ATC 2023, section 4) has it. 0 where nothing is free, and
    where no request for this model was seen.

    Args:
        product: the model.
        totals: its GPUs.
        weights: request -> its part of all.
    """
    asks = nlargest(_MAX_ASKS, weights.items(), key=lambda item: item[1])
    demands: dict[tuple[Mib, int, int], list[tuple[int, int, float]]] = {}  # kind of GPU -> units, seats, weight
    unusable = total = 0.0
    for piece, count in totals.pieces.items():
        kind = piece.memory, piece.units, piece.replicas
        if kind not in demands:
            demands[kind] = list(_demands(product, piece, asks))
        wanted = demands[kind]
        weight = sum(part for _, _, part in wanted)
        lost = sum(part for units, seats, part in wanted if units > piece.free_units or seats > piece.free_seats)
        total += piece.free_units * count
        unusable += piece.free_units * count * (lost / weight if weight else 0.0)
    return unusable / total if total else 0.0


def _demands(product: str, piece: Piece, asks: Iterable[tuple[Ask, float]]) -> Iterator[tuple[int, int, float]]:
    """What requests take of such a GPU, those that can be met by an empty one."""
    empty = GpuView(GpuUuid(""), piece.units, piece.replicas, piece.units, piece.replicas)
    for ask, weight in asks:
        if ask.selector is None or ask.selector.accepts_model(product, piece.memory):
            units = empty.units_for(ContainerRequest("", 1, ask.units, ask.seats, ask.replicas))
            if units <= piece.units:
                yield units, ask.seats, weight
