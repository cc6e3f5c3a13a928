"""CPU and memory of nodes, which pods take beside their share of a GPU: kube-scheduler's part, that placement heeds.

A GPU with free memory on a node without free CPU is of no use to anybody. Which pods fit on a node's CPU and memory is
decided by kube-scheduler alone; here is only what is asked and what there is.
"""

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

from fracgpu.errors import QuantityError
from fracgpu.pods import Container, Pod, Quantity, Resources
from fracgpu.quantities import MIB_BYTES, parse_quantity

_CPU: Final = "cpu"
_MEMORY: Final = "memory"
_MILLI: Final = Fraction(1, 1000)
_MIB: Final = Fraction(MIB_BYTES)


class HostAmount(NamedTuple):
    """CPU in thousandths of a core, and memory in MiB."""

    cpu_milli: int = 0
    memory_mib: int = 0

    def plus(self, other: "HostAmount") -> "HostAmount":
        """Both together."""
        return HostAmount(self.cpu_milli + other.cpu_milli, self.memory_mib + other.memory_mib)

    def minus(self, other: "HostAmount") -> "HostAmount":
        """What the other leaves of it; may be below 0."""
        return HostAmount(self.cpu_milli - other.cpu_milli, self.memory_mib - other.memory_mib)

    def holds(self, other: "HostAmount") -> bool:
        """Whether as much as the other is there; what asks nothing always fits, as for kube-scheduler."""
        return all(asked <= there or not asked for there, asked in zip(self, other, strict=True))


NOTHING: Final = HostAmount()


def host_request_of(pod: Pod) -> HostAmount:
    """What kube-scheduler counts a pod for.

    Containers and sidecars together, or the largest step of its initialization where that is more, or what the pod as a
    whole names; and its overhead. Source: Kubernetes component-helpers, resource.PodRequests.
    """
    sidecars, peak = NOTHING, NOTHING
    for container in pod.init_containers:
        asked = _of_container(container)
        if container.is_sidecar:
            sidecars = sidecars.plus(asked)
            peak = _most(peak, sidecars)
        else:
            peak = _most(peak, sidecars.plus(asked))
    total = sidecars
    for container in pod.containers:
        total = total.plus(_of_container(container))
    total = _most(total, peak)
    if pod.spec.resources is not None:
        whole = _asked(pod.spec.resources)
        total = amount_of(
            {_CPU: f"{total.cpu_milli}m", _MEMORY: f"{total.memory_mib}Mi"}
            | {key: whole[key] for key in (_CPU, _MEMORY) if key in whole}
        )
    return _shared(total.plus(amount_of(pod.spec.overhead)) if pod.spec.overhead else total)


def amount_of(amounts: Mapping[str, Quantity] | None) -> HostAmount:
    """CPU and memory of a ResourceList, rounded up; 0 where it has none, or what is no quantity."""
    if not amounts:
        return NOTHING
    return HostAmount(_parsed(str(amounts.get(_CPU, 0)), _MILLI), _parsed(str(amounts.get(_MEMORY, 0)), _MIB))


def _of_container(container: Container) -> HostAmount:
    return NOTHING if container.resources is None else amount_of(_asked(container.resources))


def _asked(resources: Resources) -> Mapping[str, Quantity]:
    """The requests; of what they do not name, the limits, as kube-apiserver has it."""
    return {**(resources.limits or {}), **(resources.requests or {})}


def _most(one: HostAmount, other: HostAmount) -> HostAmount:
    return HostAmount(max(one.cpu_milli, other.cpu_milli), max(one.memory_mib, other.memory_mib))


@lru_cache(maxsize=4096)
def _shared(amount: HostAmount) -> HostAmount:
    """The same: the pods of one workload ask alike, and there are many."""
    return amount


@lru_cache(maxsize=4096)
def _parsed(text: str, unit: Fraction) -> int:
    try:
        amount = parse_quantity(text)
    except QuantityError:
        return 0
    return max(0, -int(-amount // unit))
