"""Nodes and pods as a replay sees them, and the arrivals of an experiment. Pure."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from fracgpu.errors import SettingError
from fracgpu.hosts import HostAmount

_MAX_ARRIVALS = 1_000_000
GPU_PARTS = 1000
"""A GPU in thousandths, as traces count it."""


class TraceNode(NamedTuple):
    """A node: its CPU and memory, and so many equal GPUs."""

    name: str
    host: HostAmount
    gpus: int
    model: str


class TracePod(NamedTuple):
    """A pod: its CPU and memory, and `gpu_milli` thousandths of each of so many GPUs.

    `models` are those that it accepts; empty for any.
    """

    name: str
    host: HostAmount
    gpus: int
    gpu_milli: int
    models: tuple[str, ...] = ()

    @property
    def demand_milli(self) -> int:
        """Thousandths of GPUs in all."""
        return self.gpus * self.gpu_milli


def inflated(pods: Sequence[TracePod], *, capacity_milli: int, ratio: float, seed: int) -> list[TracePod]:
    """The arrivals of the workload inflation experiment (FGD, USENIX ATC 2023, section 6).

    The trace's pods, shuffled; then pods drawn from them with replacement while the demand stays within `ratio` of the
    GPUs. A trace that asks for more already loses pods drawn at random instead. The same as the authors' simulator does
    (hkust-adsl/kubernetes-scheduler-simulator, TunePodsByNodeTotalResource), with Python's random numbers for Go's: it
    sorts by name, ends with the first pod that would go beyond, and there counts one GPU only of a pod with several.

    Args:
        pods: of the trace.
        capacity_milli: thousandths of GPUs of the cluster.
        ratio: of the demand to the capacity.
        seed: of the shuffle and the draws.

    Raises:
        SettingError: it would take more than a million arrivals.
    """
    pods = sorted(pods)
    rng = random.Random(seed)  # noqa: S311 (an experiment)
    arrivals = list(pods)
    rng.shuffle(arrivals)
    demand, goal = sum(pod.demand_milli for pod in arrivals), ratio * capacity_milli
    if demand and (count := len(pods) * goal / demand) > _MAX_ARRIVALS:
        raise SettingError(
            f"to ask for {ratio:g} times the GPUs, some {count:,.0f} pods would have to arrive, and at most "
            f"{_MAX_ARRIVALS:,} are replayed; lower --inflate, or use a trace of pods that ask for more"
        )
    while demand > goal:
        demand -= arrivals.pop(rng.randrange(len(arrivals))).demand_milli
    else:
        while any(pod.demand_milli for pod in pods):
            pod = rng.choice(pods)
            if demand + pod.gpu_milli > goal:
                break
            demand += pod.demand_milli
            arrivals.append(pod)
    return arrivals
