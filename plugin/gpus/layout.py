"""What the node offers: from GPUs and the administrator's wishes to units, seats and the kubelet's device lists.

Pure. What is granted keeps its size: another unit, replica count or reserved memory comes into force on a GPU when
nothing of it is held any more, and another unit when nothing of the whole node is. Until then both are told.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from fracgpu.device_ids import DeviceId, count_by_gpu
from fracgpu.errors import SettingError
from fracgpu.gpunodes import Gpu, GpuNodeSpec, PendingShares
from fracgpu.kubelet.deviceplugin_pb2 import Device, ListAndWatchResponse, NUMANode, TopologyInfo
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid
from fracgpu.plans import Share
from fracgpu.quantities import Mib, capacity_units, format_mib, seat_units
from plugin.gpus.cards import Card
from plugin.wishes import GpuWish

RESOURCES: Final = (RESOURCE_MEMORY, RESOURCE_REPLICA)
MAX_MESSAGE_BYTES: Final = 3 * 2**20
"""Of a ListAndWatch message. The kubelet accepts 4 MiB, not configurable; the rest is room for longer health words."""

Problems = Mapping[GpuUuid, str]
"""GPU -> why it must not be used now, as a sentence."""


def wanted_spec(
    cards: Iterable[Card], wishes: Mapping[GpuUuid, GpuWish], *, unit: Mib, numa_hints: bool = False
) -> GpuNodeSpec:
    """Divide the GPUs into units and seats as wished; excluded ones are absent, and what cannot be has a problem."""
    gpus = (_gpu(card, wishes[card.uuid], unit=unit) for card in cards if not wishes[card.uuid].excluded)
    return GpuNodeSpec(unit, tuple(gpus), numa_hints=numa_hints)


def settle(
    before: GpuNodeSpec | None,
    cards: Sequence[Card],
    wishes: Mapping[GpuUuid, GpuWish],
    *,
    unit: Mib,
    held: Collection[GpuUuid],
    numa_hints: bool = False,
) -> GpuNodeSpec:
    """What the node offers from now on.

    Args:
        before: what it offered until now; None where nothing is known of that.
        cards: the node's GPUs.
        wishes: how each is to be shared.
        unit: the memory unit that is wished for.
        held: GPUs of which something is granted, or planned for a pod that is about to start.
        numa_hints: whether the kubelet is told the GPUs' NUMA nodes.
    """
    wanted = wanted_spec(cards, wishes, unit=unit, numa_hints=numa_hints)
    if before is None:
        return wanted
    old = {gpu.uuid: gpu for gpu in before.gpus}
    must_wait = before.memory_unit != unit and not old.keys().isdisjoint(held)
    in_force = wanted_spec(cards, wishes, unit=before.memory_unit, numa_hints=numa_hints) if must_wait else wanted
    pending = {gpu.uuid: PendingShares(gpu.units, gpu.replicas) for gpu in wanted.gpus}
    gpus = [
        _settled(
            old.get(gpu.uuid),
            gpu,
            pending[gpu.uuid],
            unit=in_force.memory_unit,
            is_held=gpu.uuid in held,
            must_wait=must_wait,
        )
        for gpu in in_force.gpus
    ]
    present = {gpu.uuid for gpu in gpus}
    known = {card.uuid for card in cards}
    gpus += [
        msgspec.structs.replace(gpu, healthy=False, problem=_why_gone(gpu, is_known=gpu.uuid in known), pending=None)
        for gpu in before.gpus
        if gpu.uuid not in present and gpu.uuid in held
    ]
    return GpuNodeSpec(
        in_force.memory_unit,
        tuple(gpus),
        pending_memory_unit=unit if must_wait else None,
        numa_hints=numa_hints,
    )


def with_problems(spec: GpuNodeSpec, problems: Problems) -> GpuNodeSpec:
    """The same with these GPUs unhealthy, whatever they were."""
    gpus = tuple(
        msgspec.structs.replace(gpu, healthy=False, problem=problems[gpu.uuid])
        if gpu.healthy and problems.get(gpu.uuid)
        else gpu
        for gpu in spec.gpus
    )
    return msgspec.structs.replace(spec, gpus=gpus)


def check_unit(cards: Iterable[Card], *, unit: Mib) -> None:
    """Check that the kubelet takes the list of all units, whatever is reserved of them.

    Raises:
        SettingError: the unit is too small; names one that is not.
    """
    whole = GpuWish(replicas=1, reserved=Mib(0))
    check_message_size(wanted_spec(cards, defaultdict(lambda: whole), unit=unit))


def check_message_size(spec: GpuNodeSpec) -> None:
    """Check that the kubelet takes the list of units; that of seats is never longer: a seat has at least one unit.

    Raises:
        SettingError: the unit is too small; names one that is not.
    """
    size = device_list(spec, RESOURCE_MEMORY).ByteSize()
    if size <= MAX_MESSAGE_BYTES:
        return
    enough = spec.memory_unit
    while size * spec.memory_unit > MAX_MESSAGE_BYTES * enough:
        enough = Mib(enough * 2)
    raise SettingError(
        f"{sum(gpu.units for gpu in spec.gpus)} devices make a message of {size / 2**20:.1f} MiB to the kubelet, which "
        f"accepts 4 MiB (fracgpu stops at {MAX_MESSAGE_BYTES >> 20} MiB): set --memory-unit-mib to {enough} or more, "
        "the same in the whole cluster"
    )


def device_list(spec: GpuNodeSpec, resource: str) -> ListAndWatchResponse:
    """The message that tells the kubelet every unit (or seat) of every GPU, healthy or not."""
    answer = ListAndWatchResponse()
    for gpu in spec.gpus:
        numa = None
        if spec.numa_hints and gpu.numa_node is not None:
            numa = TopologyInfo(nodes=[NUMANode(ID=gpu.numa_node)])
        health = "Healthy" if gpu.healthy else "Unhealthy"
        answer.devices.extend(
            Device(ID=str(DeviceId(gpu.uuid, resource, number)), health=health, topology=numa)
            for number in range(amount_of(gpu, resource))
        )
    return answer


def amount_of(gpu: Gpu, resource: str) -> int:
    """How many units (or seats) a GPU offers."""
    return gpu.units if resource == RESOURCE_MEMORY else gpu.replicas


def shares_of(ids: Iterable[str], resource: str, gpus: Mapping[GpuUuid, Gpu]) -> tuple[Share, ...]:
    """What these IDs of one resource take, one share per GPU, ordered by UUID.

    `gpus` maps UUID -> GPU. On a GPU that the node has no more, seats take no units: nobody can use them.

    Raises:
        DeviceIdError: an ID is not of fracgpu's making.
    """
    return tuple(_share(gpus.get(uuid), uuid, resource, count) for uuid, count in sorted(count_by_gpu(ids).items()))


def _gpu(card: Card, wish: GpuWish, *, unit: Mib) -> Gpu:
    units = capacity_units(card.memory, reserved=Mib(max(0, wish.reserved)), unit=unit)
    problem = card.problem
    if not problem and units < wish.replicas:
        problem = (
            f"{format_mib(card.memory)} are {units} units of {unit} MiB after {wish.reserved} MiB reserved, too few "
            f"for {wish.replicas} seats, each of which takes at least one: lower its replicas or reserved memory"
        )
    return Gpu(
        uuid=card.uuid,
        index=card.index,
        product=card.product,
        memory=card.memory,
        units=units,
        replicas=wish.replicas,
        healthy=not problem,
        numa_node=card.numa_node,
        problem=problem,
        parent=card.mig.parent if card.mig else "",
    )


def _settled(before: Gpu | None, now: Gpu, wanted: PendingShares, *, unit: Mib, is_held: bool, must_wait: bool) -> Gpu:
    """One GPU; `now` is what it would offer in the unit in force, `wanted` what is wished for."""
    if before is None:
        return now
    if now.memory == 0:
        # NVML no longer tells its size: its devices stay in the list, unhealthy, so that they come back as they were.
        return msgspec.structs.replace(before, healthy=False, problem=now.problem, pending=None)
    if not is_held and not must_wait:
        return now
    kept = before if is_held else now
    shares = PendingShares(kept.units, kept.replicas)
    if kept.units * unit > now.memory:
        now = msgspec.structs.replace(
            now,
            memory=kept.memory,
            healthy=False,
            problem=f"it has {format_mib(now.memory)} now, less than the {kept.units} units of {unit} MiB in which "
            "pods hold parts of it: it takes nobody until they have ended",
        )
    return msgspec.structs.replace(
        now,
        units=kept.units,
        replicas=kept.replicas,
        pending=wanted if must_wait or shares != wanted else None,
    )


def _why_gone(gpu: Gpu, *, is_known: bool) -> str:
    if is_known:
        return "it is excluded from sharing; what pods hold of it stays theirs until they end"
    return f"NVML does not find {gpu.uuid} on this node any more, and pods still hold a part of it"


def _share(gpu: Gpu | None, uuid: GpuUuid, resource: str, count: int) -> Share:
    if resource == RESOURCE_MEMORY:
        return Share(uuid, units=count)
    units = seat_units(count, replicas=gpu.replicas, units=gpu.units) if gpu else 0
    return Share(uuid, units=units, seats=count)
