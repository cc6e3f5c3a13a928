"""One run: a trace's pods, inflated by a seed, placed one by one by a policy; and which files a run is made of."""

import time
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, NamedTuple

from benchmarks.packing.bounds import most_milli
from benchmarks.packing.fgd import FgdPolicies
from extender.placement.policies import Policies
from fracgpu.annotations import PlacementPolicy
from fracgpu.errors import SettingError
from replay.engine import Cluster
from replay.traces import read_nodes, read_pods
from replay.workloads import GPU_PARTS, TraceNode, TracePod, inflated

BenchPolicy = PlacementPolicy | Literal["fgd"]
"""One of the product, or the published one as we implemented it."""
BENCH_POLICIES: Final[tuple[BenchPolicy, ...]] = ("fragmentation", "binpack", "spread", "fgd")
"""All that there are."""

_RATIO: Final = 1.3  # of the pods' demand to the GPUs, as published
_NODES: Final = "openb_node_list"
_GPU_NODES: Final = f"{_NODES}_gpu_node.csv"
_PODS: Final = "openb_pod_list_"


class Run(NamedTuple):
    """What is run: a trace by a policy, or its upper bound, and the seed of its arrivals."""

    nodes: Path
    pods: Path
    policy: BenchPolicy | Literal["bound"]
    seed: int

    @property
    def trace(self) -> str:
        """The trace's name."""
        return self.pods.stem.removeprefix(_PODS)


class Outcome(NamedTuple):
    """What came of a run: allocated GPUs in % of all, and how long it took."""

    percent: float
    seconds: float


def find_traces(directory: Path) -> tuple[Path, list[Path]]:
    """The list of nodes and the lists of pods in a directory, under the names that OpenB has.

    Raises:
        SettingError: there are none, or several lists of nodes.
    """
    nodes = sorted(directory.glob(f"{_NODES}*.csv"))
    if len(nodes) > 1:  # the published experiment has the nodes with GPUs only
        nodes = [file for file in nodes if file.name == _GPU_NODES]
        if not nodes:
            raise SettingError(f"{directory} has several {_NODES}*.csv; keep one, or name one of them {_GPU_NODES}")
    if not nodes:
        raise SettingError(f"{directory} has no list of nodes; one file there must be named {_NODES}*.csv")
    pods = sorted(directory.glob(f"{_PODS}*.csv"))
    if not pods:
        raise SettingError(f"{directory} has no list of pods; at least one file there must be named {_PODS}NAME.csv")
    return nodes[0], pods


def carry_out(run: Run) -> Outcome:
    """Do a run.

    Raises:
        SettingError: a file cannot be read, or is no trace.
    """
    nodes, pods = _nodes_in(run.nodes), _pods_in(run.pods)
    capacity = sum(node.gpus for node in nodes) * GPU_PARTS
    arrivals = inflated(pods, capacity_milli=capacity, ratio=_RATIO, seed=run.seed)
    start = time.perf_counter()
    if run.policy == "bound":
        allocated = most_milli(nodes, arrivals)
    else:
        cluster = Cluster(nodes, policies=FgdPolicies(pods) if run.policy == "fgd" else Policies(run.policy))
        allocated = sum(pod.demand_milli for pod in arrivals if cluster.place(pod) is not None)
    return Outcome(100 * allocated / capacity, time.perf_counter() - start)


@lru_cache(maxsize=1)
def _nodes_in(file: Path) -> list[TraceNode]:
    return read_nodes(file)


@lru_cache(maxsize=1)
def _pods_in(file: Path) -> list[TracePod]:
    return read_pods(file)
