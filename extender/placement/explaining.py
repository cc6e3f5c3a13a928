"""Why a pod does not fit, in a sentence with numbers: for one GPU, for one node, and for the whole cluster."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from extender.placement import numa
from extender.placement.fitting import could_ever_fit, fits, is_plain
from extender.placement.views import GpuView, NodeView
from fracgpu.names import NodeName
from fracgpu.quantities import Mib, format_mib
from fracgpu.requests import ContainerRequest, PodRequest

_LISTED: Final = 5  # nodes by name in a sentence


def why_not(view: NodeView, request: PodRequest) -> str:
    """Why the pod does not fit on this node; kube-scheduler counts nodes with the same sentence together."""
    if not view.pieces:
        return "has no healthy GPU"
    need = describe(request, unit=view.unit)
    acceptable = _acceptable(view, request)
    if not acceptable.gpus:
        return f"needs {need}; its GPUs are {_products(view)}"
    if view.is_split and fits(view.anywhere(), request):
        return f"needs {need}; {_out_of_reach(view, request)}"
    if len(request.containers) > 1:
        return f"needs {need} at once; the free pieces are {_pieces(acceptable)}"
    (only,) = request.containers
    return f"needs {need}; {_lacking(acceptable, only)}"


def reason_key(view: NodeView, request: PodRequest) -> int | None:
    """What `why_not` of this request depends on besides the memory unit; None where it may be anything of the node.

    The usual request is for memory of one GPU, and the usual cluster has few different largest pieces.
    """
    (first, *more) = request.containers
    if more or first.gpus > 1 or not is_plain(first) or view.is_split:
        return None
    return view.pieces[-1] if view.pieces else -1


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a pod is where it is, or waits: a sentence, and the nodes that have room for it now."""

    reason: str
    room_on: tuple[NodeName, ...] = ()


def explain(views: Iterable[NodeView], request: PodRequest, *, unit: Mib) -> Explanation:
    """Why the pod fits nowhere in the cluster, or where it does.

    Args:
        views: every node with GPUs.
        request: what the pod asks.
        unit: the cluster's memory unit, to say sizes where there is no node.
    """
    every = sorted(views, key=lambda view: view.name)
    need = describe(request, unit=unit)
    if not every:
        return Explanation(f"needs {need}; no node has announced GPUs yet (kubectl get gpunodes)")
    views = [view for found in every if (view := _acceptable(found, request)).gpus]
    if not views:
        products = sorted({gpu.product for view in every for gpu in view.gpus})
        return Explanation(f"needs {need}; the cluster's GPUs are {', '.join(products)}")
    fitting = tuple(view.name for view in every if fits(view, request))
    if fitting:
        return Explanation(f"needs {need}; there is room on {_some(fitting)}", fitting)
    for view in every:
        if view.is_split and fits(view.anywhere(), request):
            return Explanation(f"needs {need}; {_out_of_reach(view, request)}, on {view.name}")
    reason = f"needs {need}; {_closest(views, request)}"
    if not any(could_ever_fit(view, request) for view in views):
        reason += f"; no node could hold it even when empty: {_largest_gpus(views, request)}"
    return Explanation(reason)


@dataclass(frozen=True, slots=True)
class GpuFinding:
    """One GPU, as a pod that looks for a place finds it.

    Attributes:
        gpu: it, with what is free of it.
        room_for: the containers for one GPU of which it has room.
        problem: why it has none for the others, as in ``4 GiB free, 2 GiB too little``; empty where it has.
        missing_units: how many free units it lacks for the smallest of these; 0 where something else is in the way.
    """

    gpu: GpuView
    room_for: tuple[str, ...]
    problem: str
    missing_units: int


@dataclass(frozen=True, slots=True)
class NodeFinding:
    """One node, as a pod that looks for a place finds it.

    Attributes:
        view: the node.
        problem: why the pod does not fit there, as `why_not` says it; empty where it fits.
        could_ever: whether it would fit if nothing else ran there and every GPU were healthy.
        gpus: each of them, in NVML's order.
    """

    view: NodeView
    problem: str
    could_ever: bool
    gpus: tuple[GpuFinding, ...]


def examine(view: NodeView, request: PodRequest) -> NodeFinding:
    """Look at one node for one pod, GPU by GPU."""
    gpus = tuple(_examine_gpu(gpu, request, unit=view.unit) for gpu in view.gpus)
    problem = "" if fits(view, request) else why_not(view, request)
    return NodeFinding(view, problem, could_ever_fit(view, request), gpus)


def _examine_gpu(gpu: GpuView, request: PodRequest, *, unit: Mib) -> GpuFinding:
    room_for = tuple(container.container for container in request.containers if gpu.has_room_for(container))
    others = [container for container in request.containers if not gpu.has_room_for(container)]
    if not others:
        return GpuFinding(gpu, room_for, "", 0)
    nearest = min(others, key=lambda container: (not gpu.is_acceptable(container), gpu.units_for(container)))
    problem, missing_units = _lacking_on(gpu, nearest, unit=unit)
    if room_for:
        problem = f"{problem} for {nearest.container!r}"
    return GpuFinding(gpu, room_for, problem, missing_units)


def _lacking_on(gpu: GpuView, request: ContainerRequest, *, unit: Mib) -> tuple[str, int]:
    """What keeps a container off a GPU, and how many units are missing where it is these."""
    if not gpu.usable:
        return "offers nothing" if not gpu.units else "is not usable", 0
    if not gpu.is_acceptable(request):
        return "is not what is asked for", 0
    if request.replicas not in (None, gpu.replicas):
        return f"has {_count(gpu.replicas, 'seat')}, and {request.replicas} are counted on", 0
    if request.seats > gpu.replicas:
        return f"has {_count(gpu.replicas, 'seat')}, and {request.seats} are needed", 0
    need, free = gpu.units_for(request), max(0, gpu.free_units)
    if need > gpu.units:
        return f"has {format_mib(gpu.units * unit)} in all", need - free
    if request.seats > gpu.free_seats:
        free_seats = max(0, gpu.free_seats)
        return f"{free_seats} of {_count(gpu.replicas, 'seat')} free, {request.seats - free_seats} too few", 0
    return f"{format_mib(free * unit)} free, {format_mib((need - free) * unit)} too little", need - free


def _closest(views: list[NodeView], request: PodRequest) -> str:
    """What the node has that comes closest to what is asked."""
    best = max(views, key=lambda view: view.pieces[::-1])
    if not best.pieces:
        return "no GPU is healthy"
    if len(request.containers) > 1:
        return f"the free pieces are {_pieces(best)}, on {best.name}"
    (only,) = request.containers
    if only.gpus > 1:
        best = max(views, key=lambda view: _gpus_with_room(view, only))
    elif only.seats:
        best = max(views, key=lambda view: max((gpu.free_seats for gpu in view.gpus if gpu.usable), default=0))
    return f"{_lacking(best, only)}, on {best.name}"


def describe(request: PodRequest, *, unit: Mib) -> str:
    """What the pod asks, for a person: ``20 GiB on one GPU``."""
    parts = [_describe_container(container, unit=unit) for container in request.containers]
    if len(parts) > 1:
        parts = [
            f"{part} for {container.container!r}" for part, container in zip(parts, request.containers, strict=True)
        ]
    selectors = [f" ({container.selector})" if container.selector else "" for container in request.containers]
    if len(set(selectors)) == 1:
        return " and ".join(parts) + selectors[0]
    return " and ".join(map("".join, zip(parts, selectors, strict=True)))


def _describe_container(request: ContainerRequest, *, unit: Mib) -> str:
    if request.seats:
        share = f"{request.seats} of {request.replicas} seats" if request.replicas else _count(request.seats, "seat")
    else:
        share = format_mib(request.units * unit)
    return f"{share} on one GPU" if request.gpus == 1 else f"{share} on each of {request.gpus} GPUs"


def _lacking(view: NodeView, request: ContainerRequest) -> str:
    """What the node has instead of what the container asks."""
    usable = [gpu for gpu in view.gpus if gpu.usable]
    if request.replicas and not any(gpu.replicas == request.replicas for gpu in usable):
        return _seat_counts(usable)
    if request.gpus > 1:
        return f"{_count(_gpus_with_room(view, request), 'GPU')} of {len(view.gpus)} with that much free"
    if request.seats:
        most = max((gpu.free_seats for gpu in usable), default=0)
        if most < request.seats:
            return f"the most free seats on one GPU are {max(0, most)}"
    return f"the largest free piece is {format_mib(max(view.pieces, default=0) * view.unit)}"


def _out_of_reach(view: NodeView, request: PodRequest) -> str:
    """Where the room is that the kubelet, which knows the NUMA nodes, would not let the pod have."""
    if len(request.containers) > 1:
        return "there is room, but not on the NUMA nodes that the kubelet takes first"
    (only,) = request.containers
    roomy = [gpu for gpu in view.gpus if gpu.has_room_for(only)]
    offered = numa.offered(view.fullest_first, only)
    owner = "its free GPU is" if len(roomy) == 1 else "its free GPUs are"
    first = _numa_nodes(offered or [gpu for gpu in view.gpus if gpu.numa_node is not None])
    return f"{owner} on {_numa_nodes(roomy)}, and the kubelet takes {first} first"


def _numa_nodes(gpus: Iterable[GpuView]) -> str:
    found = {gpu.numa_node for gpu in gpus}
    known = [str(node) for node in sorted(node for node in found if node is not None)]
    parts = [f"NUMA node{'s' if len(known) > 1 else ''} {', '.join(known)}"] if known else []
    return " and ".join([*parts, "no known NUMA node"] if None in found else parts)


def _seat_counts(gpus: Iterable[GpuView]) -> str:
    counts = ", ".join(str(count) for count in sorted({gpu.replicas for gpu in gpus}))
    return f"the GPUs have {counts} seats"


def _pieces(view: NodeView) -> str:
    return ", ".join(format_mib(piece * view.unit) for piece in reversed(view.pieces))


def _products(view: NodeView) -> str:
    return ", ".join(sorted({gpu.product or gpu.uuid for gpu in view.gpus}))


def _acceptable(view: NodeView, request: PodRequest) -> NodeView:
    """The node with only those GPUs that one of the pod's containers would take."""
    if any(container.selector is None for container in request.containers):
        return view
    gpus = (gpu for gpu in view.gpus if any(map(gpu.is_acceptable, request.containers)))
    return NodeView.of(view.name, unit=view.unit, gpus=gpus)


def _largest_gpus(views: list[NodeView], request: PodRequest) -> str:
    if any(container.gpus > 1 for container in request.containers) or len(request.containers) > 1:
        most = max(views, key=lambda view: len(view.gpus))
        return f"the most GPUs on one node are {len(most.gpus)}, and the largest GPU has {_largest(views)}"
    (only,) = request.containers
    if only.seats:
        return _seat_counts(gpu for view in views for gpu in view.gpus)
    return f"the largest GPU has {_largest(views)}"


def _largest(views: list[NodeView]) -> str:
    return format_mib(max((gpu.units * view.unit for view in views for gpu in view.gpus), default=0))


def _gpus_with_room(view: NodeView, request: ContainerRequest) -> int:
    return sum(gpu.has_room_for(request) for gpu in view.gpus)


def _some(names: Sequence[NodeName]) -> str:
    """The first names of a list that may have thousands."""
    listed = ", ".join(names[:_LISTED])
    return listed if len(names) <= _LISTED else f"{listed} and {_count(len(names) - _LISTED, 'other node')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
