"""The policy `fragmentation`: the place that costs the least of what the cluster will yet be filled with.

Each node is worth the expected fill of its GPUs (see `filling`); a place costs what it takes of that. What a pod takes
for itself is the same everywhere, so the rest is what it spoils: pieces that nobody will fill, GPUs that no CPU is left
for, models that others need more.
"""

from collections.abc import Collection, Hashable, Sequence
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from extender.placement import numa
from extender.placement.filling import CELLS, PARTS, Fills, Grid, parts_of
from extender.placement.fitting import Order, choose, fullest_first
from extender.placement.policy import MAX_SCORE, Rank
from extender.placement.views import GpuView, HostRoom, NodeView
from fracgpu.hosts import NOTHING, HostAmount
from fracgpu.names import NodeName
from fracgpu.requests import ContainerRequest, PodRequest

_FINE: Final = 1000  # ranks are whole numbers, of thousandths
_TINY: Final = 1e-9  # for parts that are exact but for the last digit


class Fragmentation:
    """Least loss of expected fill, then the node with the least free.

    Args:
        fills: the expected fill of pieces of GPUs.
    """

    def __init__(self, fills: Fills) -> None:
        self._fills = fills
        self._nodes: dict[NodeName, tuple[NodeView, _Node]] = {}  # node name -> what was made of which view
        self._alike: WeakValueDictionary[Hashable, _Node] = WeakValueDictionary()  # traits of a node -> the same
        self._weights = fills.mix.weights  # by which they were made

    def rank(self, view: NodeView, request: PodRequest) -> Rank | None:
        """The loss, and what is free of the node's GPUs, then of its CPU and memory; None where the pod does not fit.

        The loss is told to a hundredth of a GPU, which is as exact as the fill is known.
        """
        loss = self._loss(view, request)
        if loss is None:
            return None
        resolution = max(1, view.sizes[0]) / PARTS
        free = view.free_units * _FINE + int(self._node(view).host_part() * (_FINE - 1))
        return round(round(loss / resolution) * resolution * _FINE), free

    def score(self, rank: Rank, view: NodeView, request: PodRequest) -> int:
        """From `MAX_SCORE` - 1 for a place that costs nothing to 1 for one that costs twice what the pod takes."""
        gpu = view.fullest_first[-1]
        taken = sum(container.gpus * gpu.units_for(container) for container in request.containers)
        worst = 2 * _FINE * max(1, taken)
        return MAX_SCORE - 1 - (MAX_SCORE - 2) * min(max(0, rank[0]), worst) // worst

    def likeness(self, view: NodeView, request: PodRequest) -> "_Node | None":
        """Nodes on which the same is free are one here: most empty ones, and many that are nearly full."""
        if view.is_split or any(each.selector and each.selector.names_gpus for each in request.containers):
            return None
        return self._node(view)

    def order(self, view: NodeView, request: PodRequest) -> Order:
        """Those first of which a share costs the least."""

        def cheapest_first(gpus: Collection[GpuView], container: ContainerRequest) -> list[GpuView]:
            node = _Node(gpus, len(view.gpus), view.host, self._fills)
            costs = [node.loss_of_one(group, container, request.host) for group in node.groups]
            of_gpu = {gpu.uuid: cost for group, cost in zip(node.groups, costs, strict=True) for gpu in group.gpus}
            return sorted(fullest_first(gpus, container), key=lambda gpu: of_gpu[gpu.uuid])

        return cheapest_first

    def _loss(self, view: NodeView, request: PodRequest) -> float | None:
        if len(request.containers) == 1:
            (only,) = request.containers
            if not only.seats and (not view.pieces or view.pieces[-1] < only.units):
                return None  # as on most nodes of a full cluster
            if only.gpus == 1 and not view.is_split and (only.selector is None or not only.selector.names_gpus):
                return self._node(view).least_loss(only, request.host)
            gpus = numa.offered(view.fullest_first, only) if view.is_split else view.fullest_first
            if sum(gpu.has_room_for(only) for gpu in gpus) < only.gpus:
                return None
        plan = choose(view, request, order=self.order(view, request))
        if plan is None:
            return None
        after = view.without(plan.per_gpu().values())
        node = self._node(view)
        left = _Node(after.fullest_first, len(view.gpus), view.host, self._fills, taken=request.host)
        return node.fill - left.fill

    def _node(self, view: NodeView) -> "_Node":
        """What a node is worth, kept until it changes: all kinds of pods ask that."""
        if self._weights is not self._fills.mix.weights:
            self._weights = self._fills.mix.weights
            self._nodes.clear()
            self._alike.clear()
        kept = self._nodes.get(view.name)
        if kept is not None and kept[0] is view:
            return kept[1]
        traits = view.host, len(view.gpus), *map(_traits, view.fullest_first)
        node = self._alike.get(traits)
        if node is None:
            node = self._alike[traits] = _Node(view.fullest_first, len(view.gpus), view.host, self._fills)
        self._nodes[view.name] = view, node
        return node


class _Group(NamedTuple):
    """GPUs of which the same is free, and of the same kind."""

    place: int
    gpus: list[GpuView]
    grid: Grid


class _Part(NamedTuple):
    """GPUs of a group, after something was taken: what is free of each, in units, as a part and in the grid's parts."""

    free: int
    part: float
    parts: int
    many: int
    grid: Grid
    is_whole: bool


class _Node:
    """The expected fill of a node's GPUs.

    Args:
        gpus: its usable GPUs.
        all_gpus: how many it has, usable or not.
        host: its CPU and memory; None where they are not known.
        fills: what is known of fills.
        taken: CPU and memory that are taken besides.

    Attributes:
        groups: of equal GPUs.
        fill: what will be filled of all of them.
    """

    def __init__(
        self,
        gpus: Collection[GpuView],
        all_gpus: int,
        host: HostRoom | None,
        fills: Fills,
        *,
        taken: HostAmount = NOTHING,
    ) -> None:
        groups: dict[Hashable, _Group] = {}
        for gpu in gpus:
            traits = _traits(gpu)
            found = groups.get(traits)
            if found is None:
                groups[traits] = _Group(len(groups), [gpu], fills.grid_of(gpu, gpus=all_gpus, host=host))
            else:
                found.gpus.append(gpu)
        self.groups = tuple(groups.values())
        self._host = host
        self._cells = CELLS * all_gpus
        self._losses: dict[Hashable, float | None] = {}  # what is asked -> see `least_loss`
        self._parts = [_part(group.gpus[0], group.grid, 0, len(group.gpus)) for group in self.groups]
        self.fill = _fill_of(self._parts, self._left(taken))

    def host_part(self) -> float:
        """The part of the node's CPU that is free, or of its memory, whichever is less."""
        return self._left(NOTHING) / (self._cells or 1)

    def least_loss(self, container: ContainerRequest, host: HostAmount) -> float | None:
        """How much less will be filled after one share was taken where that costs the least; None without room.

        Args:
            container: asks for one GPU, and names none.
            host: CPU and memory that come with it.
        """
        asked = container.units, container.seats, container.replicas, container.selector, host
        try:
            return self._losses[asked]
        except KeyError:
            roomy = [group for group in self.groups if group.gpus[0].has_room_for(container)]
            loss = min((self.loss_of_one(group, container, host) for group in roomy), default=None)
            self._losses[asked] = loss
            return loss

    def loss_of_one(self, group: _Group, container: ContainerRequest, host: HostAmount) -> float:
        """How much less will be filled after one share was taken of a GPU of this group."""
        place, gpus, grid = group
        parts = [*self._parts, _part(gpus[0], grid, gpus[0].units_for(container), 1)]
        before = parts[place]
        parts[place] = before._replace(many=before.many - 1)
        return self.fill - _fill_of(parts, self._left(host))

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


def _part(gpu: GpuView, grid: Grid, taken: int, count: int) -> _Part:
    free = max(0, gpu.free_units - taken)
    return _Part(free, free / (gpu.units or 1), parts_of(free, gpu.units), count, grid, free == gpu.units)


def _fill_of(groups: Sequence[_Part], left: float) -> float:
    """What will be filled of all pieces, in units; `left` are cells of the host.

    How much of the node's CPU and memory a piece will find depends on what fills the others: between all that is left
    and its own part of that. The mean of the two is taken. Whoever asks for several whole GPUs at once fills them as
    far as single requests would not; that counts for the next request only, because it seldom lasts.
    """
    total = sum(group.part * group.many for group in groups)
    if not total:
        return 0.0
    cell = int(left + _TINY)
    filled = 0.0
    whole = 0
    for free, part, parts, count, grid, is_whole in groups:
        if count and free:
            row = grid.rows[parts]
            fill = (row[cell] + row[int(left * part / total + _TINY)]) / 2
            filled += count * fill
            if is_whole:
                whole += count
                whole_fill, whole_free, whole_grid = fill, free, grid
    if whole > 1:
        for gpus, cells, weight in whole_grid.whole:
            if gpus <= whole and cells <= cell:
                filled += weight / (1 + whole_grid.hazard) * gpus * (whole_free - whole_fill)
    return filled
