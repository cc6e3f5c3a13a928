"""Clusters as the API server would list them, for tests of what is made of them."""

from typing import Any

import msgspec

from cli.clusterobjects import ClusterObjects
from cli.kubectl.cluster import Cluster
from fracgpu.gpunodes import Gpu, GpuNode, GpuNodeSpec, GpuNodeStatus, Grant, UsedMemory
from fracgpu.names import GpuUuid, PodUid
from fracgpu.nodes import Node
from fracgpu.plans import Plan, Share
from fracgpu.pods import ObjectMeta, Pod, PodCondition
from fracgpu.quantities import Mib
from tests.extender.builders import pod

UNIT = Mib(512)
CREATED = "2026-11-21T12:00:00Z"


def node(
    name: str,
    *gpus: Gpu,
    held: dict[str, tuple[str, int]] | None = None,
    used: dict[str, int] | None = None,
    observed: str = "1",
    unit: int = UNIT,
) -> GpuNode:
    """A node.

    Args:
        name: its name.
        gpus: see `gpu`.
        held: pod name -> GPU and units that it was granted.
        used: pod name -> MiB that it uses there.
        observed: how far the plugin has come.
        unit: in MiB.
    """
    held = held or {}
    grants = tuple(
        Grant(PodUid(pod), "team-a", pod, {"main": (Share(GpuUuid(gpu), units),)})
        for pod, (gpu, units) in sorted(held.items())
    )
    usage = None
    if used is not None:
        usage = tuple(UsedMemory(PodUid(pod), "main", GpuUuid(held[pod][0]), Mib(mib)) for pod, mib in used.items())
    return GpuNode(
        ObjectMeta(name=name, uid=PodUid(f"uid-{name}"), resource_version="1"),
        GpuNodeSpec(Mib(unit), tuple(gpus)),
        GpuNodeStatus(observed, grants, usage=usage),
    )


def gpu(
    uuid: str,
    *,
    index: int = 0,
    units: int = 80,
    product: str = "NVIDIA A100-SXM4-40GB",
    seats: int = 4,
    problem: str = "",
) -> Gpu:
    """A GPU of so many units of 512 MiB; one with a problem is not healthy."""
    memory = Mib(units * UNIT)
    return Gpu(GpuUuid(uuid), index, product, memory, units, seats, healthy=not problem, problem=problem)


def placed(name: str, where: str, uuid: str, *, units: int, phase: str = "Running") -> Pod:
    """A pod with a plan on a node."""
    plan = Plan(UNIT, {"main": (Share(GpuUuid(uuid), units),)})
    return created(pod(name, units=units, node=where, plan=plan, phase=phase))


def waiting(name: str, *, says: str = "", **asked: Any) -> Pod:
    """A pod on no node; `says` is what the scheduler wrote onto it."""
    found = created(pod(name, **asked))
    if not says:
        return found
    conditions = (PodCondition("PodScheduled", "False", "Unschedulable", says),)
    assert found.status is not None
    return msgspec.structs.replace(found, status=msgspec.structs.replace(found.status, conditions=conditions))


def created(found: Pod) -> Pod:
    meta = msgspec.structs.replace(found.metadata, creation_timestamp=CREATED)
    return msgspec.structs.replace(found, metadata=meta)


def deleted(found: Pod) -> Pod:
    """The pod, while it is being deleted."""
    meta = msgspec.structs.replace(found.metadata, deletion_timestamp=CREATED)
    return msgspec.structs.replace(found, metadata=meta)


def cluster(*objects: GpuNode | Pod | Node) -> Cluster:
    """What the plugin makes of these."""
    return Cluster.of(
        ClusterObjects(
            pods=[found for found in objects if isinstance(found, Pod)],
            nodes=[found for found in objects if isinstance(found, GpuNode)],
            hosts=[found for found in objects if isinstance(found, Node)],
        )
    )
