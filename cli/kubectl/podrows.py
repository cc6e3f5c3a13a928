"""`kubectl fracgpu pods`: what each GPU pod asked, was granted and uses; as values, and as a table. Pure."""

from collections.abc import Iterable
from datetime import datetime

import msgspec
from msgspec import Struct
from rich.console import Group, RenderableType
from rich.text import Text

from cli.kubectl.cluster import Cluster, is_unread
from cli.kubectl.explanation import State
from cli.kubectl.printing import age, table
from cli.kubectl.wording import count
from extender.picture import NodePicture, SharePicture
from extender.placement.explaining import describe
from fracgpu.errors import RequestError
from fracgpu.names import GpuUuid, PodUid
from fracgpu.pods import Pod
from fracgpu.quantities import Mib, format_mib
from fracgpu.requests import request_of

_STYLES = {"waiting": "yellow", "failed": "red", "unread": "red", "bound": "cyan", "ending": "dim", "ended": "dim"}


class Part(Struct, frozen=True, rename="camel"):
    """What a pod has of one GPU; `granted` is None until the kubelet has given it."""

    index: int
    uuid: GpuUuid
    product: str
    containers: list[str]
    planned: Mib = msgspec.field(name="plannedMiB")
    granted: Mib | None = msgspec.field(name="grantedMiB")
    seats: int
    used: Mib | None = msgspec.field(name="usedMiB")


class PodRow(Struct, frozen=True, rename="camel"):
    """A pod that asks for GPUs, or holds a part of one; `reason` is why it waits or failed."""

    namespace: str
    name: str
    uid: PodUid
    node: str
    state: State
    phase: str
    asked: str
    created: str
    parts: list[Part]
    reason: str = ""


class PodList(Struct, frozen=True, rename="camel"):
    """What ``-o json`` prints."""

    pods: list[PodRow]


def rows_of(cluster: Cluster, *, namespace: str, names: Iterable[str]) -> list[PodRow]:
    """The pods of a namespace, by namespace and name.

    Args:
        cluster: the cluster.
        namespace: theirs; empty for all.
        names: of those to show; none for all.
    """
    wanted = set(names)
    picture = cluster.picture
    reasons = {pod.uid: pod.reason for pod in picture.waiting}
    shares: dict[PodUid, list[tuple[NodePicture, Part, SharePicture]]] = {}
    for node in picture.nodes:
        for gpu in node.gpus:
            for share in gpu.pods:
                granted = share.taken if _is_granted(cluster, node, share.uid) else None
                part = Part(
                    gpu.index, gpu.uuid, gpu.product, share.containers, share.taken, granted, share.seats, share.used
                )
                shares.setdefault(share.uid, []).append((node, part, share))

    def is_wanted(pod_namespace: str, name: str) -> bool:
        return (not namespace or pod_namespace == namespace) and (not wanted or name in wanted)

    rows = []
    for pod in (*cluster.pods.values(), *cluster.unread):
        parts = shares.pop(pod.uid, [])
        if is_wanted(pod.metadata.namespace, pod.metadata.name):
            rows.append(_row(cluster, pod, parts, waits_because=reasons.get(pod.uid, "")))
    rows += [
        _of_unknown(uid, found) for uid, found in shares.items() if is_wanted(found[0][2].namespace, found[0][2].name)
    ]
    return sorted(rows, key=lambda row: (row.namespace, row.name, row.uid))


def draw(rows: list[PodRow], *, now: datetime, is_wide: bool, with_namespace: bool) -> Group:
    """The table: a line per pod and GPU.

    Args:
        rows: the pods.
        now: the time.
        is_wide: with UUIDs, containers and the pod's phase.
        with_namespace: whether to say whose they are.
    """
    wide = ("CONTAINERS", "UUID", "PHASE") if is_wide else ()
    names = ("NAMESPACE", "NAME") if with_namespace else ("NAME",)
    made = table(*names, "NODE", "GPU", "MODEL", "ASKED", "GRANTED", "USED", "STATE", "AGE", *wide)
    for row in rows:
        state = Text(row.state, style=_STYLES.get(row.state, ""))
        parts: list[Part | None] = [*row.parts] or [None]
        for part in parts:
            cells: list[str | Text] = [
                *([row.namespace] if with_namespace else []),
                row.name,
                row.node or "-",
                str(part.index) if part else "-",
                part.product if part else "-",
                row.asked,
                _granted(part),
                Text(format_mib(part.used), style="red" if part.used > part.planned else "")
                if part is not None and part.used is not None
                else "-",
                state,
                age(row.created, now=now) or "-",
            ]
            if is_wide:
                cells += [", ".join(part.containers) if part else "-", part.uuid if part else "-", row.phase or "-"]
            made.add_row(*cells)
    told = [row for row in rows if row.reason]
    if not told:
        return Group(made)
    lines: list[RenderableType] = [made, Text()]
    for row in told:
        name = f"{row.namespace}/{row.name}" if with_namespace else row.name
        lines.append(Text.assemble((name, "bold"), f": {row.reason}"))
    return Group(*lines)


def _granted(part: Part | None) -> str:
    if part is None or part.granted is None:
        return "-"
    return format_mib(part.granted) + (f", {count(part.seats, 'seat')}" if part.seats else "")


def _is_granted(cluster: Cluster, node: NodePicture, uid: PodUid) -> bool:
    return any(grant.pod_uid == uid for grant in cluster.index.nodes[node.name].status.grants)


def _row(
    cluster: Cluster, pod: Pod, found: list[tuple[NodePicture, Part, SharePicture]], *, waits_because: str
) -> PodRow:
    meta, status = pod.metadata, pod.status
    state = _state(pod, [share for _, _, share in found])
    reason = waits_because
    if state == "unread":
        reason = "asks by annotation, but was created without the webhook; kubectl fracgpu explain says what to do"
    elif state == "failed" and status is not None:
        reason = status.message or status.reason
    elif state == "waiting" and not reason:
        reason = pod.scheduler_says
    return PodRow(
        meta.namespace,
        meta.name,
        pod.uid,
        pod.spec.node_name,
        state,
        status.phase if status is not None else "",
        _asked(cluster, pod),
        meta.creation_timestamp or "",
        [part for _, part, _ in found],
        reason,
    )


def _of_unknown(uid: PodUid, found: list[tuple[NodePicture, Part, SharePicture]]) -> PodRow:
    """A pod of which only the grant is known: it is gone and its processes live, or its namespace may not be listed."""
    node, _, share = found[0]
    state: State = "ending" if share.state == "ending" else "granted"
    return PodRow(share.namespace, share.name, uid, node.name, state, "", "-", "", [part for _, part, _ in found])


def _state(pod: Pod, shares: list[SharePicture]) -> State:
    if is_unread(pod):
        return "unread"
    if pod.status is not None and pod.status.phase == "Failed":
        return "failed"
    if not pod.spec.node_name:
        return "waiting" if pod.metadata.deletion_timestamp is None else "ending"
    states = {share.state for share in shares}
    if "ending" in states or pod.metadata.deletion_timestamp is not None:
        return "ending"
    if pod.is_terminal:
        return "ended"
    return "granted" if "granted" in states else "bound"


def _asked(cluster: Cluster, pod: Pod) -> str:
    try:
        request = request_of(pod)
    except RequestError:
        return "?"
    return describe(request, unit=cluster.index.unit) if request is not None else "-"
