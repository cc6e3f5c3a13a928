"""The cluster as people look at it: who has which part of which GPU, who waits, and why. Pure, on an `Index`.

One picture for the web page, `kubectl fracgpu` and whoever asks ``/v1/cluster``. Sizes are in MiB. What is taken is
what the ledger knows, and what a kubelet granted before the ledger heard of it; what is used is what plugins measured.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Struct

from extender.index import Index
from extender.ledger.claims import Claim, ClaimState
from extender.placement.explaining import Explanation, describe, explain
from fracgpu.errors import RequestError
from fracgpu.gpunodes import Gpu, GpuNode
from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.plans import Share, sum_shares
from fracgpu.pods import Pod
from fracgpu.quantities import Mib
from fracgpu.requests import PodRequest, request_of

_GRANTED: Final = "granted"
_ENDING: Final = "ending"


class SharePicture(Struct, frozen=True, rename="camel"):
    """What one pod has of one GPU.

    Attributes:
        containers: those that have it, by name.
        taken: memory in MiB; of a share in seats, the memory that goes with them.
        seats: time slices; 0 for a share of memory.
        used: memory in MiB that its processes use, as last measured; None where that is not known.
        state: held (for a pod that is about to be bound), binding, bound (not given by the kubelet yet), granted, or
            ending (until its processes are known to have ended).
    """

    namespace: str
    name: str
    uid: PodUid
    containers: list[str]
    taken: Mib = msgspec.field(name="takenMiB")
    seats: int
    used: Mib | None = msgspec.field(name="usedMiB")
    state: str


class GpuPicture(Struct, frozen=True, rename="camel"):
    """One GPU.

    Attributes:
        memory: video memory in MiB.
        offered: what of it can be given away, in MiB.
        taken: what of that is given away, in MiB.
        used: memory in MiB that pods use, as last measured; None where that is not known.
        seats: time slices that it has.
        seats_taken: how many of them are given away.
        problem: why it is not healthy, as a sentence.
        pods: who has a part of it, by namespace and name.
    """

    uuid: GpuUuid
    index: int
    product: str
    memory: Mib = msgspec.field(name="memoryMiB")
    offered: Mib = msgspec.field(name="offeredMiB")
    taken: Mib = msgspec.field(name="takenMiB")
    used: Mib | None = msgspec.field(name="usedMiB")
    seats: int
    seats_taken: int
    healthy: bool
    problem: str
    pods: list[SharePicture]


class NodePicture(Struct, frozen=True, rename="camel"):
    """One node; `problem` says why it gets no pods, as a sentence, and is empty where it does."""

    name: NodeName
    gpus: list[GpuPicture]
    problem: str


class WaitingPicture(Struct, frozen=True, rename="camel"):
    """A pod that is on no node yet.

    Attributes:
        needs: what it asks, as in ``4 GiB on one GPU``.
        reason: why no GPU has room for it, or where there is room.
        has_room: whether a node has room for it now, so that something else keeps it waiting.
        since: when it was created, RFC 3339.
        scheduler_says: what kube-scheduler wrote onto it last; empty before its first try.
    """

    namespace: str
    name: str
    uid: PodUid
    needs: str
    reason: str
    has_room: bool
    since: str
    scheduler_says: str


class Picture(Struct, frozen=True, rename="camel"):
    """The whole cluster: nodes by name, waiting pods with the oldest first."""

    memory_unit: Mib = msgspec.field(name="memoryUnitMiB")
    nodes: list[NodePicture]
    waiting: list[WaitingPicture]


def picture_of(index: Index, *, pods: Iterable[Pod]) -> Picture:
    """Draw the whole cluster.

    Args:
        index: the cluster.
        pods: those that ask for GPUs.
    """
    nodes = [node_picture(index, index.nodes[name]) for name in sorted(index.nodes)]
    reasons = Reasons(index)
    waiting = [waiting_picture(index, pod, reasons=reasons) for pod in sorted(pods, key=age) if is_waiting(index, pod)]
    return Picture(index.unit, nodes, waiting)


def node_picture(index: Index, node: GpuNode) -> NodePicture:
    """Draw one node."""
    unit = node.spec.memory_unit
    claims = index.takers_of(node.node)
    granted = {grant.pod_uid for grant in node.status.grants}
    used = _used(node)
    taken = sum_shares(share for claim in claims for share in claim.per_gpu().values())
    shares: defaultdict[GpuUuid, list[SharePicture]] = defaultdict(list)
    for claim in claims:
        state = _state(index, claim, is_granted=claim.uid in granted)
        for gpu, share in claim.per_gpu().items():
            mib = Mib(used[claim.uid, gpu]) if (claim.uid, gpu) in used else None
            shares[gpu].append(_share_picture(claim, share, unit=unit, used=mib, state=state))
    is_measured = node.status.usage is not None
    gpus = [
        _gpu_picture(gpu, taken.get(gpu.uuid), shares[gpu.uuid], unit=unit, is_measured=is_measured)
        for gpu in node.spec.gpus
    ]
    return NodePicture(node.node, gpus, _problem(index, node))


def is_waiting(index: Index, pod: Pod) -> bool:
    """Whether a pod that asks for a GPU is on no node, and not on its way to one."""
    if pod.spec.node_name or pod.is_terminal or pod.metadata.deletion_timestamp is not None:
        return False
    entry = index.entries.get(pod.uid)
    return entry is None or entry.claim.state is ClaimState.HELD


class Reasons:
    """Why pods wait, for pods that ask the same only once: each answer is a walk over all nodes."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._views = [view for view in index.views() if view.unit == index.unit]
        self._known: dict[PodRequest, Explanation] = {}

    def __len__(self) -> int:
        """How many different requests were asked about."""
        return len(self._known)

    def of(self, request: PodRequest) -> Explanation:
        """Why the cluster has no room for this request, or where it has."""
        found = self._known.get(request)
        if found is None:
            found = self._known[request] = explain(self._views, request, unit=self._index.unit)
        return found


def waiting_picture(index: Index, pod: Pod, *, reasons: Reasons) -> WaitingPicture:
    """Draw a pod that waits."""
    needs, found = "", Explanation("asks for no GPU")
    try:
        request = request_of(pod)
        if request is not None:
            needs, found = describe(request, unit=index.unit), reasons.of(request)
    except RequestError as exc:
        found = Explanation(str(exc))
    meta = pod.metadata
    return WaitingPicture(
        meta.namespace,
        meta.name,
        pod.uid,
        needs,
        found.reason,
        bool(found.room_on),
        meta.creation_timestamp or "",
        pod.scheduler_says,
    )


def _share_picture(claim: Claim, share: Share, *, unit: Mib, used: Mib | None, state: str) -> SharePicture:
    containers = [name for name, found in claim.plan.containers.items() if any(one.gpu == share.gpu for one in found)]
    taken = Mib(share.units * unit)
    return SharePicture(claim.namespace, claim.name, claim.uid, containers, taken, share.seats, used, state)


def _gpu_picture(
    gpu: Gpu, taken: Share | None, shares: list[SharePicture], *, unit: Mib, is_measured: bool
) -> GpuPicture:
    known = [share.used for share in shares if share.used is not None]
    used = Mib(sum(known)) if known or (is_measured and not shares) else None
    return GpuPicture(
        gpu.uuid,
        gpu.index,
        gpu.product,
        gpu.memory,
        Mib(gpu.units * unit),
        Mib(taken.units * unit if taken else 0),
        used,
        gpu.replicas,
        taken.seats if taken else 0,
        gpu.healthy,
        gpu.problem,
        sorted(shares, key=lambda share: (share.namespace, share.name, share.uid)),
    )


def _state(index: Index, claim: Claim, *, is_granted: bool) -> str:
    if index.is_ending(claim.uid):
        return _ENDING
    if is_granted:
        return _GRANTED
    return str(claim.state)


def _used(node: GpuNode) -> Counter[tuple[PodUid, GpuUuid]]:
    """(pod, GPU) -> MiB in use there."""
    found: Counter[tuple[PodUid, GpuUuid]] = Counter()
    for one in node.status.usage or ():
        found[one.pod_uid, one.gpu] += one.used
    return found


def _problem(index: Index, node: GpuNode) -> str:
    if node.spec.memory_unit != index.unit:
        return (
            f"counts memory in units of {node.spec.memory_unit} MiB, and the cluster in units of {index.unit}; "
            "give its device plugin the same --memory-unit-mib"
        )
    if not node.status.observed_pods:
        return "its device plugin has not said yet what is granted there"
    return ""


def age(pod: Pod) -> tuple[str, str]:
    """By which pods are sorted, the oldest first."""
    return pod.metadata.creation_timestamp or "", pod.key
