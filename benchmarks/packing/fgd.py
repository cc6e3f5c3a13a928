"""FGD as published, as a policy for the same engine: the baseline that `fragmentation` is measured against.

Fragmentation gradient descent (Weng et al., "Beware of Fragmentation", USENIX ATC 2023, sections 3 and 4): the place
after which the least more of the node's free GPUs is of no use to the next pod, if that is drawn from typical pods.
This is our own implementation of it, with what the published results depend on besides:

- Typical pods are counted over the whole trace, which nobody can know beforehand, by all that they ask but memory; the
  most frequent ones that together are 95 % of the pods.
- For a pod that the node cannot take at all, and for one without a GPU, all of the node's free GPUs are a fragment.
- A score is a whole number, 100 / (1 + exp(-less fragment, in GPUs)) rounded down, so that many nodes are equal; of
  equals the first by name wins, and the GPU with the lowest index.

Memory counts only for whether a pod fits, which is not decided here.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Final, NamedTuple

from extender.placement.fitting import Order
from extender.placement.policies import Policies
from extender.placement.policy import MAX_SCORE, Rank
from extender.placement.views import GpuView, NodeView
from fracgpu.requests import ContainerRequest, PodRequest
from replay.workloads import GPU_PARTS, TracePod

_COVERED: Final = 0.95  # of the pods, by typical ones
_BEST: Final = 100  # the highest score

Pieces = tuple[int, ...]
"""Free thousandths of each GPU of a node, the smallest first."""


class TypicalPod(NamedTuple):
    """What a pod asks, but memory: see TracePod."""

    cpu_milli: int
    gpus: int
    gpu_milli: int
    models: tuple[str, ...]


def typical_pods(pods: Iterable[TracePod]) -> Counter[TypicalPod]:
    """The most frequent kinds of pods that are 95 % of all, and how many there are of each."""
    counts = Counter(TypicalPod(pod.host.cpu_milli, pod.gpus, pod.gpu_milli, pod.models) for pod in pods)
    enough = _COVERED * counts.total()
    found: Counter[TypicalPod] = Counter()
    for pod, count in counts.most_common():
        if found.total() >= enough:
            break
        found[pod] = count
    return found


class Fragments:
    """How much of what is free on a node is a fragment.

    Args:
        typical: typical pods, and how many there are of each.

    Attributes:
        weight: how many there are in all; what `of` says is so many times too large, and exact.
    """

    def __init__(self, typical: Counter[TypicalPod]) -> None:
        self.weight = typical.total()
        self._typical = typical
        self._steps = sorted({pod.cpu_milli for pod in typical})  # of CPU: in between, the same pods find enough
        # model, step -> GPUs and thousandths of each -> how many pods ask that, of those that these do not exclude
        self._able: dict[tuple[str, int], Counter[tuple[int, int]]] = {}
        self._known: dict[tuple[str, int, Pieces], int] = {}  # model, step, pieces -> fragment

    def of(self, model: str, cpu_milli: int, pieces: Pieces) -> int:
        """Thousandths of GPUs that a typical pod cannot use, summed over all of them.

        Args:
            model: of the node's GPUs.
            cpu_milli: its free CPU.
            pieces: what is free of its GPUs, the smallest first.
        """
        node = model, bisect_right(self._steps, cpu_milli), pieces
        found = self._known.get(node)
        if found is None:
            found = self._known[node] = self._of(*node)
        return found

    def _of(self, model: str, step: int, pieces: Pieces) -> int:
        total, unable, found = sum(pieces), self.weight, 0
        for (gpus, milli), count in self._able_on(model, step).items():
            if gpus <= len(pieces) and pieces[-gpus] >= milli:
                unable -= count
                found += count * sum(piece for piece in pieces if piece < milli)
        return found + unable * total

    def _able_on(self, model: str, step: int) -> Counter[tuple[int, int]]:
        found = self._able.get((model, step))
        if found is None:
            found = self._able[model, step] = Counter()
            enough = set(self._steps[:step])
            for pod, count in self._typical.items():
                if pod.gpus and pod.cpu_milli in enough and (not pod.models or model in pod.models):
                    found[pod.gpus, pod.gpu_milli] += count
        return found


class Fgd:
    """The published policy, for nodes whose GPUs are all of one model.

    Args:
        fragments: by the pods of the whole trace.
    """

    def __init__(self, fragments: Fragments) -> None:
        self._fragments = fragments

    def rank(self, view: NodeView, request: PodRequest) -> Rank | None:
        """The published score, the highest first; None where the pod does not fit."""
        if not request.containers:
            return -self._score_of(view, request, view.pieces), 0
        (only,) = request.containers
        if len(view.pieces) < only.gpus or view.pieces[-only.gpus] < only.units:
            return None  # as on most nodes of a full cluster
        roomy = [gpu for gpu in view.gpus if gpu.has_room_for(only)]
        if len(roomy) < only.gpus:
            return None
        if only.gpus > 1:
            return -self._score_of(view, request, _less(view.pieces, only.units, count=only.gpus)), 0
        pieces = {gpu.free_units for gpu in roomy}
        return -max(self._score_with(view, request, piece) for piece in pieces), 0

    def score(self, rank: Rank, view: NodeView, request: PodRequest) -> int:
        """Not asked for in a replay, which takes the best node."""
        return min(MAX_SCORE - 1, -rank[0] * MAX_SCORE // _BEST)

    def likeness(self, request: PodRequest) -> Callable[[NodeView], Hashable]:
        """What the score depends on."""
        return lambda view: (_model(view), _free_cpu(view), view.pieces)

    def order(self, view: NodeView, request: PodRequest) -> Order:
        """The GPU first that scores the highest, of equals the one with the lowest index; whole GPUs by index."""
        index = {gpu.uuid: number for number, gpu in enumerate(view.gpus)}

        def best_first(gpus: Collection[GpuView], container: ContainerRequest) -> list[GpuView]:
            roomy = sorted((gpu for gpu in gpus if gpu.has_room_for(container)), key=lambda gpu: index[gpu.uuid])
            if container.gpus > 1:
                return roomy
            return sorted(roomy, key=lambda gpu: -self._score_with(view, request, gpu.free_units))

        return best_first

    def _score_with(self, view: NodeView, request: PodRequest, piece: int) -> int:
        """The score where the one GPU that is asked for is one of which so much is free."""
        (only,) = request.containers
        pieces = list(view.pieces)
        pieces[pieces.index(piece)] = piece - only.units
        return self._score_of(view, request, tuple(sorted(pieces)))

    def _score_of(self, view: NodeView, request: PodRequest, after: Pieces) -> int:
        model, cpu = _model(view), _free_cpu(view)
        fragments = self._fragments
        less = fragments.of(model, cpu, view.pieces) - fragments.of(model, cpu - request.host.cpu_milli, after)
        return math.floor(_BEST / (1 + math.exp(-less / (fragments.weight * GPU_PARTS))))


class FgdPolicies(Policies):
    """Places all pods by FGD, whatever they name.

    Args:
        pods: of the whole trace.
    """

    def __init__(self, pods: Sequence[TracePod]) -> None:
        super().__init__()
        self._fgd = Fgd(Fragments(typical_pods(pods)))

    def of(self, request: PodRequest) -> Fgd:
        """The one that there is."""
        return self._fgd


def _less(pieces: Pieces, units: int, *, count: int) -> Pieces:
    """The pieces after so many whole ones, which are the largest, were taken."""
    return tuple(sorted([*pieces[:-count], *(piece - units for piece in pieces[-count:])]))


def _model(view: NodeView) -> str:
    return view.gpus[0].product if view.gpus else ""


def _free_cpu(view: NodeView) -> int:
    return view.host.free.cpu_milli if view.host is not None else 0
