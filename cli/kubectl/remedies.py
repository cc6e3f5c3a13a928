"""What would let a waiting pod run, the nearest first: pods whose end makes room, asking for less, another node. Pure.

The extender's own functions decide whether something fits. Nearest is what changes the least memory; what nobody has to
do anything for comes first of all, and buying a node last.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, Literal

from msgspec import Struct

from cli.kubectl.wording import count, gpu_name, gpu_title, listed
from extender.index import Index
from extender.ledger.claims import Claim
from extender.placement.explaining import describe
from extender.placement.fitting import could_ever_fit, fits
from extender.placement.victims import Candidate, choose_victims
from extender.placement.views import NodeView
from fracgpu.plans import MAX_AMOUNT
from fracgpu.pods import Pod
from fracgpu.quantities import Mib, format_mib
from fracgpu.requests import ContainerRequest, PodRequest

_SEARCHED: Final = 100
"""Nodes on which pods are looked for whose end would help, the emptiest first: some milliseconds each."""

Kind = Literal[
    "call-doctor", "wait", "end-pods", "ask-less", "fewer-gpus", "other-gpus", "heal", "add-node", "larger-gpu"
]


class Remedy(Struct, frozen=True, rename="camel"):
    """Something that would make room.

    Attributes:
        kind: what it is.
        sentence: the same for a person.
        node: where there would be room then; empty where that is a node yet to be added.
        pods: ``namespace/name`` of those that have to end.
        changed: how much memory changes hands, in MiB.
    """

    kind: Kind
    sentence: str
    node: str = ""
    pods: list[str] = []
    changed: int = 0


def remedies(index: Index, pod: Pod, request: PodRequest, *, views: Sequence[NodeView]) -> list[Remedy]:
    """What would make room for a pod that fits nowhere, the nearest first.

    Args:
        index: the cluster.
        pod: it waits.
        request: what it asks.
        views: the nodes, as this pod finds them.
    """
    waiting = _wait(index, pod, request, views)
    middle = [*_end_pods(index, request, views), *_ask_less(request, views)]
    able = [view for view in views if could_ever_fit(view, request)]
    return [
        *waiting,
        *sorted(middle, key=lambda remedy: remedy.changed),
        *_fewer_gpus(request, views),
        *_other_gpus(index, request, views),
        *_heal(index, request, views),
        *(_add_node(index, able) if able else _larger_gpu(request, views, unit=index.unit)),
    ]


def _wait(index: Index, pod: Pod, request: PodRequest, views: Iterable[NodeView]) -> list[Remedy]:
    """Shares that are coming free by themselves."""
    for view in views:
        ending = sorted(uid for uid in index.passing.get(view.name, ()) if index.is_ending(uid))
        coming = index.coming_view(view.name, uid=pod.uid, priority=pod.priority) if ending else None
        if coming is not None and fits(coming, request):
            pods = [index.entries[uid].claim.pod for uid in ending]
            return [
                Remedy(
                    "wait",
                    f"nothing: there is room on {view.name} as soon as the processes of {listed(pods)} have ended",
                    view.name,
                    pods,
                )
            ]
    return []


def _end_pods(index: Index, request: PodRequest, views: Iterable[NodeView]) -> list[Remedy]:
    """The fewest pods of one node whose end makes room; of equally many those that have the least."""
    able = [view for view in views if could_ever_fit(view, request)]
    found = []
    for view in sorted(able, key=lambda view: (-max(view.pieces, default=0), view.name))[:_SEARCHED]:
        claims = {claim.uid: claim for claim in index.takers_of(view.name)}
        candidates = list(map(_candidate, claims.values()))
        victims = choose_victims(view, request, candidates, allowed={})
        if victims is not None:
            taken = [share.units for victim in victims.pods for share in victim.shares.values()]
            found.append((len(victims.pods), sum(taken), view, [claims[victim.uid] for victim in victims.pods]))
    if not found:
        return []
    _, units, view, ending = min(found, key=lambda each: (each[0], each[1], each[2].name))
    parts = []
    for claim in sorted(ending, key=lambda claim: claim.pod):
        for gpu, share in claim.per_gpu().items():
            parts.append(
                f"{claim.pod} ({format_mib(share.units * view.unit)} of {gpu_name(gpu, index.nodes[view.name])})"
            )
    sentence = f"the end of {listed(parts)} on {view.name} would make room"
    missing = _missing_where(view, request, {gpu for claim in ending for gpu in claim.per_gpu()})
    if missing:
        sentence += f"; {format_mib(missing)} more would do"
    return [Remedy("end-pods", sentence, view.name, sorted(claim.pod for claim in ending), units * view.unit)]


def _candidate(claim: Claim) -> Candidate:
    """A pod that may end; of equally many, the search takes the youngest, and small ones are made out to be that."""
    shares = claim.per_gpu()
    return Candidate(
        claim.uid, started=f"{MAX_AMOUNT - sum(share.units for share in shares.values()):09}", shares=shares
    )


def _missing_where(view: NodeView, request: PodRequest, gpus: set[str]) -> int:
    """How many MiB are missing on the one GPU on which one container needs them; 0 where it is not so simple."""
    if len(request.containers) > 1 or request.containers[0].gpus > 1 or len(gpus) > 1:
        return 0
    return sum(
        max(0, gpu.units_for(request.containers[0]) - max(0, gpu.free_units)) * view.unit
        for gpu in view.gpus
        if gpu.uuid in gpus and not request.containers[0].seats
    )


def _ask_less(request: PodRequest, views: Sequence[NodeView]) -> list[Remedy]:
    """The smallest reduction of one container's share with which the pod fits now."""
    found = []
    for place, container in enumerate(request.containers):
        smaller = _largest_that_fits(request, place, views)
        if smaller is not None:
            found.append((_reduced_by(container, smaller), container, smaller))
    if not found:
        return []
    _, container, smaller = min(found, key=lambda each: each[0])
    view = next(view for view in views if fits(view, _with(request, container, smaller)))
    return [_asking(container, smaller, view, is_only=len(request.containers) == 1)]


def _largest_that_fits(request: PodRequest, place: int, views: Sequence[NodeView]) -> ContainerRequest | None:
    """The container with the most units or seats with which the pod fits somewhere; None where even 1 is too much."""
    container = request.containers[place]
    low, high = 0, (container.seats or container.units) - 1
    while low < high:  # what fits with more fits with less
        middle = (low + high + 1) // 2
        if any(fits(view, _with(request, container, _of(container, middle))) for view in views):
            low = middle
        else:
            high = middle - 1
    smaller = _of(container, low) if low else None
    if smaller is None or not any(fits(view, _with(request, container, smaller)) for view in views):
        return None
    return smaller


def _asking(container: ContainerRequest, smaller: ContainerRequest, view: NodeView, *, is_only: bool) -> Remedy:
    each = " on each GPU" if container.gpus > 1 else ""
    whose = "" if is_only else f" for {container.container!r}"
    if container.seats:
        less, how = container.seats - smaller.seats, f"{smaller.seats} instead of {container.seats}"
        sentence = f"asking {count(less, 'seat')} less{each}{whose} ({how}) would fit now, on {view.name}"
        sizes = [gpu.units // gpu.replicas for gpu in view.gpus if gpu.replicas]
        return Remedy("ask-less", sentence, view.name, changed=less * max(sizes, default=0) * view.unit)
    less = (container.units - smaller.units) * view.unit
    how = f"{format_mib(smaller.units * view.unit)} instead of {format_mib(container.units * view.unit)}"
    sentence = f"asking {format_mib(less)} less{each}{whose} ({how}) would fit now, on {view.name}"
    return Remedy("ask-less", sentence, view.name, changed=less * container.gpus)


def _fewer_gpus(request: PodRequest, views: Sequence[NodeView]) -> list[Remedy]:
    for container in request.containers:
        for gpus in range(container.gpus - 1, 0, -1):
            fewer = _with(request, container, replace(container, gpus=gpus))
            view = next((view for view in views if fits(view, fewer)), None)
            if view is not None:
                what = f"{count(gpus, 'GPU')} instead of {container.gpus}"
                return [Remedy("fewer-gpus", f"asking for {what} would fit now, on {view.name}", view.name)]
    return []


def _other_gpus(index: Index, request: PodRequest, views: Sequence[NodeView]) -> list[Remedy]:
    """Where there is room on GPUs that the pod does not accept."""
    if all(container.selector is None for container in request.containers):
        return []
    any_gpu = replace(request, containers=tuple(replace(container, selector=None) for container in request.containers))
    view = next((view for view in views if fits(view, any_gpu)), None)
    if view is None:
        return []
    models = listed(sorted({gpu.product for gpu in index.nodes[view.name].spec.gpus}))
    asked = listed(sorted({str(container.selector) for container in request.containers if container.selector}))
    sentence = f"without the choice of GPUs ({asked}) it would fit now, on {view.name} ({models})"
    return [Remedy("other-gpus", sentence, view.name)]


def _heal(index: Index, request: PodRequest, views: Sequence[NodeView]) -> list[Remedy]:
    """Where there would be room if the GPUs that are not healthy were."""
    for view in views:
        ill = [gpu for gpu in index.nodes[view.name].spec.gpus if not gpu.healthy]
        well = NodeView.of(view.name, unit=view.unit, gpus=[replace(gpu, usable=gpu.units > 0) for gpu in view.gpus])
        if ill and fits(well, request):
            what = listed([f"GPU {gpu.index} ({gpu.problem or 'no reason given'})" for gpu in ill])
            sentence = f"there would be room on {view.name} if all its GPUs were healthy; not healthy: {what}"
            return [Remedy("heal", sentence, view.name)]
    return []


def _add_node(index: Index, able: Sequence[NodeView]) -> list[Remedy]:
    """The smallest kind of node that could hold the pod."""
    model = min(able, key=lambda view: (sum(view.sizes) * view.unit, view.name))
    gpus = index.nodes[model.name].spec.gpus
    kinds = {gpu_title(gpu): 0 for gpu in gpus}
    for gpu in gpus:
        kinds[gpu_title(gpu)] += 1
    what = listed([f"{number} × {title}" for title, number in kinds.items()])
    return [Remedy("add-node", f"another node like {model.name} ({what}) would have room")]


def _larger_gpu(request: PodRequest, views: Sequence[NodeView], *, unit: Mib) -> list[Remedy]:
    largest = max((gpu.units * view.unit for view in views for gpu in view.gpus), default=0)
    most = max((len(view.gpus) for view in views), default=0)
    need = describe(request, unit=unit)
    if not views:
        return [Remedy("larger-gpu", f"a node with GPUs that can hold it ({need}): the cluster has none")]
    has = f"the largest GPU has {format_mib(largest)}, and the most GPUs on one node are {most}"
    return [Remedy("larger-gpu", f"no node of this cluster could hold it, even when empty ({has}); add one that can")]


def _of(container: ContainerRequest, amount: int) -> ContainerRequest:
    return replace(container, seats=amount) if container.seats else replace(container, units=amount)


def _with(request: PodRequest, container: ContainerRequest, other: ContainerRequest) -> PodRequest:
    containers = tuple(other if found is container else found for found in request.containers)
    return replace(request, containers=containers)


def _reduced_by(container: ContainerRequest, smaller: ContainerRequest) -> int:
    return (container.units - smaller.units + container.seats - smaller.seats) * container.gpus
