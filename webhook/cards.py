"""Which GPUs the cluster has, and the sentence about a pod that none of them could hold even when empty. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from fracgpu.gpunodes import GpuNode
from fracgpu.names import ANNOTATION_GPU_FRACTION, ANNOTATION_GPU_MEMORY, RESOURCE_MEMORY, RESOURCE_REPLICA
from fracgpu.quantities import Mib, format_mib
from fracgpu.requests import ContainerRequest, PodRequest


class Card(NamedTuple):
    """What all GPUs of one kind and one setting have in common; `memory` in MiB."""

    product: str
    memory: Mib
    units: int
    replicas: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """The GPUs of the cluster.

    Attributes:
        cards: the different ones; empty where none is known.
        most_gpus: on one node.
    """

    cards: frozenset[Card] = frozenset()
    most_gpus: int = 0


def cards_of(node: GpuNode) -> tuple[Card, ...]:
    """The GPUs of a node, one entry each."""
    return tuple(Card(gpu.product, gpu.memory, gpu.units, gpu.replicas) for gpu in node.spec.gpus)


def cluster_of(nodes: Iterable[tuple[Card, ...]]) -> Cluster:
    """What the GPUs of all nodes come to."""
    found = list(nodes)
    return Cluster(frozenset(card for cards in found for card in cards), max(map(len, found), default=0))


def why_too_large(request: PodRequest, *, cluster: Cluster, unit: Mib) -> str:
    """Why no GPU of the cluster could hold the pod; empty where one could, or where no GPU is known.

    Containers that name GPUs by UUID are not judged.
    """
    if not cluster.cards:
        return ""
    for container in request.containers:
        if why := _why(container, cluster, unit):
            return why
    return ""


def _why(container: ContainerRequest, cluster: Cluster, unit: Mib) -> str:
    selector = container.selector
    cards = cluster.cards
    if selector is not None:
        if selector.uuids:
            return ""
        cards = frozenset(card for card in cards if selector.accepts_model(card.product, card.memory))
    subject = f"container {container.container!r} asks for"
    if not cards:
        products = ", ".join(sorted({f"{card.product} ({format_mib(card.memory)})" for card in cluster.cards}))
        return f"{subject} a GPU ({selector}), and the cluster has none such; its GPUs are {products}"
    if container.gpus > cluster.most_gpus:
        return (
            f"{subject} {container.gpus} GPUs, and no node of the cluster has more than {cluster.most_gpus}; ask for "
            f"at most {cluster.most_gpus}"
        )
    if container.seats:
        return _why_no_seats(container, subject, {card.replicas for card in cards})
    largest = max(card.units for card in cards)
    if container.units <= largest:
        return ""
    where = f" ({selector})" if selector is not None and str(selector) else ""
    return (
        f"{subject} {format_mib(container.units * unit)} on one GPU ({RESOURCE_MEMORY}: {container.units} units), and "
        f"the largest GPU of the cluster{where} has {format_mib(largest * unit)}; ask for at most that, for example "
        f'{ANNOTATION_GPU_MEMORY}: "{largest * unit}Mi"'
    )


def _why_no_seats(container: ContainerRequest, subject: str, replicas: set[int]) -> str:
    counts = ", ".join(map(str, sorted(replicas)))
    if container.replicas is not None and container.replicas not in replicas:
        return (
            f"{subject} {container.seats} of {container.replicas} seats of a GPU ({ANNOTATION_GPU_FRACTION}), and no "
            f"GPU of the cluster has {container.replicas} seats; they have {counts}"
        )
    if container.seats > max(replicas):
        return (
            f"{subject} {RESOURCE_REPLICA}: {container.seats} on one GPU, and no GPU of the cluster has more than "
            f"{max(replicas)} seats; ask for at most {max(replicas)}"
        )
    return ""
