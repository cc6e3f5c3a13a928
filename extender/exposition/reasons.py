"""Why pods wait, by class: a bounded set of reasons that can be counted, where `explaining` has sentences. Pure.

What is said of one request holds for all pods that ask the same, so a walk over the cluster is made once for each kind
of request. It can be made in slices; what a plain request needs to know is kept as three numbers.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum

from extender.placement.fitting import could_ever_fit, fits, is_plain
from extender.placement.views import GpuView, NodeView
from fracgpu.quantities import seat_units
from fracgpu.requests import ContainerRequest, PodRequest


class WaitReason(StrEnum):
    """Why a pod waits: the first of these that holds."""

    INVALID = "Invalid"
    """What it asks cannot be read."""
    ROOM = "Room"
    """fracgpu has room for it: its turn is yet to come, or kube-scheduler has reasons of its own (CPU, taints, ...)."""
    SETTLING = "Settling"
    """There is room as soon as shares are settled that are held, being bound, or of pods that are ending."""
    NO_SUCH_GPU = "NoSuchGpu"
    """No GPU of the cluster is one that it would take: it selects a model, a size or single GPUs."""
    TOO_LARGE = "TooLarge"
    """No node could hold it even when empty."""
    FRAGMENTED = "Fragmented"
    """A node has as much free as it asks, all its GPUs together, but not in the pieces that it asks for."""
    NO_ROOM = "NoRoom"
    """No node has that much free."""
    UNEXAMINED = "Unexamined"
    """There were too many kinds of requests to look at all of them."""


class Waits:
    """What the cluster says to one request, node by node.

    Args:
        request: what the pods ask.
    """

    def __init__(self, request: PodRequest) -> None:
        self._request = request
        self._has_room = self._is_settling = self._has_such = self._could_hold = self._has_sum = False
        self._hardware: dict[object, bool] = {}  # what a node's GPUs are -> whether it could hold the pod when empty

    @property
    def is_settled(self) -> bool:
        """Whether no other node changes the answer."""
        return self._has_room

    def look(self, views: Iterable[NodeView]) -> None:
        """Look at some nodes, as they are now."""
        for view in views:
            if fits(view, self._request):
                self._has_room = True
                return
            self._has_such = self._has_such or _accepts(view, self._request)
            self._has_sum = self._has_sum or _has_sum(view, self._request)
            if not self._could_hold:
                key = tuple((gpu.product, gpu.memory, gpu.units, gpu.replicas) for gpu in view.gpus)
                if self._names_gpus or key not in self._hardware:
                    self._hardware[key] = could_ever_fit(view, self._request)
                self._could_hold = self._hardware[key]

    def look_ahead(self, views: Iterable[NodeView]) -> None:
        """Look at some nodes as they will be when what passes there has passed."""
        self._is_settling = self._is_settling or any(fits(view, self._request) for view in views)

    @property
    def reason(self) -> WaitReason:
        """Why the pods wait, by what was seen."""
        if self._has_room:
            return WaitReason.ROOM
        if self._is_settling:
            return WaitReason.SETTLING
        if not self._has_such:
            return WaitReason.NO_SUCH_GPU
        if not self._could_hold:
            return WaitReason.TOO_LARGE
        return WaitReason.FRAGMENTED if self._has_sum else WaitReason.NO_ROOM

    @property
    def _names_gpus(self) -> bool:
        selectors = (container.selector for container in self._request.containers)
        return any(selector is not None and selector.names_gpus for selector in selectors)


def kind_of(request: PodRequest) -> tuple[object, ...]:
    """What requests have in common that wait for the same reason: neither names nor CPU and memory matter."""
    return tuple((asked.gpus, asked.units, asked.seats, asked.replicas, asked.selector) for asked in request.containers)


class Extremes:
    """What decides of any request for memory of one GPU, whichever it is: the largest there are, in units."""

    def __init__(self) -> None:
        self._piece = self._size = self._sum = -1

    def look(self, view: NodeView) -> None:
        """Look at a node, as it is now."""
        self._piece = max(self._piece, view.pieces[-1] if view.pieces else 0)
        self._size = max(self._size, view.sizes[0] if view.sizes else 0)
        self._sum = max(self._sum, view.free_units)

    def reason(self, units: int) -> WaitReason:
        """Why pods wait that ask for so many units of one GPU."""
        if self._piece >= units:
            return WaitReason.ROOM
        if self._size < 1:
            return WaitReason.NO_SUCH_GPU
        if self._size < units:
            return WaitReason.TOO_LARGE
        return WaitReason.FRAGMENTED if self._sum >= units else WaitReason.NO_ROOM


def plain_units(request: PodRequest, *, has_split: bool) -> int | None:
    """The units of a request for memory of one GPU, whichever it is; None for any other.

    Args:
        request: what a pod asks.
        has_split: whether the kubelet of any node chooses between NUMA nodes, by which free pieces are not all.
    """
    if len(request.containers) != 1 or has_split:
        return None
    (only,) = request.containers
    return only.units if is_plain(only) and only.gpus == 1 else None


def _accepts(view: NodeView, request: PodRequest) -> bool:
    return any(gpu.is_acceptable(asked) for gpu in view.gpus for asked in request.containers)


def _has_sum(view: NodeView, request: PodRequest) -> bool:
    """Whether the node's acceptable GPUs have as much free, together, as the pod asks."""
    return all(_sum_free(view, asked) for asked in _merged(request.containers))


def _sum_free(view: NodeView, asked: ContainerRequest) -> bool:
    gpus = [gpu for gpu in view.gpus if gpu.usable and gpu.is_acceptable(asked)]
    if asked.seats:
        return sum(map(_free_seats, gpus)) >= asked.gpus * asked.seats
    return sum(max(0, gpu.free_units) for gpu in gpus) >= asked.gpus * asked.units


def _free_seats(gpu: GpuView) -> int:
    """Seats of a GPU for which there is memory too."""
    of_one = max(1, seat_units(1, replicas=gpu.replicas, units=gpu.units))
    return max(0, min(gpu.free_seats, gpu.free_units // of_one))


def _merged(containers: Sequence[ContainerRequest]) -> Iterable[ContainerRequest]:
    """One container for all that ask for the same GPUs; what they ask together is asked of one GPU."""
    found: dict[object, ContainerRequest] = {}
    for asked in containers:
        before = found.get(asked.selector)
        units = asked.gpus * asked.units + (before.units if before else 0)
        seats = asked.gpus * asked.seats + (before.seats if before else 0)
        found[asked.selector] = ContainerRequest("", 1, units, seats, selector=asked.selector)
    return found.values()
