"""How much of a cluster's GPUs a workload could fill at most, whatever the policy: a linear programme. Pure.

It knows all arrivals beforehand, may cut pods into fractions, turn any of them away, and spread each over all nodes
that are alike: these are one pool of CPU, memory and GPUs. A pod goes only where it would fit on one empty node, by
model and by size. GPUs that are shared are cut as real ones are: each is a path from 1000 thousandths down, and each
share an arc of it, so that a GPU on which 810 were taken has 190 left for those that ask no more (arc-flow, Valério de
Carvalho 1999). No policy that answers pods as they come reaches the bound; it says where there is nothing to be gained.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import highspy

from fracgpu.hosts import HostAmount
from replay.workloads import GPU_PARTS, TraceNode, TracePod

_CUTS: Final = 100  # places where a GPU may be cut; smaller parts of a share are neglected, so that the bound holds


class _NodeKind(NamedTuple):
    """Nodes that are alike; see TraceNode."""

    host: HostAmount
    gpus: int
    model: str


class _PodKind(NamedTuple):
    """Pods that are alike; see TracePod."""

    host: HostAmount
    gpus: int
    gpu_milli: int
    models: tuple[str, ...]

    def fits(self, node: _NodeKind) -> bool:
        """Whether an empty node could take it."""
        return (not self.models or node.model in self.models) and self.gpus <= node.gpus and node.host.holds(self.host)


def most_milli(nodes: Iterable[TraceNode], arrivals: Iterable[TracePod]) -> float:
    """No policy fills more than so many thousandths of GPUs.

    Args:
        nodes: of the cluster.
        arrivals: all pods that will ask.

    Raises:
        RuntimeError: the solver found no optimum.
    """
    node_kinds = Counter(_NodeKind(node.host, node.gpus, node.model) for node in nodes)
    pod_kinds = Counter(_PodKind(pod.host, pod.gpus, pod.gpu_milli, pod.models) for pod in arrivals if pod.gpus)
    programme = _Programme()
    arrived = {pod: programme.row(count) for pod, count in pod_kinds.items()}
    for node, count in node_kinds.items():
        _add_nodes(programme, node, count, arrived)
    return programme.solve()


def _add_nodes(programme: "_Programme", node: _NodeKind, count: int, arrived: Mapping[_PodKind, int]) -> None:
    """Nodes of one kind, and what may be placed there.

    Args:
        programme: to which they are added.
        node: their kind.
        count: how many there are.
        arrived: pod -> the row in which it counts.
    """
    pods = [pod for pod in arrived if pod.fits(node)]
    cpu, memory, gpus = (programme.row(count * size) for size in (*node.host, node.gpus))
    shared = programme.row(0)  # thousandths that shares take <= those of the GPUs that are shared
    sizes = sorted({cuts for pod in pods if (cuts := _cuts(pod))})
    cut = {size: programme.row(0) for size in sizes}  # shares of this size <= arcs for them
    for pod in pods:
        entries = {arrived[pod]: 1, cpu: pod.host.cpu_milli, memory: pod.host.memory_mib}
        if pod.gpu_milli == GPU_PARTS:
            entries[gpus] = pod.gpus
        else:
            entries[shared] = pod.gpu_milli
            if size := _cuts(pod):
                entries[cut[size]] = 1
        programme.column(entries, worth=pod.gpus * pod.gpu_milli)
    # So much left of a GPU -> arcs that begin there <= arcs that end there
    left: defaultdict[int, int] = defaultdict(lambda: programme.row(0))
    programme.column({gpus: 1, shared: -GPU_PARTS, left[_CUTS]: -1})
    for start in range(_CUTS, 0, -1):
        if start not in left:
            continue
        for size in sizes:
            if size > start:
                break
            entries = {left[start]: 1, cut[size]: -1}
            if start > size:
                entries[left[start - size]] = -1
            programme.column(entries)


def _cuts(pod: _PodKind) -> int:
    """How much a share is at least; 0 for whole GPUs."""
    return pod.gpu_milli * _CUTS // GPU_PARTS if pod.gpu_milli < GPU_PARTS else 0


class _Programme:
    """A linear programme: columns of at least 0 are chosen for the most worth, and no row may exceed its limit."""

    def __init__(self) -> None:
        self._limits: list[float] = []  # of the rows
        self._worths: list[float] = []  # of the columns
        self._starts = [0]  # column -> where its entries begin
        self._rows: list[int] = []  # of the entries, column by column
        self._values: list[float] = []

    def row(self, limit: float) -> int:
        """Add a row; its number."""
        self._limits.append(limit)
        return len(self._limits) - 1

    def column(self, entries: Mapping[int, float], *, worth: float = 0) -> None:
        """Add a column.

        Args:
            entries: row -> what one of the column takes of its limit; below 0 for what it gives.
            worth: of one.
        """
        self._rows.extend(entries)
        self._values.extend(entries.values())
        self._starts.append(len(self._rows))
        self._worths.append(worth)

    def solve(self) -> float:
        """The most worth that there can be.

        Raises:
            RuntimeError: the solver found no optimum.
        """
        programme = highspy.HighsLp()
        programme.num_row_, programme.num_col_ = len(self._limits), len(self._worths)
        programme.sense_ = highspy.ObjSense.kMaximize
        programme.col_cost_ = self._worths
        programme.col_lower_, programme.col_upper_ = [0.0] * len(self._worths), [highspy.kHighsInf] * len(self._worths)
        programme.row_lower_, programme.row_upper_ = [-highspy.kHighsInf] * len(self._limits), self._limits
        programme.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        programme.a_matrix_.start_, programme.a_matrix_.index_ = self._starts, self._rows
        programme.a_matrix_.value_ = self._values
        solver = highspy.Highs()
        solver.silent()
        solver.passModel(programme)
        solver.run()
        status = solver.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            raise RuntimeError(f"HiGHS found no optimum: {solver.modelStatusToString(status)}")
        return float(solver.getInfo().objective_function_value)
