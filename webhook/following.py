"""Follows the GPUNodes of the cluster, for what the largest GPU is."""

from functools import lru_cache

import msgspec

from fracgpu.gpunodes import Gpu, GpuNode, GpuNodeSpec, GpuNodeStatus
from fracgpu.kube.client import KubeClient
from fracgpu.kube.reflector import Change, ChangeKind, Reflector
from fracgpu.kube.resources import GPUNODES
from fracgpu.names import GpuUuid, NodeName
from fracgpu.pods import ObjectMeta
from webhook.cards import Card, Cluster, cards_of, cluster_of


class GpuFollower:
    """Knows the GPUs of the cluster while `run` runs; nothing waits for it, and without it nothing is too large."""

    def __init__(self, kube: KubeClient) -> None:
        self._nodes: dict[NodeName, tuple[Card, ...]] = {}  # node -> its GPUs
        self._cluster: Cluster | None = Cluster()
        self._reflector = Reflector(kube, GPUNODES, on_change=self._on_change, keep=_reduced)

    @property
    def cluster(self) -> Cluster:
        """The GPUs that there are, as far as is known."""
        if self._cluster is None:
            self._cluster = cluster_of(self._nodes.values())
        return self._cluster if self._reflector.synced.is_set() else Cluster()

    async def run(self) -> None:
        """Follow until cancelled."""
        await self._reflector.run()

    def _on_change(self, change: Change[GpuNode]) -> None:
        node = change.object
        if change.kind is ChangeKind.DELETED:
            self._nodes.pop(node.node, None)
            self._cluster = None
            return
        cards = cards_of(node)
        if self._nodes.get(node.node) != cards:
            self._nodes[node.node] = cards
            self._cluster = None


def _reduced(node: GpuNode) -> GpuNode:
    """Only what is asked of it; the GPUs of thousands of nodes are the same few kinds, and each is kept once."""
    found = node.metadata
    metadata = ObjectMeta(name=found.name, uid=found.uid, resource_version=found.resource_version)
    gpus = tuple(_kind(card) for card in cards_of(node))
    return msgspec.structs.replace(node, metadata=metadata, spec=GpuNodeSpec(gpus=gpus), status=GpuNodeStatus())


@lru_cache(maxsize=1024)
def _kind(card: Card) -> Gpu:
    return Gpu(GpuUuid(""), 0, card.product, card.memory, card.units, card.replicas)
