"""The cluster in memory: every node's GPUs with what is free of each, kept up to date change by change.

What the GPUs are comes from the GPUNodes, what is taken of them from the ledger. Requests read `NodeView`s, which are
made anew only for nodes that changed. No I/O and no waiting happens here.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from extender.ledger.claims import Claim, ClaimState, Entry
from extender.placement.views import GpuView, NodeView
from fracgpu.gpunodes import GpuNode
from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.plans import Share, sum_shares
from fracgpu.quantities import DEFAULT_MEMORY_UNIT, Mib


class Index:
    """Nodes and claims, and the views made of them."""

    def __init__(self) -> None:
        self._nodes: dict[NodeName, GpuNode] = {}  # node name -> its GPUNode
        self._entries: dict[PodUid, Entry] = {}  # pod UID -> its claim
        self._on_node: defaultdict[NodeName, set[PodUid]] = defaultdict(set)  # node name -> pods with a claim there
        self._views: dict[NodeName, NodeView] = {}  # node name -> view; missing where something changed since
        self._ending: set[PodUid] = set()  # pods being deleted, or ended, whose claims wait for the plugin's word
        self.nodes: Mapping[NodeName, GpuNode] = MappingProxyType(self._nodes)
        self.entries: Mapping[PodUid, Entry] = MappingProxyType(self._entries)

    @property
    def unit(self) -> Mib:
        """The memory unit of the cluster: that of its nodes, which all have the same."""
        return next((node.spec.memory_unit for node in self._nodes.values()), DEFAULT_MEMORY_UNIT)

    def view(self, name: NodeName) -> NodeView | None:
        """The node as it is now; None for a node without a GPUNode."""
        found = self._views.get(name)
        if found is None and (node := self._nodes.get(name)) is not None:
            found = self._views[name] = self._make_view(node)
        return found

    def coming_view(self, name: NodeName) -> NodeView | None:
        """The node as it will be when what is under way is over: unfinished binds failed, ending pods released."""
        node = self._nodes.get(name)
        passing = [uid for uid in self._on_node.get(name, ()) if self._is_passing(uid)]
        if node is None or not passing:
            return self.view(name)
        return self._make_view(node, without=frozenset(passing))

    def passing_on(self, name: NodeName) -> list[Claim]:
        """The claims that `coming_view` leaves out, by pod."""
        return [claim for claim in self.claims_on(name) if self._is_passing(claim.uid)]

    def views(self) -> list[NodeView]:
        """All nodes as they are now."""
        return [view for name in self._nodes if (view := self.view(name)) is not None]

    def claims_on(self, name: NodeName) -> list[Claim]:
        """The claims on a node, by pod."""
        return sorted((self._entries[uid].claim for uid in self._on_node.get(name, ())), key=lambda claim: claim.pod)

    def put_node(self, node: GpuNode) -> None:
        """Take over a GPUNode, new or changed."""
        before = self._nodes.get(node.node)
        self._nodes[node.node] = node
        if before is None or before.spec != node.spec or _has_status(before) != _has_status(node):
            self._views.pop(node.node, None)

    def remove_node(self, name: NodeName) -> None:
        """Forget a GPUNode; the claims there stay until they are released."""
        self._nodes.pop(name, None)
        self._views.pop(name, None)

    def replace_claims(self, entries: Mapping[PodUid, Entry]) -> None:
        """Forget all claims; these are the claims."""
        self._entries.clear()
        self._on_node.clear()
        self._views.clear()
        for uid, entry in entries.items():
            self._insert(uid, entry)

    def change_claim(self, uid: PodUid, entry: Entry | None) -> None:
        """This pod's claim is now this one, or none."""
        before = self._entries.pop(uid, None)
        if before is not None:
            self._on_node[before.claim.node].discard(uid)
            self._views.pop(before.claim.node, None)
        if entry is not None:
            self._insert(uid, entry)

    def set_ending(self, uid: PodUid, *, ending: bool) -> None:
        """Say whether a pod is being deleted or has ended; its claim stays until its share is known to be free."""
        if ending:
            self._ending.add(uid)
        else:
            self._ending.discard(uid)

    def _is_passing(self, uid: PodUid) -> bool:
        return uid in self._ending or self._entries[uid].claim.state is ClaimState.BINDING

    def _insert(self, uid: PodUid, entry: Entry) -> None:
        self._entries[uid] = entry
        self._on_node[entry.claim.node].add(uid)
        self._views.pop(entry.claim.node, None)

    def _make_view(self, node: GpuNode, *, without: frozenset[PodUid] = frozenset()) -> NodeView:
        claims = (self._entries[uid].claim for uid in self._on_node.get(node.node, ()) if uid not in without)
        taken = sum_shares(share for claim in claims for share in claim.per_gpu().values())
        return NodeView.of(node.node, unit=node.spec.memory_unit, gpus=_gpu_views(node, taken))


def _gpu_views(node: GpuNode, taken: Mapping[GpuUuid, Share]) -> Iterable[GpuView]:
    for gpu in node.spec.gpus:
        share = taken.get(gpu.uuid, Share(gpu.uuid, 0))
        yield GpuView(
            gpu.uuid,
            units=gpu.units,
            replicas=gpu.replicas,
            free_units=gpu.units - share.units,
            free_seats=gpu.replicas - share.seats,
            usable=gpu.healthy and _has_status(node),
        )


def _has_status(node: GpuNode) -> bool:
    """Whether its plugin has said what is granted: an object that was just made, or made anew, says nothing yet."""
    return bool(node.status.observed_pods)
