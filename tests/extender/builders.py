"""Builders for the extender's tests: short words for nodes, pods and claims."""

from extender.ledger.claims import Claim, ClaimState
from extender.placement.views import GpuView, NodeView
from fracgpu.gpunodes import Gpu, GpuNode, GpuNodeSpec, GpuNodeStatus, Grant
from fracgpu.names import ANNOTATION_ALLOCATION, RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid, NodeName, PodUid
from fracgpu.plans import Plan, Share, encode_plan
from fracgpu.pods import Container, ContainerState, ContainerStatus, ObjectMeta, Pod, PodSpec, PodStatus, Resources
from fracgpu.quantities import Mib
from fracgpu.requests import ContainerRequest, PodRequest

UNIT = Mib(512)


def gpu_view(
    name: str,
    *,
    free: int,
    units: int = 80,
    seats: int = 4,
    free_seats: int = 4,
    usable: bool = True,
    product: str = "",
    numa: int | None = None,
    seat_units: int = 0,
) -> GpuView:
    return GpuView(GpuUuid(name), units, seats, free, free_seats, usable, product, numa, seat_units)


def node_view(name: str, *gpus: GpuView) -> NodeView:
    return NodeView.of(NodeName(name), unit=UNIT, gpus=gpus)


def request(units: int = 0, *, gpus: int = 1, seats: int = 0, replicas: int | None = None) -> PodRequest:
    return PodRequest((ContainerRequest("main", gpus, units, seats, replicas),))


def gpu_node(
    name: str,
    *gpus: str,
    units: int = 80,
    replicas: int = 4,
    grants: tuple[Grant, ...] = (),
    observed: str = "1",
    ended: tuple[str, ...] = (),
    unit: int = UNIT,
) -> GpuNode:
    return GpuNode(
        metadata=ObjectMeta(name=name, uid=PodUid(f"uid-of-{name}"), resource_version=observed),
        spec=GpuNodeSpec(
            Mib(unit),
            tuple(Gpu(GpuUuid(uuid), n, "Test GPU", Mib(units * UNIT), units, replicas) for n, uuid in enumerate(gpus)),
        ),
        status=GpuNodeStatus(observed, grants, tuple(map(PodUid, ended))),
    )


def grant(uid: str, gpu: str, *, units: int, name: str = "") -> Grant:
    return Grant(PodUid(uid), "team-a", name or uid, {"main": (Share(GpuUuid(gpu), units),)})


def claim(
    uid: str, *, node: str = "node-1", gpu: str = "GPU-a", units: int = 8, state: str = "bound", unit: int = UNIT
) -> Claim:
    plan = Plan(Mib(unit), {"main": (Share(GpuUuid(gpu), units),)})
    return Claim(PodUid(uid), "team-a", uid, NodeName(node), ClaimState(state), plan)


def pod(
    uid: str,
    *,
    units: int = 0,
    seats: int = 0,
    node: str = "",
    plan: Plan | None = None,
    annotations: dict[str, str] | None = None,
    phase: str = "Pending",
    running: bool | None = None,
    resource_version: str = "1",
    priority: int | None = None,
) -> Pod:
    limits: dict[str, str | int | float] = {}
    if units:
        limits[RESOURCE_MEMORY] = str(units)
    if seats:
        limits[RESOURCE_REPLICA] = str(seats)
    notes = dict(annotations or {})
    if plan is not None:
        notes[ANNOTATION_ALLOCATION] = encode_plan(plan)
    states = () if running is None else (ContainerState(running={}) if running else ContainerState(terminated={}),)
    return Pod(
        ObjectMeta(name=uid, namespace="team-a", uid=PodUid(uid), resource_version=resource_version, annotations=notes),
        PodSpec(node_name=NodeName(node), priority=priority, containers=(Container("main", Resources(limits=limits)),)),
        PodStatus(phase, container_statuses=tuple(ContainerStatus("main", state) for state in states)),
    )
