"""A cluster at one moment, and what it would be with other seats or more nodes. Pure.

It becomes an index as the extender's is, filled by the extender's own reading of pods, GPUNodes and Nodes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from extender.index import Index
from extender.ledger.claims import Claim, Entry
from extender.observing import asks_gpu, load_of, nomination_of, rebuilt_claims
from extender.placement.policies import Policies
from fracgpu.errors import SettingError
from fracgpu.gpunodes import Gpu, GpuNode, GpuNodeStatus
from fracgpu.hosts import NOTHING, HostAmount, amount_of
from fracgpu.names import GpuUuid, NodeName
from fracgpu.nodes import Node
from fracgpu.plans import Plan, Share
from fracgpu.pods import ObjectMeta, Pod
from fracgpu.quantities import DEFAULT_MEMORY_UNIT, DEFAULT_REPLICAS, Mib, seat_units
from fracgpu.requests import MAX_SEATS

MAX_ADDED: Final = 1000
"""More nodes than anybody adds at once."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A cluster.

    Attributes:
        nodes: its GPUNodes, by name.
        hosts: node name -> CPU and memory for pods, of all nodes.
        pods: those that take something, by the time of their creation.
        claims: what is taken of the GPUs.
    """

    nodes: tuple[GpuNode, ...]
    hosts: dict[NodeName, HostAmount]
    pods: tuple[Pod, ...]
    claims: tuple[Claim, ...]

    @classmethod
    def of(cls, *, nodes: Sequence[GpuNode], hosts: Sequence[Node], pods: Sequence[Pod]) -> "Snapshot":
        """Take over what the API server lists; `extender.observing.reduced` may have been applied to it."""
        by_age = sorted(pods, key=lambda pod: (pod.metadata.creation_timestamp or "", pod.key, pod.uid))
        sizes = {
            NodeName(host.metadata.name): amount_of(host.status.allocatable)
            for host in hosts
            if host.status is not None and host.status.allocatable
        }
        by_name = tuple(sorted(nodes, key=lambda node: node.node))
        return cls(by_name, sizes, tuple(by_age), tuple(rebuilt_claims(by_age, by_name)))

    @property
    def unit(self) -> Mib:
        """The memory unit in which most of its nodes count."""
        counts = Counter(node.spec.memory_unit for node in self.nodes)
        return max(
            counts, key=lambda unit: (counts[unit], -abs(unit - DEFAULT_MEMORY_UNIT)), default=DEFAULT_MEMORY_UNIT
        )

    @property
    def replicas(self) -> int:
        """The number of seats that most of its GPUs have."""
        counts = Counter(gpu.replicas for node in self.nodes for gpu in node.spec.gpus)
        return max(counts, key=lambda seats: (counts[seats], -abs(seats - DEFAULT_REPLICAS)), default=DEFAULT_REPLICAS)

    @property
    def waiting(self) -> list[str]:
        """The pods with GPUs that are on no node yet, ``namespace/name``."""
        return [pod.key for pod in self.pods if asks_gpu(pod) and not pod.spec.node_name and not pod.is_terminal]

    def index(self, policies: Policies) -> Index:
        """The cluster as the extender would know it."""
        index = Index(unit=self.unit, policies=policies, kinds=MAX_ADDED)
        for name, size in self.hosts.items():
            index.put_host(name, size)
        for node in self.nodes:
            index.put_node(node)
        for pod in self.pods:
            if (load := load_of(pod)) != NOTHING:
                index.put_load(pod.uid, pod.spec.node_name, load)
            if asks_gpu(pod):
                index.see(pod)
                index.set_nominated(pod.uid, nomination_of(pod))
        index.replace_claims({claim.uid: Entry(claim, 0) for claim in self.claims})
        return index

    def with_replicas(self, replicas: int) -> "Snapshot":
        """The cluster with so many seats on every GPU.

        Pods that hold seats keep the part of the GPU that they have, counted in the new seats and rounded up.

        Raises:
            SettingError: no GPU can have so many seats.
        """
        if not 1 <= replicas <= MAX_SEATS:
            raise SettingError(f"--what-if-replicas is {replicas}; a GPU has from 1 to {MAX_SEATS} seats")
        sizes = {gpu.uuid: gpu for node in self.nodes for gpu in node.spec.gpus}
        small = min(sizes.values(), key=lambda gpu: gpu.units, default=None)
        if small is not None and small.units < replicas:
            raise SettingError(
                f"--what-if-replicas is {replicas}; the smallest GPU of the cluster ({small.product}) has only "
                f"{small.units} units of memory, and each seat needs one"
            )
        claims = tuple(
            msgspec.structs.replace(claim, plan=_recounted(claim.plan, sizes, replicas)) for claim in self.claims
        )
        nodes = tuple(
            _with_gpus(node, [msgspec.structs.replace(gpu, replicas=replicas, pending=None) for gpu in node.spec.gpus])
            for node in self.nodes
        )
        return replace(self, nodes=nodes, claims=claims)

    def with_nodes(self, number: int, *, like: str = "") -> "Snapshot":
        """The cluster with more nodes, all of them empty.

        Args:
            number: how many.
            like: the node that they equal; empty for the one with the most GPU memory.

        Raises:
            SettingError: too many, or there is no such node.
        """
        if not 0 <= number <= MAX_ADDED:
            raise SettingError(f"--add-nodes is {number}; it is how many nodes are added, from 0 to {MAX_ADDED}")
        model = self._model(like)
        names = {*self.hosts, *(node.node for node in self.nodes)}
        free_names = (NodeName(f"added-{count}") for count in range(1, number + len(names) + 1))
        added = [name for name in free_names if name not in names][:number]
        hosts = dict(self.hosts)
        if (size := self.hosts.get(model.node)) is not None:
            hosts |= dict.fromkeys(added, size)
        return replace(self, nodes=(*self.nodes, *(_copy(model, name) for name in added)), hosts=hosts)

    def _model(self, like: str) -> GpuNode:
        if like:
            found = next((node for node in self.nodes if node.node == like), None)
            if found is None:
                names = ", ".join(node.node for node in self.nodes[:10]) + (", …" if len(self.nodes) > 10 else "")
                raise SettingError(f"--like is {like[:80]!r}; the nodes with GPUs are {names}")
            return found

        def size(node: GpuNode) -> tuple[int, HostAmount]:
            return (
                sum(gpu.units for gpu in node.spec.gpus) * node.spec.memory_unit,
                self.hosts.get(node.node, NOTHING),
            )

        return max(self.nodes, key=size)


def _recounted(plan: Plan, sizes: dict[GpuUuid, Gpu], replicas: int) -> Plan:
    def share_of(share: Share) -> Share:
        gpu = sizes.get(share.gpu)
        if not share.seats or gpu is None:
            return share
        seats = -(-share.seats * replicas // gpu.replicas)
        return Share(share.gpu, seat_units(seats, replicas=replicas, units=gpu.units), seats)

    return Plan(plan.unit, {name: tuple(map(share_of, shares)) for name, shares in plan.containers.items()})


def _copy(model: GpuNode, name: NodeName) -> GpuNode:
    gpus = [
        msgspec.structs.replace(gpu, uuid=GpuUuid(f"GPU-{name}-{gpu.index}-{place}"), healthy=True, problem="")
        for place, gpu in enumerate(model.spec.gpus)
    ]
    return _with_gpus(GpuNode(ObjectMeta(name=name), model.spec, GpuNodeStatus(observed_pods="1")), gpus)


def _with_gpus(node: GpuNode, gpus: Sequence[Gpu]) -> GpuNode:
    return msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, gpus=tuple(gpus)))
