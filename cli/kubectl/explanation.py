"""Why a pod waits, or where it is and whether that is as it should be; as values. Pure.

The same for people (`explainview`) and for programs, which get these structs as JSON.
"""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from msgspec import Struct

from cli.kubectl.cluster import Cluster, is_unread
from cli.kubectl.grants import described, difference, grant_of, planned_shares
from cli.kubectl.outages import remedy_of_outage
from cli.kubectl.remedies import Remedy, remedies
from cli.kubectl.wording import listed
from extender.index import Index
from extender.observing import asks_gpu
from extender.picture import node_picture
from extender.placement.explaining import GpuFinding, NodeFinding, describe, examine, explain
from extender.placement.views import NodeView
from fracgpu.errors import RequestError
from fracgpu.gpunodes import GpuNode
from fracgpu.names import GpuUuid, NodeName
from fracgpu.pods import Pod
from fracgpu.quantities import Mib, format_mib
from fracgpu.requests import PodRequest, request_of
from replay.reasons import describe_host

State = Literal["waiting", "bound", "granted", "ending", "ended", "failed", "unread", "no-gpu"]

_DELETE_AND_CREATE: Final = "delete it and create it anew: limits cannot be added to a pod that exists"


class PlaceExplained(Struct, frozen=True, rename="camel"):
    """What the pod has of one GPU, and what is taken of that GPU in all."""

    index: int
    uuid: GpuUuid
    product: str
    containers: list[str]
    taken: Mib = msgspec.field(name="takenMiB")
    seats: int
    used: Mib | None = msgspec.field(name="usedMiB")
    gpu_taken: Mib = msgspec.field(name="gpuTakenMiB")
    gpu_offered: Mib = msgspec.field(name="gpuOfferedMiB")


class GpuExplained(Struct, frozen=True, rename="camel"):
    """A GPU for one that waits: what is free, and why that does not do; `problem` is empty where it does."""

    index: int
    uuid: GpuUuid
    product: str
    free: Mib = msgspec.field(name="freeMiB")
    offered: Mib = msgspec.field(name="offeredMiB")
    free_seats: int
    seats: int
    room_for: list[str]
    missing: Mib = msgspec.field(name="missingMiB")
    problem: str


class NodeExplained(Struct, frozen=True, rename="camel"):
    """A node for one that waits; `problem` is empty where the pod would fit, and says why where no pod is put there."""

    name: NodeName
    used: bool
    problem: str
    could_ever_fit: bool
    largest_piece: Mib = msgspec.field(name="largestPieceMiB")
    gpus: list[GpuExplained]


class Explained(Struct, frozen=True, rename="camel"):
    """A pod.

    Attributes:
        state: waiting; bound (the kubelet has not given its share yet); granted; ending (until its processes have
            ended); ended; failed; unread (asks by annotation, which nobody has read); no-gpu (asks for none).
        summary: the answer in a sentence.
        needs: what it asks, as in ``4 GiB on one GPU``.
        node: where it is; empty while it waits.
        places: what it has there.
        nodes: while it waits, every node, those first where the least is missing.
        remedies: while it waits, what would help, the nearest first.
        scheduler: the name of the scheduler that it asks for.
        scheduler_says: what that wrote onto it last.
        notes: what else is to be known.
    """

    namespace: str
    name: str
    state: State
    summary: str
    needs: str = ""
    node: NodeName = NodeName("")
    places: list[PlaceExplained] = []
    nodes: list[NodeExplained] = []
    remedies: list[Remedy] = []
    scheduler: str = ""
    scheduler_says: str = ""
    notes: list[str] = []


def explain_pod(cluster: Cluster, pod: Pod) -> Explained:
    """Explain one pod."""
    if is_unread(pod):
        return _told(pod, "unread", _unread(pod))
    if not asks_gpu(pod):
        return _told(pod, "no-gpu", "asks for no GPU; where it goes is kube-scheduler's decision alone")
    try:
        request = request_of(pod)
    except RequestError as exc:
        return _told(pod, "waiting" if not pod.spec.node_name else "failed", str(exc))
    if pod.status is not None and pod.status.phase == "Failed":
        why = pod.status.message or pod.status.reason or "no reason was given"
        return _told(pod, "failed", f"failed, and is not tried again: {why}", notes=_of_failed(pod))
    if pod.spec.node_name:
        return _placed(cluster, pod, request)
    if request is None:
        return _told(pod, "no-gpu", "asks for no GPU; where it goes is kube-scheduler's decision alone")
    if pod.metadata.deletion_timestamp is not None:
        return _told(pod, "ending", "is being deleted, and was on no node")
    return _waiting(cluster.index, pod, request)


def _told(pod: Pod, state: State, summary: str, *, notes: Sequence[str] = ()) -> Explained:
    meta = pod.metadata
    return Explained(meta.namespace, meta.name, state, summary, node=pod.spec.node_name, notes=list(notes))


def _unread(pod: Pod) -> str:
    where = f"is on {pod.spec.node_name} without a GPU" if pod.spec.node_name else "waits, and would get no GPU"
    return (
        f"{where}: it asks by annotation, and nobody has turned that into limits, because the webhook was not asked "
        f"when it was created; see kubectl fracgpu doctor, then {_DELETE_AND_CREATE}"
    )


def _of_failed(pod: Pod) -> list[str]:
    if pod.status is None or pod.status.reason != "UnexpectedAdmissionError":
        return []
    return [
        "the kubelet refused it, by what the device plugin said; a controller makes another pod, and a pod without one "
        "has to be created again"
    ]


def _placed(cluster: Cluster, pod: Pod, request: PodRequest | None) -> Explained:
    index, name = cluster.index, pod.spec.node_name
    node = index.nodes.get(name)
    needs = describe(request, unit=index.unit) if request is not None else ""
    if node is None:
        return _told(pod, "bound", f"is on {name}, which has no GPUs known to fracgpu (kubectl get gpunode {name})")
    picture = node_picture(index, node)
    places, states = [], set()
    for gpu in picture.gpus:
        for share in (share for share in gpu.pods if share.uid == pod.uid):
            states.add(share.state)
            places.append(
                PlaceExplained(
                    *(gpu.index, gpu.uuid, gpu.product),
                    share.containers,
                    share.taken,
                    share.seats,
                    share.used,
                    gpu.taken,
                    gpu.offered,
                )
            )
    is_over = pod.is_terminal and not places
    state: State = "ended" if is_over else _state_of(states)
    meta = pod.metadata
    return Explained(
        meta.namespace,
        meta.name,
        state,
        f"has ended on {name}, and holds nothing there" if is_over else _where(pod, node, state),
        needs=needs,
        node=name,
        places=places,
        scheduler=pod.spec.scheduler_name,
        notes=_notes_of_placed(pod, node, places, state=state),
    )


def _state_of(states: set[str]) -> State:
    if "ending" in states:
        return "ending"
    return "granted" if "granted" in states else "bound"


def _where(pod: Pod, node: GpuNode, state: State) -> str:
    planned, grant = planned_shares(pod), grant_of(pod, node)
    if state == "ending":
        return f"is ending on {node.node}; what it holds is free when its processes have ended"
    if grant is not None:
        return f"has {described(grant.containers, node)}"
    if planned is not None:
        return f"is bound, for {described(planned, node)}; the kubelet has not given it that yet"
    return f"is on {node.node}, but not by fracgpu: it has no plan, and nothing was granted to it"


def _notes_of_placed(pod: Pod, node: GpuNode, places: Sequence[PlaceExplained], *, state: State) -> list[str]:
    planned, grant = planned_shares(pod), grant_of(pod, node)
    notes = []
    if state == "granted" and planned is not None:
        notes.append(
            difference(pod, node) or "plan, limits and grant agree: it has what it asked for, where it was planned"
        )
    elif grant is not None and planned is None:
        notes.append("it has no plan that can be believed: it was bound by another scheduler than fracgpu's extender")
    for place in places:
        if place.used is not None and place.used > place.taken:
            over = format_mib(place.used - place.taken)
            notes.append(
                f"it uses {over} more of GPU {place.index} than it was granted; others there may run out of memory"
            )
        if place.gpu_taken > place.gpu_offered:
            over = format_mib(place.gpu_taken - place.gpu_offered)
            notes.append(f"GPU {place.index} is overdrawn by {over}: more is given away of it than it offers")
    notes += [
        f"GPU {gpu.index} is not healthy: {gpu.problem}"
        for gpu in node.spec.gpus
        if not gpu.healthy and any(place.uuid == gpu.uuid for place in places)
    ]
    return notes


def _waiting(index: Index, pod: Pod, request: PodRequest) -> Explained:
    special = index.views_for(pod.uid, priority=pod.priority)
    every = [special.get(view.name, view) for view in index.views()]
    views = [view for view in every if view.unit == index.unit]
    found = explain(views, request, unit=index.unit)
    nodes = [_node(index, examine(view, request)) for view in every]
    roomy = [view for view in views if view.name in found.room_on]
    hosting = [view for view in roomy if view.host is None or view.host.free.holds(request.host)]
    summary = f"waits: {found.reason}"
    if roomy and not hosting:
        summary += f", but not with {describe_host(request.host)} free there"
    meta = pod.metadata
    return Explained(
        meta.namespace,
        meta.name,
        "waiting",
        summary,
        needs=describe(request, unit=index.unit),
        nodes=sorted(nodes, key=_nearest_first),
        remedies=[
            *remedy_of_outage(pod.scheduler_says),
            *([] if roomy else remedies(index, pod, request, views=views)),
        ],
        scheduler=pod.spec.scheduler_name,
        scheduler_says=pod.scheduler_says,
        notes=_notes_of_waiting(pod, hosting),
    )


def _notes_of_waiting(pod: Pod, hosting: Sequence[NodeView]) -> list[str]:
    notes = []
    scheduler = pod.spec.scheduler_name or "default-scheduler"
    if not pod.scheduler_says:
        notes.append(
            f"no scheduler has tried it yet; it is for {scheduler!r}: is that running (kubectl fracgpu doctor)?"
        )
    elif hosting:
        where = listed([view.name for view in hosting])
        notes.append(
            f"GPUs on {where} have room, so what the scheduler says is what keeps it away, or it is about to be tried"
        )
    nominated = pod.status.nominated_node_name if pod.status is not None else ""
    if nominated:
        notes.append(
            f"pods of a lower priority were evicted from {nominated} for it; it goes there when they have ended"
        )
    return notes


def _nearest_first(node: NodeExplained) -> tuple[bool, bool, bool, int, str]:
    missing = min((gpu.missing for gpu in node.gpus if gpu.missing), default=0)
    return bool(node.problem), not node.used, not node.could_ever_fit, missing, node.name


def _node(index: Index, finding: NodeFinding) -> NodeExplained:
    view, node = finding.view, index.nodes[finding.view.name]
    unused = node_picture(index, node).problem
    largest = Mib(max(view.pieces, default=0) * view.unit)
    gpus = [_gpu(found, node, is_used=not unused) for found in finding.gpus]
    return NodeExplained(
        view.name, not unused, unused or finding.problem, finding.could_ever and not unused, largest, gpus
    )


def _gpu(found: GpuFinding, node: GpuNode, *, is_used: bool) -> GpuExplained:
    """A GPU; on a node that is not used, which may count otherwise, what is missing is not to be had anyway."""
    unit, view = node.spec.memory_unit, found.gpu
    gpu = next(gpu for gpu in node.spec.gpus if gpu.uuid == view.uuid)
    problem = found.problem if is_used else "the node is not used"
    if not gpu.healthy:
        problem = f"is not healthy: {gpu.problem}" if gpu.problem else "is not healthy"
    return GpuExplained(
        *(gpu.index, gpu.uuid, gpu.product),
        Mib(max(0, view.free_units) * unit),
        Mib(view.units * unit),
        max(0, view.free_seats),
        view.replicas,
        list(found.room_for) if is_used else [],
        Mib(found.missing_units * unit if is_used else 0),
        problem,
    )
