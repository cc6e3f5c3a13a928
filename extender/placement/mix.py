"""The mix of requests seen lately: what is asked of GPUs, with the CPU and memory that come with it. Pure.

What was seen long ago fades: whenever the mix is full, all counts are halved.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from fracgpu.hosts import HostAmount
from fracgpu.requests import PodRequest
from fracgpu.selectors import GpuSelector

FULL: Final = 20_000
"""Requests after which older ones count half: the last ten thousand or so are what matters."""


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
        self._counts: Counter[Ask] = Counter()
        self._total = 0
        self._due_at = 1
        self.weights: Mapping[Ask, float] = {}

    def see(self, request: PodRequest) -> None:
        """A pod with this request has arrived."""
        asks = asks_of(request)
        self._counts.update(asks)
        self._total += len(asks)
        if self._total >= FULL:
            self._counts = Counter({ask: half for ask, count in self._counts.items() if (half := count // 2)})
            self._total = sum(self._counts.values())
            self._settle()
        elif self._total >= self._due_at:
            self._settle()

    def _settle(self) -> None:
        self.weights = {ask: count / self._total for ask, count in self._counts.items()}
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
            container.selector,
            HostAmount(*(amount * container.gpus // count for amount in request.host)),
        )
        for container in request.containers
    ]
