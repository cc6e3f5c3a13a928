"""How much of a free piece of a GPU will be used, by the mix of requests that arrive: its expected fill.

A piece of a GPU is worth what will still be placed in it before nothing fits any more. With x free of the GPU and c
free of the node's CPU and memory, requests come by as the mix has them; each one that fits takes its part, and leaves a
smaller piece:

    fill(x, c) = sum of w * (u + fill(x - u, c - h)) over the requests (u, h) of weight w that fit,
                 divided by the sum of their weights and a hazard

The hazard says how long a piece waits: for as many requests as there are kinds of them, in effect; it is the sum of the
squares of the kinds' weights. So a piece that only a rare request could fill is worth little. Fragmentation is what is
free and will not be filled. The fragmentation gradient (FGD, USENIX ATC 2023, section 4) counts what the next request
cannot use, which is this with a hazard that is large; here the pieces' future is looked at to its end.

A request that few of the cluster's GPUs can take comes by those few more often, and weighs more there.

Computed once for a kind of GPU on a kind of node, on a grid: the GPU's units (hundredths, where it has very many), and
of the node's CPU and memory, whichever is the scarcer, eighths of what there is for each GPU, so that pods which take
just their part fit. Pure.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from math import ceil
from typing import Final, NamedTuple

from extender.placement.mix import Ask, Mix
from extender.placement.views import GpuView, HostRoom, NodeView
from fracgpu.hosts import HostAmount
from fracgpu.names import GpuUuid
from fracgpu.quantities import Mib
from fracgpu.requests import ContainerRequest

PARTS: Final = 100
"""Into how many parts a GPU is divided that has more units than `_EXACT_UNITS`."""
_EXACT_UNITS: Final = 200
CELLS: Final = 8
"""Into how many parts the CPU and memory that a node has for each of its GPUs are divided."""
_MAX_DEMANDS: Final = 128  # that a grid tells apart: of more, the most frequent ones are all that matters
TINY: Final = 1e-9
"""For parts that are exact but for the last digit."""


class GpuKind(NamedTuple):
    """What GPUs have in common of which the same will be filled: model, size and seats; their node and its size.

    `gpus` is the number of GPUs on the node, `host` its CPU and memory, about: machines of one kind differ by what
    their system takes, and one grid will do for them. None where they are not known.
    """

    product: str
    memory: Mib
    units: int
    replicas: int
    gpus: int
    host: HostAmount | None


class Grid(NamedTuple):
    """The expected fill of GPUs of one kind.

    Attributes:
        rows: free parts of the GPU, see `parts_of` -> free cells of the host -> units that will be filled.
        whole: what asks for several whole GPUs: how many, host cells in all, and the weight.
        hazard: see the module.
    """

    rows: list[list[float]]
    whole: list[tuple[int, int, float]]
    hazard: float


class Fills:
    """The expected fill of pieces of GPUs.

    Attributes:
        mix: the requests that were seen.
        cluster: the nodes that there are; whoever knows them sets it.
    """

    def __init__(self) -> None:
        self.mix = Mix()
        self.cluster: Callable[[], Iterable[NodeView]] = tuple
        self._weights: Mapping[Ask, float] = {}  # by which the grids were made
        self._scaled: Mapping[Ask, float] = {}  # the same, for the GPUs that can take them
        self._hazard = 0.0
        self._grids: dict[GpuKind, Grid] = {}

    def grid_of(self, gpu: GpuView, *, gpus: int, host: HostRoom | None) -> Grid:
        """The fill of a GPU of this kind, on a node of so many.

        Args:
            gpu: the GPU.
            gpus: how many GPUs its node has.
            host: the node's CPU and memory; None where they are not known.
        """
        if self._weights is not self.mix.weights:
            self._renew()
        kind = _kind_of(gpu, gpus, host)
        found = self._grids.get(kind)
        if found is None:
            found = self._grids[kind] = make_grid(kind, self._scaled, weights=self._weights, hazard=self._hazard)
        return found

    def _renew(self) -> None:
        self._weights = self.mix.weights
        self._grids.clear()
        kinds = Counter(_kind_of(gpu, len(view.gpus), view.host) for view in self.cluster() for gpu in view.gpus)
        self._scaled = scaled(self._weights, kinds)
        # Requests that differ only in which GPUs they accept are of one kind here: they fill the same pieces.
        alike: Counter[Ask] = Counter()
        for ask, weight in self._weights.items():
            alike[ask._replace(selector=None)] += weight  # type: ignore[assignment]
        self._hazard = sum(weight * weight for weight in alike.values())


def scaled(weights: Mapping[Ask, float], kinds: Mapping[GpuKind, int]) -> dict[Ask, float]:
    """The weight with which a request comes by each GPU that can take it.

    Args:
        weights: request -> its part of all.
        kinds: kind of GPU -> how many the cluster has.
    """
    count = sum(kinds.values())
    found = {}
    for ask, weight in weights.items():
        able = sum(number for kind, number in kinds.items() if demand_of(ask, kind) is not None)
        found[ask] = weight * count / able if able else weight
    return found


def make_grid(kind: GpuKind, scaled: Mapping[Ask, float], *, weights: Mapping[Ask, float], hazard: float) -> Grid:
    """Compute the fill of one kind of GPU.

    Args:
        kind: of GPU.
        scaled: request -> the weight with which it comes by.
        weights: request -> its part of all requests.
        hazard: see the module.
    """
    width = kind.gpus * CELLS + 1
    demands = _demands(kind, scaled)
    rows: list[list[float]] = [[0.0] * width]
    fitting = [0.0] * width  # cells -> weight of the requests that fit
    for parts in range(1, parts_of(kind.units, kind.units) + 1):
        filled = [0.0] * width
        for demand in demands:
            if demand.parts > parts:
                break
            cells, weight = demand.cells, demand.weight
            before = rows[parts - demand.parts]
            units = weight * demand.units
            filled[cells:] = [
                so_far + units + weight * rest for so_far, rest in zip(filled[cells:], before, strict=False)
            ]
            if demand.parts == parts:
                fitting[cells:] = [so_far + weight for so_far in fitting[cells:]]
        rows.append([amount / (sum_ + hazard) if sum_ else 0.0 for amount, sum_ in zip(filled, fitting, strict=True)])
    whole = []
    for ask, weight in weights.items():
        taken = demand_of(ask, kind) if ask.gpus > 1 else None
        if taken is not None and taken.units == kind.units:
            whole.append((ask.gpus, taken.cells * ask.gpus, weight))
    return Grid(rows, whole, hazard)


class Demand(NamedTuple):
    """What a request takes of each GPU of a kind: parts of it, cells of the host, and exactly so many units."""

    parts: int
    cells: int
    units: float
    weight: float = 0.0


@lru_cache(maxsize=16384)  # asked once for each GPU kind to weigh a request, and once more for its grid
def demand_of(ask: Ask, kind: GpuKind) -> Demand | None:
    """What a request takes of a GPU of this kind; None where that can never take it."""
    if ask.gpus > kind.gpus or (ask.selector and not ask.selector.accepts_model(kind.product, kind.memory)):
        return None
    empty = GpuView(GpuUuid(""), kind.units, kind.replicas, kind.units, kind.replicas)
    units = empty.units_for(ContainerRequest("", 1, ask.units, ask.seats, ask.replicas))
    if not 0 < units <= kind.units:
        return None
    cells = 0
    if kind.host is not None:
        part = max(asked / size if size else 0.0 for asked, size in zip(ask.host, kind.host, strict=True))
        cells = ceil(part * kind.gpus * CELLS / ask.gpus - TINY)
    return Demand(max(1, parts_of(units, kind.units)), cells, units) if cells <= kind.gpus * CELLS // ask.gpus else None


def parts_of(units: int, size: int) -> int:
    """Units of a GPU in parts of its grid: the nearest, so that what is as large as a free piece fits there.

    Args:
        units: of the GPU.
        size: all its units.
    """
    return units if size <= _EXACT_UNITS else (2 * PARTS * units + size) // (2 * size)


def _demands(kind: GpuKind, scaled: Mapping[Ask, float]) -> list[Demand]:
    """What the mix asks of such a GPU, the smallest first; what the grid does not tell apart in one."""
    merged: defaultdict[tuple[int, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for ask, weight in scaled.items():
        if (demand := demand_of(ask, kind)) is not None:
            sums = merged[demand.parts, demand.cells]
            sums[0] += weight
            sums[1] += weight * demand.units
    found = [Demand(parts, cells, sum_ / weight, weight) for (parts, cells), (weight, sum_) in merged.items()]
    found.sort(key=lambda demand: demand.weight, reverse=True)
    return sorted(found[:_MAX_DEMANDS])


def _kind_of(gpu: GpuView, gpus: int, host: HostRoom | None) -> GpuKind:
    about = None if host is None else HostAmount(*map(_about, host.size))
    return GpuKind(gpu.product, gpu.memory, gpu.units, gpu.replicas, gpus, about)


def _about(amount: int) -> int:
    """The number rounded up to 5 binary digits, so that a pod that asks for just an eighth of it still does."""
    step = 1 << max(0, amount.bit_length() - 5)
    return -(-amount // step) * step
