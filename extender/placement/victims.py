"""Which pods to evict so that another one fits: the cheapest of those that free GPUs of a node.

What is cheap goes by kube-scheduler's own order (pickOneNodeForPreemption), so that its choice between nodes and ours
between the GPUs of a node agree: fewest violated disruption budgets, the lowest highest priority, the smallest sum of
priorities, fewest pods; then those that kube-scheduler had chosen itself, and the youngest. Who may be evicted at all
is the caller's decision.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations, islice
from typing import Final, NamedTuple, TypeAlias

from extender.placement.fitting import fits
from extender.placement.views import GpuView, NodeView
from fracgpu.names import GpuUuid, PodUid
from fracgpu.plans import Share
from fracgpu.requests import ContainerRequest, PodRequest

_MAX_PARTS: Final = 2000
"""Bounds the search on one GPU to some milliseconds: so many ways to free a part of what is needed are kept. Ways that
free the same are one, so it takes a dozen pods of unlike sizes to have more; then victims are spared one by one."""
_MAX_GPU_SETS: Final = 16
"""Bounds the search for a pod of several GPUs: so many sets of GPUs are tried, the cheapest GPUs first."""
_PRIORITY_SHIFT: Final = 2**31  # as kube-scheduler: with it, fewer pods cost less even where priorities are negative

Cost: TypeAlias = tuple[int, int, int, int, int, tuple[int, ...]]
"""Violations, highest priority, shifted sum of priorities, pods, pods not offered, age; the smaller, the better."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pod that may be evicted.

    Attributes:
        uid: the pod's.
        priority: the pod's.
        started: when it was created, in RFC 3339; empty where that is not known, which counts as just now.
        shares: what comes free with it.
        budgets: names of the disruption budgets that cover it.
        offered: whether kube-scheduler would evict it too.
    """

    uid: PodUid
    priority: int = 0
    started: str = ""
    shares: Mapping[GpuUuid, Share] = field(default_factory=dict)
    budgets: tuple[str, ...] = ()
    offered: bool = False


@dataclass(frozen=True, slots=True)
class Victims:
    """The pods to evict, the most important first, and how many of them violate a disruption budget."""

    pods: tuple[Candidate, ...]
    violations: int


def choose_victims(
    view: NodeView, request: PodRequest, candidates: Iterable[Candidate], *, allowed: Mapping[str, int]
) -> Victims | None:
    """Choose the cheapest pods whose eviction makes the request fit; with any one of them left it would not.

    There is nothing cheaper for a request of one GPU on a node whose GPUs have up to a dozen candidates each; otherwise
    there may be, within the bounds at the top of this module. Where the kubelet chooses between NUMA nodes, more free
    memory may make it choose another one: only victims after whose end the request fits are named, and there may be
    such ones that are not found.

    Args:
        view: the node with all candidates on it.
        request: what has to fit.
        candidates: who may be evicted.
        allowed: disruption budget -> how many of its pods may be evicted without violating it.

    Returns:
        None where the request fits as it is, or not even when all candidates are gone.
    """
    candidates = by_importance(candidates)
    if fits(view, request) or not (view.is_split or fits(_freed(view, candidates), request)):
        return None
    (first, *others) = request.containers
    if first.gpus == 1 and not others and not view.is_split:
        found = _on_one_gpu(view, first, candidates, allowed=allowed)
    else:
        found = _on_several_gpus(view, request, candidates, allowed=allowed)
    return None if found is None else Victims(found, count_violations(found, allowed=allowed))


def by_importance(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Sort as kube-scheduler does, the most important first: by priority, then the oldest; then by UID."""
    return tuple(sorted(candidates, key=lambda pod: (-pod.priority, not pod.started, pod.started, pod.uid)))


def count_violations(victims: Iterable[Candidate], *, allowed: Mapping[str, int]) -> int:
    """How many pods violate a disruption budget when all of these are evicted, counted as kube-scheduler counts."""
    return len(_violating(by_importance(victims), allowed=allowed))


def cost_of(victims: Sequence[Candidate], *, allowed: Mapping[str, int]) -> Cost:
    """What the eviction of these pods costs."""
    cost, victims = _NO_COST, by_importance(victims)
    violating = _violating(victims, allowed=allowed)
    for pod in victims:
        cost = _plus(cost, pod, violates=pod.uid in violating)
    return cost


_NO_COST: Final[Cost] = (0, 0, 0, 0, 0, ())


def _plus(cost: Cost, pod: Candidate, *, violates: bool) -> Cost:
    """The cost with one more pod, which is no more important than those before."""
    violations, highest, total, count, strangers, age = cost
    if not count or pod.priority == highest:
        highest, age = pod.priority, max(age, _age(pod.started))
    return (
        violations + violates,
        highest,
        total + pod.priority + _PRIORITY_SHIFT,
        count + 1,
        strangers + (not pod.offered),
        age,
    )


@lru_cache(maxsize=4096)  # asked for again and again of the same pods
def _age(started: str) -> tuple[int, ...]:
    """Sorts times in RFC 3339, the latest first."""
    return tuple(-ord(char) for char in started)


def _violating(pods: Sequence[Candidate], *, allowed: Mapping[str, int]) -> set[PodUid]:
    """Who of these, the most important first, violates a disruption budget if all are evicted in this order."""
    left = dict(allowed)
    violating = set()
    for pod in pods:
        for budget in pod.budgets:
            left[budget] = left.get(budget, 0) - 1
        if any(left[budget] < 0 for budget in pod.budgets):
            violating.add(pod.uid)
    return violating


def _on_one_gpu(
    view: NodeView, request: ContainerRequest, candidates: Sequence[Candidate], *, allowed: Mapping[str, int]
) -> tuple[Candidate, ...] | None:
    best: tuple[Candidate, ...] | None = None
    bound: Cost | None = None
    for gpu in view.gpus:
        found = _cheapest_on(gpu, request, candidates, allowed=allowed, below=bound)
        if found:
            best, bound = found, cost_of(found, allowed=allowed)
    return best


class _Part(NamedTuple):
    """What victims that do not suffice yet leave open: missing units and seats, and what is left of scarce budgets."""

    units: int
    seats: int
    left: tuple[int, ...]


def _cheapest_on(
    gpu: GpuView,
    request: ContainerRequest,
    candidates: Sequence[Candidate],
    *,
    allowed: Mapping[str, int],
    below: Cost | None = None,
) -> tuple[Candidate, ...] | None:
    """The cheapest victims that make room for the request on this one GPU; none of them where there is room.

    Ways to choose victims are built up pod by pod, the most important first. Of two ways that leave the same open, the
    cheaper one stays the cheaper one whatever is added, and only it is kept: so the best of all ways is found without
    looking at each.

    Args:
        gpu: where.
        request: for which this GPU has to have room.
        candidates: the most important first.
        allowed: as in `choose_victims`.
        below: victims that cost as much or more are of no interest: None.
    """
    if gpu.has_room_for(request):
        return ()
    here = [(pod, pod.shares[gpu.uuid]) for pod in candidates if gpu.uuid in pod.shares]
    if not _with(gpu, (share for _, share in here)).has_room_for(request):
        return None
    need = gpu.share_for(request)
    units, seats = max(0, need.units - gpu.free_units), max(0, need.seats - gpu.free_seats)
    spared = _spared(
        [pod for pod, _ in here],
        allowed=allowed,
        suffice=lambda pods: (
            sum(pod.shares[gpu.uuid].units for pod in pods) >= units
            and sum(pod.shares[gpu.uuid].seats for pod in pods) >= seats
        ),
    )
    best: tuple[Candidate, ...] | None = spared
    bound = cost_of(spared, allowed=allowed)
    if below is not None and below <= bound:
        best, bound = None, below
    covered = Counter(budget for pod, _ in here for budget in pod.budgets)
    scarce = [budget for budget, count in covered.items() if count > allowed.get(budget, 0)]
    nothing = _Part(units, seats, tuple(max(0, allowed.get(budget, 0)) for budget in scarce))
    parts: dict[_Part, tuple[Cost, tuple[Candidate, ...]]] = {nothing: (_NO_COST, ())}
    for pod, share in here:
        for part, (cost, victims) in list(parts.items()):
            if not (part.units and share.units > 0) and not (part.seats and share.seats > 0):
                continue  # it frees nothing that is missing; and a negative priority would make it seem a gain
            uses = [budget in pod.budgets for budget in scarce]
            violates = any(used and not left for used, left in zip(uses, part.left, strict=True))
            more_cost = _plus(cost, pod, violates=violates)
            if more_cost >= bound:
                continue  # and whatever is added to it costs more
            more = _Part(
                max(0, part.units - share.units),
                max(0, part.seats - share.seats),
                tuple(max(0, left - used) for used, left in zip(uses, part.left, strict=True)),
            )
            if not more.units and not more.seats:
                best, bound = (*victims, pod), more_cost
            elif more not in parts or more_cost < parts[more][0]:
                parts[more] = (more_cost, (*victims, pod))
        if len(parts) > _MAX_PARTS:
            break
    return best


def _on_several_gpus(
    view: NodeView, request: PodRequest, candidates: Sequence[Candidate], *, allowed: Mapping[str, int]
) -> tuple[Candidate, ...] | None:
    """Try sets of as many GPUs as the request may take, those first on which its largest share is cheap to have."""
    largest = max(request.containers, key=lambda container: (container.units, container.seats))
    on_gpu = {gpu.uuid: _cheapest_on(gpu, largest, candidates, allowed=allowed) for gpu in view.gpus}

    def price(gpu: GpuUuid) -> tuple[bool, Cost]:
        return on_gpu[gpu] is None, cost_of(on_gpu[gpu] or (), allowed=allowed)

    def suffice(pods: Sequence[Candidate]) -> bool:
        return fits(_freed(view, pods), request)

    size = min(len(view.gpus), sum(container.gpus for container in request.containers))
    found = []
    for gpus in islice(combinations(sorted(on_gpu, key=price), size), _MAX_GPU_SETS):
        cheapest = {pod.uid for gpu in gpus for pod in on_gpu[gpu] or ()}
        enough = [pod for pod in candidates if pod.uid in cheapest]
        if not suffice(enough):  # containers of unlike size, on a GPU each
            enough = [pod for pod in candidates if not pod.shares.keys().isdisjoint(gpus)]
            if not suffice(enough):
                continue
        found.append(_spared(enough, allowed=allowed, suffice=suffice))
    if not found:
        return _spared(candidates, allowed=allowed, suffice=suffice) if suffice(candidates) else None
    return min(found, key=lambda victims: cost_of(victims, allowed=allowed))


def _spared(
    pods: Sequence[Candidate], *, allowed: Mapping[str, int], suffice: Callable[[Sequence[Candidate]], bool]
) -> tuple[Candidate, ...]:
    """Those that are left of pods that suffice when one after the other is spared, the dearest first.

    As kube-scheduler does it ("reprieve").

    Args:
        pods: the most important first.
        allowed: as in `choose_victims`.
        suffice: whether these are enough; with more of them they are all the more, or at least these are enough.
    """
    left = list(pods)
    violating = _violating(pods, allowed=allowed)
    for pod in sorted(pods, key=lambda pod: pod.uid not in violating):
        others = [other for other in left if other is not pod]
        if suffice(others):
            left = others
    return tuple(left)


def _freed(view: NodeView, pods: Iterable[Candidate]) -> NodeView:
    """The node when these pods are gone."""
    shares: defaultdict[GpuUuid, list[Share]] = defaultdict(list)
    for pod in pods:
        for share in pod.shares.values():
            shares[share.gpu].append(share)
    gpus = (_with(gpu, shares[gpu.uuid]) if gpu.uuid in shares else gpu for gpu in view.gpus)
    return NodeView.of(view.name, unit=view.unit, gpus=gpus)


def _with(gpu: GpuView, shares: Iterable[Share]) -> GpuView:
    """The GPU when these shares have been given back."""
    for share in shares:
        gpu = gpu.without(Share(gpu.uuid, -share.units, -share.seats))
    return gpu
