"""The cluster that is measured on: which pod sits on which GPU, the same every time. Pure.

Nodes of eight 80 GB GPUs. No GPU is ever over its limits, and every node has a sum of free units that kube-scheduler
would call enough, so that all nodes are sent to the extender: what makes a node fail is that no single GPU has room.
How the objects look on the wire is `objects`' part.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.plans import Plan, Share
from fracgpu.quantities import DEFAULT_MEMORY_UNIT, Mib, capacity_units, seat_units

SEED: Final = 20261121
GPUS: Final = 8
SEATS: Final = 4
GPU_MIB: Final = Mib(81_559)  # what NVML says of an 80 GB card
UNITS: Final = capacity_units(GPU_MIB, reserved=Mib(1024), unit=DEFAULT_MEMORY_UNIT)
CONTAINER: Final = "server"
NAMESPACE: Final = "inference"

_WHOLE_PART: Final = 0.2  # of the nodes are full: pods of whole GPUs, in seats, which no sum of units counts
_PIECES_PART: Final = 0.1  # of the nodes have only small pieces left, on every GPU
_SIZES: Final = (1, 2, 2, 4, 4, 4, 6, 8, 8, 8, 12, 16, 16, 20, 24, 32, 40)  # units of small pods; the usual ones often
_TIGHT_PIECES: Final = (12, 26)  # units that the one pod of each GPU leaves free, between these


class Fill(StrEnum):
    """How full a cluster is."""

    USUAL = "usual"
    """Four pods a node: most nodes lightly used, a fifth full, a tenth in small pieces."""
    TIGHT = "tight"
    """One pod on every GPU, and a small piece left on each."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a pod asks on each of `gpus` GPUs: units, or seats."""

    units: int = 0
    seats: int = 0
    gpus: int = 1

    def share_on(self, gpu: GpuUuid) -> Share:
        """What it takes of one GPU of this cluster."""
        if self.seats:
            return Share(gpu, seat_units(self.seats, replicas=SEATS, units=UNITS), self.seats)
        return Share(gpu, self.units)


@dataclass(frozen=True, slots=True)
class RunningPod:
    """A pod that runs, and the GPUs that it was given; `number` is its own in the cluster."""

    number: int
    uid: PodUid
    shape: Shape
    gpus: tuple[GpuUuid, ...]

    @property
    def name(self) -> str:
        """The pod's name."""
        return f"llm-{self.number % 40:02}-6b7f9d8c54-{self.number:05}"

    @property
    def plan(self) -> Plan:
        """The plan that its Binding carried."""
        return Plan(DEFAULT_MEMORY_UNIT, {CONTAINER: tuple(self.shape.share_on(gpu) for gpu in sorted(self.gpus))})


@dataclass(frozen=True, slots=True)
class Node:
    """A node, its GPUs in NVML's order, and what runs there."""

    name: NodeName
    gpus: tuple[GpuUuid, ...]
    pods: tuple[RunningPod, ...]

    def free_units(self) -> list[int]:
        """Free units of each GPU, in the order of `gpus`."""
        taken = dict.fromkeys(self.gpus, 0)
        for pod in self.pods:
            for gpu in pod.gpus:
                taken[gpu] += pod.shape.share_on(gpu).units
        return [UNITS - taken[gpu] for gpu in self.gpus]


def make_cluster(nodes: int, *, fill: Fill) -> list[Node]:
    """Make a cluster of this many nodes; the same arguments give the same cluster."""
    rng = random.Random(f"{SEED} {nodes} {fill}")  # noqa: S311 (not a secret)
    numbers = iter(range(10**6))
    cluster = []
    for position in range(nodes):
        gpus = tuple(GpuUuid(f"GPU-{make_uid(rng)}") for _ in range(GPUS))
        placed = _tight(rng, gpus) if fill is Fill.TIGHT else _usual(rng, gpus, (position * 0.618034) % 1)
        pods = tuple(RunningPod(next(numbers), PodUid(make_uid(rng)), shape, chosen) for shape, chosen in placed)
        cluster.append(Node(node_name(position), gpus, pods))
    return cluster


def node_name(position: int) -> NodeName:
    """A name as long as a cloud's: 5000 of them are the 230 KB that a filter call of such a cluster carries."""
    return NodeName(f"ip-10-{100 + position // 250}-{100 + position % 250}.eu-central-1.compute.internal")


def make_uid(rng: random.Random) -> str:
    """A UID as Kubernetes and NVML write them."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def usual_mix(count: int, *, rng: random.Random) -> list[Shape]:
    """Draw what `count` pods ask: mostly a piece of one GPU, sometimes seats, sometimes two GPUs."""
    return [_draw(rng) for _ in range(count)]


def distinct_shapes(rng: random.Random) -> list[Shape]:
    """Every shape of up to 40 units, or of seats, on up to 4 GPUs, in random order: for what is asked the first time.

    They all fit somewhere in the usual cluster: nearly half of its nodes have four GPUs that nobody uses.
    """
    several = range(1, 5)
    shapes = [Shape(units=units, gpus=gpus) for units in range(1, 41) for gpus in several]
    shapes += [Shape(seats=seats, gpus=gpus) for seats in range(1, SEATS + 1) for gpus in several]
    rng.shuffle(shapes)
    return shapes


def _draw(rng: random.Random) -> Shape:
    kind = rng.random()
    if kind < 0.1:
        return Shape(seats=rng.choice((1, 2)))
    if kind < 0.2:
        return Shape(units=rng.choice((8, 16)), gpus=2)
    return Shape(units=rng.choice(_SIZES))


def _usual(rng: random.Random, gpus: Sequence[GpuUuid], kind: float) -> Iterator[tuple[Shape, tuple[GpuUuid, ...]]]:
    """Four pods; `kind`, from 0 to 1, says what sort of node it is."""
    pairs = [(gpus[i], gpus[i + 1]) for i in range(0, GPUS, 2)]
    if kind < _WHOLE_PART:
        yield from ((Shape(seats=SEATS, gpus=2), pair) for pair in pairs)
    elif kind < _WHOLE_PART + _PIECES_PART:
        yield from ((Shape(units=UNITS - rng.randint(2, 30), gpus=2), pair) for pair in pairs)
    else:
        for first, second in pairs:
            shape = _draw(rng)
            yield shape, ((first, second) if shape.gpus == 2 else (rng.choice((first, second)),))


def _tight(rng: random.Random, gpus: Sequence[GpuUuid]) -> Iterator[tuple[Shape, tuple[GpuUuid, ...]]]:
    yield from ((Shape(units=UNITS - rng.randint(*_TIGHT_PIECES)), (gpu,)) for gpu in gpus)
