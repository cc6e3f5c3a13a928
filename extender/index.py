"""The cluster in memory: every node's GPUs with what is free of each, kept up to date change by change.

What the GPUs are comes from the GPUNodes, what is taken of them from the ledger, and who waits for evicted pods to
end from the pods. Requests read `NodeView`s, which are made anew only for nodes that changed. No I/O and no waiting
happens here.
"""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType

from extender.ledger.claims import Claim, ClaimState, Entry
from extender.placement.fitting import choose
from extender.placement.policies import Policies
from extender.placement.views import GpuView, HostRoom, NodeView
from extender.surveys import KEPT_KINDS, Surveys
from fracgpu.errors import RequestError
from fracgpu.gpunodes import GpuNode
from fracgpu.hosts import NOTHING, HostAmount
from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.plans import Share, sum_shares
from fracgpu.pods import Pod
from fracgpu.quantities import DEFAULT_MEMORY_UNIT, Mib
from fracgpu.requests import PodRequest, request_of

Amount = tuple[int, int]
"""Of a node as a whole: units, seats."""


@dataclass(frozen=True, slots=True)
class Nomination:
    """A pod for which others were evicted from a node (status.nominatedNodeName): what they free is for it.

    Attributes:
        node: where.
        priority: pods of a lower or the same priority keep off.
        request: what it will take there.
    """

    node: NodeName
    priority: int
    request: PodRequest


class Index:
    """Nodes and claims, and the views made of them.

    Attributes:
        unit: the memory unit of the cluster; a node that counts in another is not used.
        nodes: node name -> its GPUNode.
        entries: pod UID -> its claim, holds among them.
        passing: node name -> pods whose claims there will soon be settled or gone: holds, unfinished binds, ending
            pods; only nodes that have some.
        policies: by which pods choose among the places that fit.
        surveys: what the nodes, as `view` shows them, say to a request.
        touched: nodes of which anything has changed, what pods use of them too; emptied by who draws them.
    """

    def __init__(
        self, *, unit: Mib = DEFAULT_MEMORY_UNIT, policies: Policies | None = None, kinds: int = KEPT_KINDS
    ) -> None:
        self.unit = unit
        self._nodes: dict[NodeName, GpuNode] = {}  # node name -> its GPUNode
        self._entries: dict[PodUid, Entry] = {}  # pod UID -> its claim
        self._on_node: defaultdict[NodeName, set[PodUid]] = defaultdict(set)  # node name -> pods with a claim there
        self._passing: defaultdict[NodeName, set[PodUid]] = defaultdict(set)  # node name -> those of them that pass
        self._views: dict[NodeName, NodeView] = {}  # node name -> view; missing where something changed since
        self._granted: dict[NodeName, Mapping[PodUid, Claim]] = {}  # node name -> what its GPUNode says is granted
        self._left: dict[NodeName, Amount] = {}  # node name -> see `is_behind`; missing where something changed
        self._ending: set[PodUid] = set()  # pods being deleted, or ended, whose claims wait for the plugin's word
        self._host_sizes: dict[NodeName, HostAmount] = {}  # node name -> CPU and memory for pods
        # Pod UID -> its node, empty where it has none yet, and what it takes of that.
        self._loads: dict[PodUid, tuple[NodeName, HostAmount]] = {}
        self._loaded: dict[NodeName, HostAmount] = {}  # node name -> CPU and memory of the pods there
        self._nominated: dict[PodUid, Nomination] = {}  # pod UID -> where others were evicted for it
        self._nominated_on: defaultdict[NodeName, set[PodUid]] = defaultdict(set)  # node name -> pods nominated for it
        self.nodes: Mapping[NodeName, GpuNode] = MappingProxyType(self._nodes)
        self.entries: Mapping[PodUid, Entry] = MappingProxyType(self._entries)
        self.passing: Mapping[NodeName, Set[PodUid]] = MappingProxyType(self._passing)
        self.touched: set[NodeName] = set()
        self.policies = policies or Policies()
        self.policies.fills.cluster = self.views
        self.surveys = Surveys(view=self.view, unit=unit, policies=self.policies, kept=kinds)

    def view(self, name: NodeName) -> NodeView | None:
        """The node as it is now; None for a node without a GPUNode."""
        found = self._views.get(name)
        if found is None and (node := self._nodes.get(name)) is not None:
            found = self._views[name] = self._make_view(node)
        return found

    def views(self) -> list[NodeView]:
        """All nodes as they are now."""
        return [view for name in self._nodes if (view := self.view(name)) is not None]

    def views_for(self, uid: PodUid, *, priority: int) -> dict[NodeName, NodeView]:
        """The nodes that one pod finds other than `view` shows them.

        Its own hold does not stand in its way, and what is set aside for nominated pods of its or a higher priority
        does.
        """
        names = {
            nomination.node
            for other, nomination in self._nominated.items()
            if other != uid and nomination.priority >= priority
        }
        own = self._entries.get(uid)
        if own is not None and own.claim.state is ClaimState.HELD:
            names.add(own.claim.node)
        found = {}
        for name in names:
            if (node := self._nodes.get(name)) is not None:
                view = self._make_view(node, without=frozenset({uid}))
                found[name] = view.without(self._set_aside(node, uid=uid, priority=priority))
        return found

    def coming_view(self, name: NodeName, *, uid: PodUid, priority: int) -> NodeView | None:
        """The node as one pod will find it when what passes has passed: see `passing`."""
        node = self._nodes.get(name)
        if node is None:
            return None
        view = self._make_view(node, without=frozenset({uid, *self._passing.get(name, ())}))
        return view.without(self._set_aside(node, uid=uid, priority=priority))

    def preemption_view(self, name: NodeName, *, uid: PodUid, priority: int) -> NodeView | None:
        """The node as a pod that may evict others will find it if it evicts none: ending pods and holds are gone."""
        node = self._nodes.get(name)
        if node is None:
            return None
        gone = {other for other in self._passing.get(name, ()) if not self._is_binding(other)}
        view = self._make_view(node, without=frozenset({uid, *gone}))
        return view.without(self._set_aside(node, uid=uid, priority=priority))

    def uids_on(self, name: NodeName) -> Set[PodUid]:
        """The pods with a claim on a node."""
        return self._on_node.get(name, set())

    def claims_on(self, name: NodeName) -> list[Claim]:
        """The claims on a node, by pod."""
        return sorted((self._entries[uid].claim for uid in self._on_node.get(name, ())), key=lambda claim: claim.pod)

    def takers_of(self, name: NodeName) -> list[Claim]:
        """All that is taken on a node: the claims there, and grants of which the ledger does not know yet."""
        return [*self.claims_on(name), *self._unknown_to_ledger(name)]

    def is_ending(self, uid: PodUid) -> bool:
        """Whether a pod is being deleted or has ended."""
        return uid in self._ending

    def is_behind(self, name: NodeName, amount: Amount) -> bool:
        """Whether so much, asked of the node as a whole, is more than it has left by the pods that we know of.

        kube-scheduler sends only nodes whose sum of the resource suffices. Where it sends one of which we know that it
        does not, it has seen a pod end of which we are yet to hear.
        """
        if name not in self._nodes:
            return False
        left = self._left.get(name)
        if left is None:
            left = self._left[name] = self._sum_left(self._nodes[name])
        return amount[0] > left[0] or amount[1] > left[1]

    def limits(self, claim: Claim) -> dict[GpuUuid, tuple[int, int]]:
        """Units and seats of each GPU that a claim takes; none of a GPU that its node has not."""
        node = self._nodes.get(claim.node)
        sizes = {gpu.uuid: (gpu.units, gpu.replicas) for gpu in node.spec.gpus} if node else {}
        return {gpu: sizes.get(gpu, (0, 0)) for gpu in claim.per_gpu()}

    def put_node(self, node: GpuNode, *, granted: Mapping[PodUid, Claim] = MappingProxyType({})) -> None:
        """Take over a GPUNode, new or changed, with what it says is granted.

        Grants that the ledger does not know yet count at once: until it does, nobody may be promised the same.
        """
        before, unknown = self._nodes.get(node.node), self._unknown_to_ledger(node.node)
        self._nodes[node.node] = node
        self._granted[node.node] = granted
        is_as_before = before is not None and before.spec == node.spec and _has_status(before) == _has_status(node)
        if not is_as_before or self._unknown_to_ledger(node.node) != unknown:
            self._changed(node.node)
        elif before is not None and not _looks_as(before, node):
            self.touched.add(node.node)

    def remove_node(self, name: NodeName) -> None:
        """Forget a GPUNode; the claims there stay until they are released."""
        self._nodes.pop(name, None)
        self._granted.pop(name, None)
        self._changed(name)

    def see(self, pod: Pod) -> None:
        """A pod that asks for GPUs has arrived: what it asks belongs to the mix by which places are compared."""
        with contextlib.suppress(RequestError):
            request = request_of(pod)
            if request is not None:
                self.policies.fills.mix.see(request)

    def put_host(self, name: NodeName, size: HostAmount | None) -> None:
        """Say how much CPU and memory a node has for pods; None where it is gone."""
        if size is None:
            self._host_sizes.pop(name, None)
        elif self._host_sizes.get(name) == size:
            return
        else:
            self._host_sizes[name] = size
        self._changed(name)

    def put_load(self, uid: PodUid, node: NodeName, amount: HostAmount) -> None:
        """Say how much CPU and memory a pod takes, with a GPU or without; `node` is empty until it is on one."""
        before = self._loads.get(uid)
        if before == (node, amount):
            return
        if before is not None:
            self._take_load(uid)
        self._loads[uid] = node, amount
        self._loaded[node] = self._loaded.get(node, NOTHING).plus(amount)
        entry = self._entries.get(uid)
        if before != (NodeName(""), amount) or entry is None or entry.claim.node != node:
            self._load_changed(uid, node)  # else it counts there already, by its claim

    def remove_load(self, uid: PodUid) -> None:
        """A pod takes no CPU and memory any more."""
        if uid in self._loads:
            self._take_load(uid)

    def _take_load(self, uid: PodUid) -> None:
        node, amount = self._loads.pop(uid)
        left = self._loaded.pop(node).minus(amount)
        if left != NOTHING:
            self._loaded[node] = left
        self._load_changed(uid, node)

    def _load_changed(self, uid: PodUid, node: NodeName) -> None:
        """What a pod takes has changed where it is, and where its claim is, by which it counts until it is anywhere."""
        entry = self._entries.get(uid)
        for name in {node, entry.claim.node if entry is not None else node} - {""}:
            self._changed(name)

    def replace_claims(self, entries: Mapping[PodUid, Entry]) -> None:
        """Forget all claims; these are the claims."""
        self.touched.update(self._nodes)
        self._entries.clear()
        self._on_node.clear()
        self._passing.clear()
        self._left.clear()
        self._views.clear()
        self.surveys.clear()
        for uid, entry in entries.items():
            self._insert(uid, entry)

    def change_claim(self, uid: PodUid, entry: Entry | None) -> None:
        """This pod's claim is now this one, or none."""
        before = self._entries.pop(uid, None)
        if before is not None:
            node = before.claim.node
            self._left.pop(node, None)
            _discard(self._on_node, node, uid)
            _discard(self._passing, node, uid)
            if entry is None or entry.claim.node != node or entry.claim.plan != before.claim.plan:
                self._changed(node)
        if entry is not None:
            self._insert(uid, entry)
            if before is None or before.claim.node != entry.claim.node:
                self._changed(entry.claim.node)

    def set_ending(self, uid: PodUid, *, ending: bool) -> None:
        """Say whether a pod is being deleted or has ended; its claim stays until its share is known to be free."""
        if ending:
            self._ending.add(uid)
        else:
            self._ending.discard(uid)
        if uid in self._entries:
            self._note_passing(uid)

    def set_nominated(self, uid: PodUid, nomination: Nomination | None) -> None:
        """Say for which node a pod is nominated, if for any."""
        before = self._nominated.pop(uid, None)
        if before is not None:
            _discard(self._nominated_on, before.node, uid)
        if nomination is not None:
            self._nominated[uid] = nomination
            self._nominated_on[nomination.node].add(uid)

    def _insert(self, uid: PodUid, entry: Entry) -> None:
        self._entries[uid] = entry
        self._on_node[entry.claim.node].add(uid)
        self._note_passing(uid)

    def _note_passing(self, uid: PodUid) -> None:
        claim = self._entries[uid].claim
        self._left.pop(claim.node, None)
        self.touched.add(claim.node)
        if uid in self._ending or claim.state is not ClaimState.BOUND:
            self._passing[claim.node].add(uid)
        else:
            _discard(self._passing, claim.node, uid)

    def _sum_left(self, node: GpuNode) -> Amount:
        """What kube-scheduler has left to give on a node: it counts the units of seats for nothing."""
        claims = (
            self._entries[uid].claim
            for uid in self._on_node.get(node.node, ())
            if uid not in self._ending and self._entries[uid].claim.state is not ClaimState.HELD
        )
        shares = [share for claim in claims for shares in claim.plan.containers.values() for share in shares]
        gpus = [gpu for gpu in node.spec.gpus if gpu.healthy]
        units = sum(gpu.units for gpu in gpus) - sum(share.units for share in shares if not share.seats)
        return units, sum(gpu.replicas for gpu in gpus) - sum(share.seats for share in shares)

    def _is_binding(self, uid: PodUid) -> bool:
        return uid not in self._ending and self._entries[uid].claim.state is ClaimState.BINDING

    def _unknown_to_ledger(self, name: NodeName) -> list[Claim]:
        """What is granted on a node to pods of which the ledger has no claim."""
        return [claim for uid, claim in self._granted.get(name, {}).items() if uid not in self._entries]

    def _changed(self, name: NodeName) -> None:
        self.touched.add(name)
        self._views.pop(name, None)
        self._left.pop(name, None)
        self.surveys.forget(name)

    def _set_aside(self, node: GpuNode, *, uid: PodUid, priority: int) -> list[Share]:
        """What pods other than this one, of its or a higher priority, are to get of a node when what passes has passed.

        Which GPUs that will be is chosen by best fit, so that all replicas say the same; a pod that holds its share
        already is left out.
        """
        waiting = sorted(
            (-self._nominated[other].priority, other)
            for other in self._nominated_on.get(node.node, ())
            if self._nominated[other].priority >= priority and other != uid and other not in self._entries
        )
        taken: list[Share] = []
        if waiting:
            view = self._make_view(node, without=frozenset({uid, *self._passing.get(node.node, ())}))
            for _, other in waiting:
                plan = choose(view, self._nominated[other].request)
                if plan is not None:
                    taken += plan.per_gpu().values()
                    view = view.without(plan.per_gpu().values())
        return taken

    def _make_view(self, node: GpuNode, *, without: frozenset[PodUid] = frozenset()) -> NodeView:
        claims = [self._entries[uid].claim for uid in self._on_node.get(node.node, ()) if uid not in without]
        claims += self._unknown_to_ledger(node.node)
        taken = sum_shares(share for claim in claims for share in claim.per_gpu().values())
        by_seats: Counter[GpuUuid] = Counter()  # GPU -> units that seats have taken with them
        if node.spec.numa_hints:
            for claim in claims:
                for share in (share for shares in claim.plan.containers.values() for share in shares if share.seats):
                    by_seats[share.gpu] += share.units
        return NodeView.of(
            node.node,
            unit=node.spec.memory_unit,
            gpus=_gpu_views(node, taken, by_seats),
            host=self._host(node.node, claims),
        )

    def _host(self, name: NodeName, claims: Iterable[Claim]) -> HostRoom | None:
        """What is left of a node's CPU and memory, after the pods there and those on their way to it."""
        size = self._host_sizes.get(name)
        if size is None:
            return None
        free = size.minus(self._loaded.get(name, NOTHING))
        for claim in claims:
            node, amount = self._loads.get(claim.uid, (name, NOTHING))
            if not node:
                free = free.minus(amount)
        return HostRoom(size, free)


def _discard(sets: defaultdict[NodeName, set[PodUid]], name: NodeName, uid: PodUid) -> None:
    """Take a pod out of a node's set, and the set away when it is empty."""
    found = sets.get(name)
    if found is not None:
        found.discard(uid)
        if not found:
            del sets[name]


def _gpu_views(node: GpuNode, taken: Mapping[GpuUuid, Share], by_seats: Mapping[GpuUuid, int]) -> Iterable[GpuView]:
    usable = _has_status(node)
    has_hints = node.spec.numa_hints
    for gpu in node.spec.gpus:
        share = taken.get(gpu.uuid)
        yield GpuView(
            gpu.uuid,
            units=gpu.units,
            replicas=gpu.replicas,
            free_units=gpu.units - (share.units if share else 0),
            free_seats=gpu.replicas - (share.seats if share else 0),
            usable=gpu.healthy and usable and gpu.units > 0,
            product=gpu.product,
            numa_node=gpu.numa_node if has_hints else None,
            seat_units=by_seats.get(gpu.uuid, 0),
            memory=gpu.memory,
        )


def _looks_as(before: GpuNode, after: GpuNode) -> bool:
    """Whether a node that offers the same also says the same about grants and use; how far it has come is not shown."""
    return before.status.grants == after.status.grants and before.status.usage == after.status.usage


def _has_status(node: GpuNode) -> bool:
    """Whether its plugin has said what is granted: an object that was just made, or made anew, says nothing yet."""
    return bool(node.status.observed_pods)
