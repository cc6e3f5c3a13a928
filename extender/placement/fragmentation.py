"""The policy `fragmentation`: the place that costs the least of what the cluster will yet be filled with.

Each node is worth the expected fill of its GPUs (see `filling`); a place costs what it takes of that. What a pod takes
for itself is the same everywhere, so the rest is what it spoils: pieces that nobody will fill, GPUs that no CPU is left
for, models that others need more.
"""

from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from extender.placement.filling import CELLS, PARTS, TINY, Fills, Grid, parts_of
from extender.placement.fitting import Order, choose, fullest_first
from extender.placement.policy import MAX_SCORE, Rank
from extender.placement.views import GpuView, NodeView
from fracgpu.hosts import NOTHING, HostAmount
from fracgpu.names import NodeName
from fracgpu.requests import ContainerRequest, PodRequest

_FINE: Final = 1000  # ranks are whole numbers, of thousandths
_MAX_NODES: Final = 10_000  # that are kept, 2 KB each
_MAX_ALIKE: Final = 500  # kinds of nodes that are looked for among others: many are alike where nearly all are empty


class Fragmentation:
    """Least loss of expected fill, then the node with the least free.

    Args:
        fills: the expected fill of pieces of GPUs.
    """

    def __init__(self, fills: Fills) -> None:
        self._fills = fills
        self._nodes: dict[NodeName, tuple[NodeView, _Node]] = {}  # node name -> what was made of which view
        self._alike: dict[Hashable, _Node] = {}  # traits of a node -> the same, of some nodes
        self._losses: dict[int, int] = {}  # those that were told
        self._weights = fills.mix.weights  # by which they were made

    def rank(self, view: NodeView, request: PodRequest) -> Rank | None:
        """The loss, and what is free of the node's GPUs, then of its CPU and memory; None where the pod does not fit.

        The loss is told to a hundredth of a GPU, which is as exact as the fill is known.
        """
        loss = self._loss(view, request)
        if loss is None:
            return None
        resolution = max((1, *view.sizes)) / PARTS
        rank = round(round(loss / resolution) * resolution * _FINE)
        # The same numbers, not equal ones: each node's rank for each kind of pod is kept.
        return self._losses.setdefault(rank, rank), self._node(view).free

    def score(self, rank: Rank, view: NodeView, request: PodRequest) -> int:
        """From `MAX_SCORE` - 1 for a place that costs nothing to 1 for one that costs twice what the pod takes."""
        taken = sum(container.gpus * view.fullest_first[-1].units_for(container) for container in request.containers)
        worst = 2 * _FINE * max(1, taken)
        return MAX_SCORE - 1 - (MAX_SCORE - 2) * min(max(0, rank[0]), worst) // worst

    def likeness(self, request: PodRequest) -> Callable[[NodeView], Hashable | None]:
        """Nodes on which the same is free are one here: most empty ones, and many that are nearly full."""
        if any(each.selector and each.selector.names_gpus for each in request.containers):
            return lambda _view: None
        return lambda view: None if view.is_split else self._node(view)

    def order(self, view: NodeView, request: PodRequest) -> Order:
        """Those first of which a share costs the least."""

        def cheapest_first(gpus: Collection[GpuView], container: ContainerRequest) -> list[GpuView]:
            roomy = fullest_first(gpus, container)
            if len(roomy) > 1:
                node = _Node(gpus, view, self._fills)
                return node.cheapest_first(container, request.host, roomy)
            return roomy

        if len(request.containers) != 1 or view.is_split:
            return cheapest_first

        def cheapest(_gpus: Collection[GpuView], container: ContainerRequest) -> list[GpuView]:
            """The same for the only container, of the node as it is."""
            return self._node(view).cheapest_first(container, request.host, view.fullest_first)

        return cheapest

    def _loss(self, view: NodeView, request: PodRequest) -> float | None:
        if len(request.containers) == 1:
            (only,) = request.containers
            if not only.seats and (not view.pieces or view.pieces[-1] < only.units):
                return None  # as on most nodes of a full cluster
            if not view.is_split and (only.selector is None or not only.selector.names_gpus):
                return self._node(view).least_loss(only, request.host)
        plan = choose(view, request, order=self.order(view, request))
        if plan is None:
            return None
        shares = plan.per_gpu()
        taken = [(gpu, 1, shares[gpu.uuid].units) for gpu in view.fullest_first if gpu.uuid in shares]
        return self._node(view).loss(taken, request.host)

    def _node(self, view: NodeView) -> "_Node":
        """What a node is worth, kept until it changes: all kinds of pods ask that."""
        if self._weights is not self._fills.mix.weights:
            self._weights = self._fills.mix.weights
            self._nodes.clear()
            self._alike.clear()
            self._losses.clear()
        kept = self._nodes.get(view.name)
        if kept is not None and kept[0] is view:
            return kept[1]
        traits = view.host, len(view.gpus), *map(_traits, view.fullest_first)
        node = self._alike.get(traits)
        if node is None:
            if len(self._alike) >= _MAX_ALIKE:
                self._alike.clear()
            node = self._alike[traits] = _Node(view.fullest_first, view, self._fills)
        if len(self._nodes) >= _MAX_NODES:
            self._nodes.clear()
        self._nodes[view.name] = view, node
        return node


class _Group(NamedTuple):
    """GPUs of one kind of which the same is free: units, as a part of the GPU, and what will be filled of it.

    `row` is that of the grid: cells of the host -> units. `gpu` is one of the `many`.
    """

    free: int
    part: float
    row: list[float]
    many: int
    is_whole: bool
    gpu: GpuView
    grid: Grid


class _Node:
    """The expected fill of a node's GPUs.

    Args:
        gpus: its usable GPUs, as they are by now.
        view: the node.
        fills: what is known of fills.

    Attributes:
        free: free units of its GPUs in thousandths; in the thousandths the part of its CPU, or memory, that is free.
    """

    __slots__ = ("_cells", "_fill", "_groups", "_host", "_is_uniform", "_total", "free")

    def __init__(self, gpus: Collection[GpuView], view: NodeView, fills: Fills) -> None:
        self._host = view.host
        self._cells = CELLS * len(view.gpus)
        counts: dict[Hashable, tuple[GpuView, int]] = {}
        for gpu in gpus:
            traits = _traits(gpu)
            counts[traits] = gpu, counts[traits][1] + 1 if traits in counts else 1
        grids = {id(gpu): fills.grid_of(gpu, gpus=len(view.gpus), host=view.host) for gpu, _ in counts.values()}
        self._groups = tuple(_group(gpu, grids[id(gpu)], gpu.free_units, many) for gpu, many in counts.values())
        self._is_uniform = len({id(grid) for grid in grids.values()}) == 1
        self._total = sum(group.part * group.many for group in self._groups)
        left = self._left(NOTHING)
        self.free = view.free_units * _FINE + int(left / (self._cells or 1) * (_FINE - 1))
        self._fill = _fill_of(self._groups, self._total, left)

    def least_loss(self, container: ContainerRequest, host: HostAmount) -> float | None:
        """How much less will be filled after the shares were taken where one costs the least; None without room.

        Args:
            container: what is asked; it names no GPUs.
            host: CPU and memory that come with it.
        """
        losses = self._losses(container, host)
        if container.gpus == 1:
            return min((loss for loss, _ in losses), default=None)
        taken: list[tuple[GpuView, int, int]] = []
        missing = container.gpus
        for _, group in sorted(losses, key=lambda found: (found[0], found[1].free)):
            number = min(missing, group.many)
            taken.append((group.gpu, number, group.gpu.units_for(container)))
            missing -= number
            if not missing:
                return self.loss(taken, host)
        return None

    def cheapest_first(self, container: ContainerRequest, host: HostAmount, gpus: Collection[GpuView]) -> list[GpuView]:
        """The GPUs with room for one share, those first where it costs the least, and of equals the fullest."""
        whichever = replace(container, selector=None)  # GPUs of a group may be named apart, and cost the same
        losses = {_traits(group.gpu): loss for loss, group in self._losses(whichever, host)}
        roomy = [gpu for gpu in gpus if gpu.has_room_for(container)]
        return sorted(roomy, key=lambda gpu: (losses[_traits(gpu)], gpu.free_units))

    def loss(self, taken: Iterable[tuple[GpuView, int, int]], host: HostAmount) -> float:
        """How much less will be filled after this was taken.

        Args:
            taken: of so many GPUs like this one, so many units each.
            host: CPU and memory of the node.
        """
        groups = {_traits(group.gpu): group for group in self._groups}
        after = []
        for gpu, number, units in taken:
            traits = _traits(gpu)
            group = groups[traits]
            groups[traits] = group._replace(many=group.many - number)
            after.append(_group(gpu, group.grid, gpu.free_units - units, number))
        after += groups.values()
        total = sum(group.part * group.many for group in after)
        return self._fill - _fill_of(after, total, self._left(host))

    def _losses(self, container: ContainerRequest, host: HostAmount) -> list[tuple[float, _Group]]:
        """Of each group with room, what one share costs there, and the group."""
        roomy = [group for group in self._groups if group.gpu.has_room_for(container)]
        if not roomy:
            return []
        if not self._is_uniform:
            return [(self.loss([(group.gpu, 1, group.gpu.units_for(container))], host), group) for group in roomy]
        # The host's cells, and so what each of the other pieces is worth, are the same wherever the share is taken.
        left = self._left(host)
        gpu, grid = roomy[0].gpu, roomy[0].grid
        units, size = gpu.units_for(container), gpu.units
        total = self._total - units / size
        cost = self._fill - _fill_of(self._groups, total, left)
        cell = int(left + TINY)
        found = []
        for group in roomy:
            free = group.free - units
            part, row = free / size, grid.rows[parts_of(free, size)]
            rest = (row[cell] + row[int(min(left, left * part / total) + TINY)]) / 2 if free else 0.0
            loss = cost + _fill_of_one(group, left, total) - rest
            if group.is_whole:
                loss += _fill_of_several(group, group.many, left, total)
                loss -= _fill_of_several(group, group.many - 1, left, total)
            found.append((loss, group))
        return found

    def _left(self, taken: HostAmount) -> float:
        """The cells of the node's CPU that are left, or of its memory, whichever is less; all if they are not known."""
        if self._host is None:
            return self._cells
        size, free = self._host
        cpu = (free.cpu_milli - taken.cpu_milli) / size.cpu_milli if size.cpu_milli else 1.0
        memory = (free.memory_mib - taken.memory_mib) / size.memory_mib if size.memory_mib else 1.0
        return min(max(0.0, min(cpu, memory)), 1.0) * self._cells


def _traits(gpu: GpuView) -> Hashable:
    """What matters of a GPU, whichever it is."""
    return gpu.free_units, gpu.free_seats, gpu.units, gpu.replicas, gpu.product, gpu.memory


def _group(gpu: GpuView, grid: Grid, free: int, many: int) -> _Group:
    free = max(0, free)
    return _Group(
        free, free / (gpu.units or 1), grid.rows[parts_of(free, gpu.units)], many, free == gpu.units, gpu, grid
    )


def _fill_of(groups: Iterable[_Group], total: float, left: float) -> float:
    """What will be filled of all pieces, in units.

    Args:
        groups: the pieces.
        total: free GPUs.
        left: cells of the host.
    """
    cell = int(left + TINY)
    filled = 0.0
    for group in groups:
        part, row, many = group.part, group.row, group.many
        if many and part:
            # As `_fill_of_one`, which would take twice as long to call as to compute.
            own = left * part / total if total > part else left
            filled += many * (row[cell] + row[int(own + TINY)]) / 2
            if group.is_whole:
                filled += _fill_of_several(group, many, left, total)
    return filled


def _fill_of_one(group: _Group, left: float, total: float) -> float:
    """What will be filled of one piece.

    How much of the node's CPU and memory it will find depends on what fills the others: something between all that is
    left, and its own part of that. The mean of the two is taken.
    """
    own = left * group.part / total if total > group.part else left
    return (group.row[int(left + TINY)] + group.row[int(own + TINY)]) / 2


def _fill_of_several(whole: _Group, number: int, left: float, total: float) -> float:
    """What requests for several whole GPUs at once fill beyond what single ones would.

    For the next request only: several whole GPUs on a node seldom last.
    """
    if number < 2 or not whole.grid.whole:
        return 0.0
    weight = sum(weight * gpus for gpus, cells, weight in whole.grid.whole if gpus <= number and cells <= left + TINY)
    return weight / (1 + whole.grid.hazard) * (whole.free - _fill_of_one(whole, left, total))
