"""A cluster in memory on which pods are placed one by one, by the code that answers /filter and /prioritize.

kube-scheduler's part, which nodes have the CPU and the memory, is done here; Redis and the API server, of which a
replay has none, are left out.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from extender.filtering import hold_for, prioritize_nodes
from extender.index import Index
from extender.ledger.claims import Entry
from extender.placement.policies import Policies
from extender.placement.views import NodeView
from fracgpu.gpunodes import Gpu, GpuNode, GpuNodeSpec, GpuNodeStatus
from fracgpu.hosts import HostAmount
from fracgpu.names import ANNOTATION_GPU_COUNT, ANNOTATION_GPU_MODEL, RESOURCE_MEMORY, GpuUuid, NodeName, PodUid
from fracgpu.pods import Container, ObjectMeta, Pod, PodSpec, Resources
from fracgpu.quantities import Mib
from fracgpu.requests import PodRequest
from replay.workloads import GPU_PARTS, TraceNode, TracePod

_KINDS = 1000  # of pods, more than a trace has: what each node says to each is kept
_UNIT = Mib(1)  # a GPU of the trace has as many units as it has thousandths, whatever its model


class Placement(NamedTuple):
    """Where a pod was placed: the GPUs by their index in the node."""

    node: str
    gpus: tuple[int, ...]


class Cluster:
    """A cluster of a trace's nodes.

    Args:
        nodes: its nodes.
        policies: by which pods are placed; keeps what it learns of the requests, so it is for this cluster alone.
    """

    def __init__(self, nodes: Sequence[TraceNode], *, policies: Policies) -> None:
        self._index = Index(unit=_UNIT, policies=policies, kinds=_KINDS)
        self._free: dict[NodeName, HostAmount] = {}
        self._gpus: dict[GpuUuid, int] = {}
        self._placed = 0
        for node in sorted(nodes):
            name = NodeName(node.name)
            self._free[name] = node.host
            self._index.put_host(name, node.host)
            gpus = tuple(_gpu(node, number) for number in range(node.gpus))
            self._gpus.update((gpu.uuid, gpu.index) for gpu in gpus)
            spec, status = GpuNodeSpec(_UNIT, gpus), GpuNodeStatus(observed_pods="1")
            self._index.put_node(GpuNode(ObjectMeta(name=name), spec, status))

    def place(self, trace_pod: TracePod) -> Placement | None:
        """Place a pod, for good; None where it fits nowhere."""
        self._placed += 1
        uid = PodUid(str(self._placed))
        pod = _pod(trace_pod, uid)
        cpu, memory = trace_pod.host
        names = [name for name, free in self._free.items() if free.cpu_milli >= cpu and free.memory_mib >= memory]
        if not trace_pod.gpus:
            return self._place_without_gpu(uid, trace_pod.host, names)
        self._index.see(pod)
        best = prioritize_nodes(self._index, pod, names).best
        claim = None if best is None else hold_for(self._index, pod, best)
        if best is None or claim is None:
            return None
        self._load(uid, best, trace_pod.host)
        self._index.change_claim(uid, Entry(claim.bound(), 0))
        return Placement(best, tuple(sorted(self._gpus[gpu] for gpu in claim.per_gpu())))

    def _place_without_gpu(self, uid: PodUid, host: HostAmount, names: Sequence[NodeName]) -> Placement | None:
        """Place a pod that no extender is asked about, as a policy would that is."""
        if not names:
            return None
        ranks = self._index.surveys.of(PodRequest((), host=host)).ranks
        best = min(ranks[name] for name in names).name
        self._load(uid, best, host)
        return Placement(best, ())

    def _load(self, uid: PodUid, node: NodeName, host: HostAmount) -> None:
        self._index.put_load(uid, node, host)
        self._free[node] = self._free[node].minus(host)

    def nodes_with(self, host: HostAmount) -> list[NodeView]:
        """The nodes that have so much CPU and memory free, as they are now."""
        cpu, memory = host
        names = [name for name, free in self._free.items() if free.cpu_milli >= cpu and free.memory_mib >= memory]
        return [view for name in names if (view := self._index.view(name)) is not None]

    def free_pieces(self) -> list[tuple[str, HostAmount, list[int]]]:
        """Of each node its model-less remains: name, free CPU and memory, and the free thousandths of its GPUs."""
        return [
            (view.name, self._free[view.name], [gpu.free_units for gpu in view.gpus]) for view in self._index.views()
        ]


def _gpu(node: TraceNode, number: int) -> Gpu:
    uuid = GpuUuid(f"GPU-{node.name}-{number}")
    return Gpu(uuid, number, product_of(node.model), Mib(GPU_PARTS), GPU_PARTS, 1)


def product_of(model: str) -> str:
    """A model as one word: a trace means just the one, where an annotation means all whose name has the word."""
    return f"x{model.encode().hex()}"


def _pod(trace_pod: TracePod, uid: PodUid) -> Pod:
    """The pod as kube-scheduler would send it."""
    annotations = {ANNOTATION_GPU_COUNT: str(trace_pod.gpus)}
    if trace_pod.models:
        annotations[ANNOTATION_GPU_MODEL] = ",".join(map(product_of, trace_pod.models))
    return Pod(
        ObjectMeta(name=trace_pod.name, namespace="default", uid=uid, annotations=annotations),
        PodSpec(containers=(_container(trace_pod.host, trace_pod.demand_milli),)),
    )


@lru_cache(maxsize=4096)
def _container(host: HostAmount, units: int) -> Container:
    requests = {"cpu": f"{host.cpu_milli}m", "memory": f"{host.memory_mib}Mi"}
    return Container("main", Resources(limits={RESOURCE_MEMORY: units}, requests=dict(requests)))
