"""What is really held, by the device IDs of the containers that live, and what it says: never the ledger's view.

Invariant looked after here: of no GPU more than its units and seats are held, and no device ID is held twice.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from fracgpu.device_ids import count_by_gpu
from fracgpu.names import RESOURCE_REPLICA, GpuUuid, NodeName, PodUid
from fracgpu.quantities import DEFAULT_MEMORY_UNIT, DEFAULT_REPLICAS, Mib, capacity_units, seat_units
from playground.node.kubelet import Kubelet
from playground.node.nvml import SimulatedGpu
from tests.chaos.shapes import Ask

SEATS = DEFAULT_REPLICAS
Held = Mapping[tuple[PodUid, str], Mapping[str, frozenset[str]]]
"""(pod, container) -> resource -> device IDs, of every process that is alive."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Units and seats, of one GPU."""

    units: int
    seats: int


class Truth:
    """Watches the kubelets of a world.

    Args:
        kubelets: node -> its kubelet.
        gpus: node -> its GPUs.

    Attributes:
        started: the pods of which a container ever ran.
    """

    def __init__(
        self, kubelets: Mapping[NodeName, Kubelet], *, gpus: Mapping[NodeName, Iterable[SimulatedGpu]]
    ) -> None:
        self._violations: dict[str, str] = {}  # node and violation, in words -> when it was seen first
        self.started: set[PodUid] = set()
        self._kubelets = kubelets
        self._units = {  # node -> GPU -> its units
            node: {
                GpuUuid(gpu.uuid): capacity_units(Mib(gpu.memory_mib), reserved=Mib(0), unit=DEFAULT_MEMORY_UNIT)
                for gpu in of_node
            }
            for node, of_node in gpus.items()
        }
        for node, kubelet in kubelets.items():
            self._watch_starts(node, kubelet.runtime)

    def check(self, *, when: str) -> None:
        """Look for what must not be, on every node."""
        for node in self._kubelets:
            self._check(node, when=when)

    def overcommits(self) -> list[str]:
        """Every violation that was ever seen, in words."""
        return [f"{problem}, first when {when}" for problem, when in self._violations.items()]

    def holders(self) -> dict[PodUid, NodeName]:
        """Pod -> node, of every pod with a living container that has device IDs."""
        return {uid: node for node in self._kubelets for uid, _ in self._held(node)}

    def held(self, node: NodeName) -> dict[GpuUuid, Amount]:
        """What living containers hold of each GPU of a node."""
        return held_by_gpu(self._held(node), units=self._units[node])

    def fits(self, asks: Iterable[Ask]) -> NodeName | None:
        """Return a node where a pod would find what it asks among what nobody holds; None where there is none."""
        for node, sizes in self._units.items():
            held = self.held(node)
            free = {gpu: Amount(size - held[gpu].units, SEATS - held[gpu].seats) for gpu, size in sizes.items()}
            if fits(tuple(asks), free, sizes=sizes):
                return node
        return None

    def _held(self, node: NodeName) -> Held:
        return self._kubelets[node].held_device_ids()

    def _watch_starts(self, node: NodeName, runtime: Any) -> None:
        start = runtime.start

        def start_and_check(config: Any) -> Any:
            container = start(config)
            if config.device_ids:
                self.started.add(config.pod_uid)
                self._check(node, when=f"{config.name} of {config.pod['metadata']['name']} started")
            return container

        runtime.start = start_and_check

    def _check(self, node: NodeName, *, when: str) -> None:
        for problem in violations(self._held(node), units=self._units[node]):
            self._violations.setdefault(f"{node}: {problem}", when)


def held_by_gpu(held: Held, *, units: Mapping[GpuUuid, int]) -> dict[GpuUuid, Amount]:
    """Sum up device IDs by GPU; `units` names the GPUs and their sizes."""
    total = {gpu: Amount(0, 0) for gpu in units}
    for resources in held.values():
        for resource, ids in resources.items():
            for gpu, count in count_by_gpu(ids).items():
                seats = count if resource == RESOURCE_REPLICA else 0
                taken = seat_units(seats, replicas=SEATS, units=units[gpu]) if seats else count
                total[gpu] = Amount(total[gpu].units + taken, total[gpu].seats + seats)
    return total


def violations(held: Held, *, units: Mapping[GpuUuid, int]) -> list[str]:
    """Say what must not be: a GPU above its units or seats, a device ID in two containers."""
    found = [
        f"{gpu} has {units[gpu]} units and {SEATS} seats, and {amount.units} units and {amount.seats} seats are held"
        for gpu, amount in held_by_gpu(held, units=units).items()
        if amount.units > units[gpu] or amount.seats > SEATS
    ]
    times = Counter(device for resources in held.values() for ids in resources.values() for device in ids)
    return found + [f"{device} is held by {count} containers" for device, count in times.items() if count > 1]


def fits(asks: tuple[Ask, ...], free: Mapping[GpuUuid, Amount], *, sizes: Mapping[GpuUuid, int]) -> bool:
    """Whether all containers find their GPUs in what is free, in any way at all."""
    if not asks:
        return True
    first, *rest = asks
    needs = {
        gpu: seat_units(first.seats, replicas=SEATS, units=sizes[gpu]) if first.seats else first.units for gpu in free
    }
    roomy = [gpu for gpu, left in free.items() if needs[gpu] <= left.units and first.seats <= left.seats]
    for chosen in combinations(roomy, first.gpus):
        taken = {gpu: Amount(free[gpu].units - needs[gpu], free[gpu].seats - first.seats) for gpu in chosen}
        if fits(tuple(rest), {**free, **taken}, sizes=sizes):
            return True
    return False
