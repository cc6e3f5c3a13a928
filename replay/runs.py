"""One run of a replay: the arrivals of a seed, placed one by one, and what became of them. Pure but for the clock.

The same nodes, pods, policy, ratio and seed give the same run, in any process.
"""

import random
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final, NamedTuple

from extender.placement.policies import Policies
from fracgpu.annotations import PlacementPolicy
from fracgpu.hosts import HostAmount
from replay.engine import Cluster
from replay.reasons import why_not
from replay.workloads import GPU_PARTS, TraceNode, TracePod, inflated

AS_IT_IS: Final = 1.0
"""The ratio that leaves the trace its pods, each once; any other makes their demand that many times the GPUs."""

HEADING: Final = ("seed", "arrival", "pod", "node", "gpus", "reason")
BINS: Final = 10
"""Of the histogram of free pieces: tenths of a GPU."""

_CURVE_POINTS: Final = 500
_TOLD_EVERY: Final = 100  # arrivals


class Experiment(NamedTuple):
    """What is replayed, but for the seed.

    Attributes:
        nodes: of the cluster.
        pods: of the trace.
        policy: by which they are placed.
        inflate: the demand, as a multiple of the GPUs; see `AS_IT_IS`.
        wants_rows: whether every placement is kept, with the reason where there is none.
    """

    nodes: tuple[TraceNode, ...]
    pods: tuple[TracePod, ...]
    policy: PlacementPolicy
    inflate: float
    wants_rows: bool = False


Row = tuple[int, int, str, str, str, str]
"""A line below `HEADING`."""


class Bin(NamedTuple):
    """Free pieces of about one size, in thousandths of GPUs together.

    `stranded_milli` is the part of them on nodes with too little CPU or memory for any pod of the trace with a GPU.
    """

    free_milli: int
    stranded_milli: int


class Run(NamedTuple):
    """What became of one seed.

    Attributes:
        seed: of the shuffle and the draws.
        arrivals: how many pods came.
        placed: how many found a place.
        demand_milli, placed_milli, capacity_milli: of GPUs, in thousandths.
        curve: demand that has arrived and demand that has been placed, both as parts of the capacity, some points.
        bins: the free pieces at the end, from the smallest to whole GPUs.
        seconds: that it took; all else is the same every time.
        rows: every placement; none where they are not wanted.
    """

    seed: int
    arrivals: int
    placed: int
    demand_milli: int
    placed_milli: int
    capacity_milli: int
    curve: list[tuple[float, float]]
    bins: list[Bin]
    seconds: float
    rows: list[Row]

    @property
    def ratio_percent(self) -> float:
        """The allocation ratio: what is placed, of all GPUs, in %."""
        return 100 * self.placed_milli / self.capacity_milli


def run_seed(experiment: Experiment, *, seed: int, on_progress: Callable[[float], None] = lambda _: None) -> Run:
    """Replay one seed.

    Args:
        experiment: what is replayed.
        seed: of the shuffle and the draws.
        on_progress: told now and then which part is done, from 0 to 1; what it raises ends the run.
    """
    started = perf_counter()
    capacity = sum(node.gpus for node in experiment.nodes) * GPU_PARTS
    arrivals = arrivals_of(experiment, capacity_milli=capacity, seed=seed)
    cluster = Cluster(experiment.nodes, policies=Policies(experiment.policy))
    rows: list[Row] = []
    curve = [(0.0, 0.0)]
    every = max(1, len(arrivals) // _CURVE_POINTS)
    placed = demand = placed_milli = 0
    for number, pod in enumerate(arrivals):
        if number % _TOLD_EVERY == 0:
            on_progress(number / len(arrivals))
        placement = cluster.place(pod)
        demand += pod.demand_milli
        if placement is not None:
            placed += 1
            placed_milli += pod.demand_milli
        if experiment.wants_rows:
            if placement is None:
                reason = why_not(pod, roomy=cluster.nodes_with(pod.host))
                rows.append((seed, number, pod.name, "", "", reason))
            else:
                gpus = "+".join(map(str, placement.gpus))
                rows.append((seed, number, pod.name, placement.node, gpus, ""))
        if (number + 1) % every == 0 or number + 1 == len(arrivals):
            curve.append((demand / capacity, placed_milli / capacity))
    return Run(
        seed=seed,
        arrivals=len(arrivals),
        placed=placed,
        demand_milli=demand,
        placed_milli=placed_milli,
        capacity_milli=capacity,
        curve=curve,
        bins=sort_into_bins(cluster.free_pieces(), askers=experiment.pods),
        seconds=perf_counter() - started,
        rows=rows,
    )


def arrivals_of(experiment: Experiment, *, capacity_milli: int, seed: int) -> list[TracePod]:
    """The pods in the order in which they arrive: always shuffled by the seed."""
    if experiment.inflate == AS_IT_IS:
        arrivals = sorted(experiment.pods)  # as `inflated` begins, so that a seed shuffles both alike
        random.Random(seed).shuffle(arrivals)  # noqa: S311 (an experiment)
        return arrivals
    return inflated(experiment.pods, capacity_milli=capacity_milli, ratio=experiment.inflate, seed=seed)


def sort_into_bins(pieces: Sequence[tuple[str, HostAmount, Sequence[int]]], *, askers: Sequence[TracePod]) -> list[Bin]:
    """Sort the free pieces of GPUs by their size.

    Args:
        pieces: of each node its name, free CPU and memory, and the free thousandths of its GPUs.
        askers: the pods that could use them.
    """
    hosts = {pod.host for pod in askers if pod.gpus}
    free, stranded = [0] * BINS, [0] * BINS
    for _, host, milli in pieces:
        is_stranded = not any(
            asked.cpu_milli <= host.cpu_milli and asked.memory_mib <= host.memory_mib for asked in hosts
        )
        for piece in milli:
            if piece > 0:
                place = (piece - 1) * BINS // GPU_PARTS
                free[place] += piece
                stranded[place] += piece if is_stranded else 0
    return [Bin(*both) for both in zip(free, stranded, strict=True)]
