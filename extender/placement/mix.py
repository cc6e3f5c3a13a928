"""The mix of requests seen lately: what is asked of GPUs, with the CPU and memory that come with it. Pure.

What was seen long ago fades: whenever the mix is full, all counts are halved. Whoever may create pods may flood it with
odd ones, so it is bounded in what it keeps and in what is computed of it.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from heapq import nlargest
from typing import Final, NamedTuple

from fracgpu.hosts import HostAmount
from fracgpu.requests import PodRequest
from fracgpu.selectors import GpuSelector

FULL: Final = 20_000
"""Requests after which older ones count half: the last ten thousand or so are what matters."""
_MAX_KINDS: Final = 512  # of requests that have a weight: the most frequent ones
_FADED: Final = 0.2  # counts below this are forgotten: of requests that were seen once, and two halvings ago
_MAX_MODELS: Final = 8  # of a selection that is looked at; a longer one counts as any GPU
_MAX_SELECTION: Final = 256  # characters


class Ask(NamedTuple):
    """What a container asks of GPUs, see ContainerRequest; and the CPU and memory that come with it."""

    gpus: int
    units: int
    seats: int
    replicas: int | None
    selector: GpuSelector | None
    host: HostAmount


class Mix:
    """Counts requests.

    Attributes:
        weights: request -> its part of all requests; empty before the first. Replaced by others as the number of
            requests doubles, and as the counts are halved, so that who keeps something made by them makes it anew
            seldom. Nothing changes in them.
    """

    def __init__(self) -> None:
        self._counts: defaultdict[Ask, float] = defaultdict(float)
        self._total = 0.0
        self._due_at = 1.0
        self.weights: Mapping[Ask, float] = {}

    def see(self, request: PodRequest) -> None:
        """A pod with this request has arrived."""
        asks = asks_of(request)
        for ask in asks:
            self._counts[ask] += 1
        self._total += len(asks)
        if self._total >= FULL:
            halved = {ask: count / 2 for ask, count in self._counts.items() if count / 2 >= _FADED}
            self._counts = defaultdict(float, halved)
            self._total = sum(halved.values())
            self._settle()
        elif self._total >= self._due_at:
            self._settle()

    def _settle(self) -> None:
        found: Mapping[Ask, float] = self._counts
        if len(found) > _MAX_KINDS:
            found = {ask: found[ask] for ask in nlargest(_MAX_KINDS, found, key=found.__getitem__)}
        total = sum(found.values())
        self.weights = {ask: count / total for ask, count in found.items()}
        self._due_at = 2 * self._total


def asks_of(request: PodRequest) -> list[Ask]:
    """What the containers of a pod ask; of the pod's CPU and memory each has as large a part as of its GPUs."""
    count = sum(container.gpus for container in request.containers)
    return [
        Ask(
            container.gpus,
            container.units,
            container.seats,
            container.replicas,
            _noted(container.selector),
            HostAmount(*(amount * container.gpus // count for amount in request.host)),
        )
        for container in request.containers
    ]


def _noted(selector: GpuSelector | None) -> GpuSelector | None:
    """What of a selection tells requests apart here: the models and the size, not single GPUs."""
    if selector is None:
        return None
    if selector.names_gpus:
        selector = replace(selector, uuids=(), not_uuids=())
    if selector == GpuSelector():
        return None
    terms = selector.models + selector.not_models
    return None if len(terms) > _MAX_MODELS or sum(map(len, terms)) > _MAX_SELECTION else selector
