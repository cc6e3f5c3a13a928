"""What the demo shows: who holds which part of which GPU, who waits and why, who was refused. Pure.

Used amounts come from the device IDs that living containers hold, as their kubelet knows them, and not from the
ledger: a mistake of the ledger would show.
"""

from collections.abc import Container, Iterable, Mapping

from msgspec import Struct

from extender.picture import WaitingPicture
from fracgpu.device_ids import count_by_gpu
from fracgpu.gpunodes import Gpu, GpuNode
from fracgpu.names import RESOURCE_MEMORY, GpuUuid, NodeName, PodUid
from fracgpu.plans import Share, sum_shares
from fracgpu.pods import Pod
from fracgpu.quantities import seat_units

Held = Mapping[tuple[PodUid, str], Mapping[str, Iterable[str]]]
"""(pod UID, container name) -> resource -> device IDs, of the living containers of one node."""


class GpuReport(Struct, frozen=True):
    """A GPU: units and seats that it offers, and those in use."""

    uuid: GpuUuid
    product: str
    units: int
    units_used: int
    seats: int
    seats_used: int


class NodeReport(Struct, frozen=True):
    """A node and its GPUs."""

    name: NodeName
    gpus: list[GpuReport]


class PlacedReport(Struct, frozen=True):
    """A pod that holds shares: container name -> share of each of its GPUs."""

    pod: str
    node: NodeName
    containers: dict[str, list[Share]]


class WaitingReport(Struct, frozen=True):
    """A pod that has no place, and why."""

    pod: str
    reason: str


class RefusedReport(Struct, frozen=True):
    """A pod that was not let into the cluster, and what the user was told."""

    pod: str
    message: str


class Report(Struct, frozen=True):
    """The whole picture; its JSON is what ``fracgpu demo --json`` prints."""

    nodes: list[NodeReport]
    placed: list[PlacedReport]
    waiting: list[WaitingReport]
    refused: list[RefusedReport]

    def overcommitted(self) -> list[str]:
        """The GPUs that hold more than they have, each as a sentence; there should never be one."""
        return [
            f"{node.name} {gpu.uuid}: {gpu.units_used} of {gpu.units} units, {gpu.seats_used} of {gpu.seats} seats"
            for node in self.nodes
            for gpu in node.gpus
            if gpu.units_used > gpu.units or gpu.seats_used > gpu.seats
        ]


def make_report(
    *,
    nodes: Iterable[GpuNode],
    held: Mapping[NodeName, Held],
    pod_names: Mapping[PodUid, str],
    waiting: Mapping[str, str],
    refused: Iterable[tuple[str, str]],
) -> Report:
    """Put the picture together.

    Args:
        nodes: the cluster's GPUNodes.
        held: node -> what its living containers hold.
        pod_names: pod UID -> ``namespace/name``, also of pods that are gone while a process of theirs lives on.
        waiting: pod -> reason.
        refused: pod and message, of each.
    """
    node_reports, placed = [], []
    for node in sorted(nodes, key=lambda node: node.node):
        gpus = {gpu.uuid: gpu for gpu in node.spec.gpus}
        shares = {holder: _shares(ids, gpus) for holder, ids in held.get(node.node, {}).items()}
        used = sum_shares(share for found in shares.values() for share in found)
        node_reports.append(NodeReport(node.node, [_gpu_report(gpu, used) for gpu in node.spec.gpus]))
        by_pod: dict[str, dict[str, list[Share]]] = {}
        for (uid, container), found in shares.items():
            if found:
                by_pod.setdefault(pod_names.get(uid, uid), {})[container] = found
        placed += [PlacedReport(pod, node.node, containers) for pod, containers in by_pod.items()]
    return Report(
        node_reports,
        sorted(placed, key=lambda one: one.pod),
        [WaitingReport(pod, reason) for pod, reason in sorted(waiting.items())],
        [RefusedReport(pod, message) for pod, message in sorted(refused)],
    )


def why_not_running(pod: Pod, told: WaitingPicture | None, *, nodes: Container[str]) -> str:
    """Say why a pod does not run; empty where it does, or is about to.

    Args:
        pod: as the API server has it.
        told: what the extender says of it, if it waits there.
        nodes: those that exist.
    """
    if pod.status is not None and pod.status.phase == "Failed":
        return f"failed, and is not tried again: {pod.status.message or pod.status.reason or 'no reason given'}"
    node = pod.spec.node_name
    if node and node not in nodes:
        return f"assigned to the node {node}, which does not exist"
    if node or pod.is_terminal:
        return ""
    says = pod.scheduler_says or "not tried yet"
    if told is None:
        return says
    # Where a GPU has room, something else keeps the pod away: a selector, another scheduler's name.
    return f"{says} ({told.reason})" if told.has_room else told.reason


def _gpu_report(gpu: Gpu, used: Mapping[GpuUuid, Share]) -> GpuReport:
    share = used.get(gpu.uuid, Share(gpu.uuid, 0))
    return GpuReport(gpu.uuid, gpu.product, gpu.units, share.units, gpu.replicas, share.seats)


def _shares(ids_by_resource: Mapping[str, Iterable[str]], gpus: Mapping[GpuUuid, Gpu]) -> list[Share]:
    """What a container's device IDs are worth on each GPU, by UUID."""
    shares = []
    for resource, ids in ids_by_resource.items():
        for uuid, count in count_by_gpu(ids).items():
            gpu = gpus[uuid]
            if resource == RESOURCE_MEMORY:
                shares.append(Share(uuid, count))
            else:
                shares.append(Share(uuid, seat_units(count, replicas=gpu.replicas, units=gpu.units), count))
    return sorted(sum_shares(shares).values(), key=lambda share: share.gpu)
