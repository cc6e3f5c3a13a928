"""A GPUNode with every field set."""

import json
from typing import Any

import msgspec

from fracgpu.gpunodes import (
    Gpu,
    GpuNode,
    GpuNodeSpec,
    GpuNodeStatus,
    Grant,
    IsolationStatus,
    PendingShares,
    SharingStatus,
    UsedMemory,
)
from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.plans import Share
from fracgpu.pods import ObjectMeta
from fracgpu.quantities import Mib
from fracgpu.sharing import PolicyProblem

SHARE = Share(GpuUuid("GPU-a"), units=8, seats=0)
GPU = Gpu(
    GpuUuid("GPU-a"),
    0,
    "Tesla T4",
    Mib(15360),
    units=30,
    replicas=4,
    healthy=False,
    numa_node=1,
    problem="lost",
    parent="GPU-p",
    pending=PendingShares(28, 2),
)
NODE = GpuNode(
    metadata=ObjectMeta(name=NodeName("node-1")),
    spec=GpuNodeSpec(Mib(512), (GPU,), pending_memory_unit=Mib(256), numa_hints=True),
    status=GpuNodeStatus(
        "42",
        (Grant(PodUid("uid-1"), "team-a", "chat", {"main": (SHARE,)}),),
        (PodUid("uid-2"),),
        IsolationStatus("mps", enforced=True, message="per process"),
        SharingStatus(("policy-1",), (PolicyProblem("policy-2", 3, "Conflict", "policy-1 says otherwise"),)),
        (UsedMemory(PodUid("uid-1"), "chat", GpuUuid("GPU-a"), Mib(3456)),),
        "2026-11-21T20:00:00Z",
    ),
)
"""A GPUNode with every field set."""


def gpunode(name: str) -> dict[str, Any]:
    """A GPUNode with every field set, as the plugin encodes it; for its owner the metadata has only the name."""
    made: dict[str, Any] = json.loads(msgspec.json.encode(NODE)) | {"metadata": {"name": name}}
    return made
