"""What the API server lists of a cluster that matters for GPUs, as values. `clusters` reads it."""

from dataclasses import dataclass, field

from fracgpu.gpunodes import GpuNode
from fracgpu.nodes import Node
from fracgpu.pods import Pod
from replay.snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class ClusterObjects:
    """What the API server lists.

    Attributes:
        pods: that matter for GPUs, or take CPU and memory beside them.
        nodes: the GPUNodes.
        hosts: the Nodes; None where they may not be listed.
        pods_within: the namespace whose pods are all that may be listed; empty for all namespaces, None for none.
        gaps: what is not in here and why, a sentence each.
    """

    pods: list[Pod] = field(default_factory=list)
    nodes: list[GpuNode] = field(default_factory=list)
    hosts: list[Node] | None = None
    pods_within: str | None = ""
    gaps: list[str] = field(default_factory=list)

    @property
    def snapshot(self) -> Snapshot:
        """The cluster at that moment."""
        return Snapshot.of(nodes=self.nodes, hosts=self.hosts or (), pods=self.pods)
