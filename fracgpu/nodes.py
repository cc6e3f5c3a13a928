"""The parts of a Kubernetes Node that fracgpu reads (core/v1, field names as on the wire)."""

from msgspec import Struct

from fracgpu.pods import ObjectMeta, Quantity


class NodeStatus(Struct, frozen=True):
    """core/v1 NodeStatus: what the node has, and what of it pods may have."""

    capacity: dict[str, Quantity] | None = None
    allocatable: dict[str, Quantity] | None = None


class Node(Struct, frozen=True):
    """core/v1 Node: who it is, and what it offers."""

    metadata: ObjectMeta = ObjectMeta()
    status: NodeStatus | None = None
