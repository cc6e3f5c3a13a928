"""What the node offers: from GPUs and the administrator's settings to units, seats and the kubelet's device lists.

Pure. No topology goes into the messages: NUMA hints make the kubelet choose devices without asking the plugin.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from fracgpu.device_ids import DeviceId, count_by_gpu
from fracgpu.errors import SettingError
from fracgpu.gpunodes import Gpu, GpuNodeSpec, Grant
from fracgpu.kubelet.deviceplugin_pb2 import Device, ListAndWatchResponse
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid
from fracgpu.plans import Share
from fracgpu.quantities import Mib, capacity_units, format_mib, seat_units
from plugin.gpus.cards import Card

RESOURCES: Final = (RESOURCE_MEMORY, RESOURCE_REPLICA)
MAX_MESSAGE_BYTES: Final = 3 * 2**20
"""Of a ListAndWatch message. The kubelet accepts 4 MiB, not configurable; the rest is room for longer health words."""


def node_spec(cards: Iterable[Card], *, unit: Mib, replicas: int, reserved: Mib) -> GpuNodeSpec:
    """Divide the GPUs into units and seats.

    Raises:
        SettingError: the unit is too small for the kubelet's message limit, or too large for so many seats.
    """
    spec = GpuNodeSpec(unit, tuple(_gpu(card, unit=unit, replicas=replicas, reserved=reserved) for card in cards))
    for gpu in spec.gpus:
        if gpu.healthy and gpu.units < gpu.replicas:
            raise SettingError(
                f"{gpu.uuid} ({gpu.product}, {format_mib(gpu.memory)}) has {gpu.units} units of {unit} MiB after "
                f"{reserved} MiB reserved, too few for {replicas} seats: each seat takes at least one unit. Lower "
                "--replicas, --reserved-mib or --memory-unit-mib"
            )
    _check_size(spec)
    return spec


def device_list(spec: GpuNodeSpec, resource: str) -> ListAndWatchResponse:
    """The message that tells the kubelet every unit (or seat) of every GPU, healthy or not."""
    return ListAndWatchResponse(
        devices=[
            Device(ID=str(DeviceId(gpu.uuid, resource, number)), health="Healthy" if gpu.healthy else "Unhealthy")
            for gpu in spec.gpus
            for number in range(_amount(gpu, resource))
        ]
    )


def shares_of(ids: Iterable[str], resource: str, gpus: Mapping[GpuUuid, Gpu]) -> tuple[Share, ...]:
    """What these IDs of one resource take, one share per GPU, ordered by UUID.

    `gpus` maps UUID -> GPU. On a GPU that the node has no more, seats take no units: nobody can use them.

    Raises:
        DeviceIdError: an ID is not of fracgpu's making.
    """
    return tuple(_share(gpus.get(uuid), uuid, resource, count) for uuid, count in sorted(count_by_gpu(ids).items()))


def refuse_change_under_grants(before: GpuNodeSpec, after: GpuNodeSpec, grants: Iterable[Grant]) -> None:
    """Refuse another unit or replica count on a GPU of which something is granted: its grants would change size.

    Raises:
        SettingError: the settings changed; the sentence says which to go back to.
    """
    held = {share.gpu: grant for grant in grants for shares in grant.containers.values() for share in shares}
    old = {gpu.uuid: gpu for gpu in before.gpus}
    for gpu in after.gpus:
        was, grant = old.get(gpu.uuid), held.get(gpu.uuid)
        if was is None or grant is None or not (gpu.healthy and was.healthy):
            continue
        if (before.memory_unit, was.units, was.replicas) != (after.memory_unit, gpu.units, gpu.replicas):
            raise SettingError(
                f"{gpu.uuid} was shared as {was.units} units of {before.memory_unit} MiB and {was.replicas} seats, and "
                f"pod {grant.namespace}/{grant.name} still holds a part of it; it cannot become {gpu.units} units of "
                f"{after.memory_unit} MiB and {gpu.replicas} seats now. Drain the node first, or go back to the "
                "settings of before"
            )


def _gpu(card: Card, *, unit: Mib, replicas: int, reserved: Mib) -> Gpu:
    return Gpu(
        uuid=card.uuid,
        index=card.index,
        product=card.product,
        memory=card.memory,
        units=capacity_units(card.memory, reserved=reserved, unit=unit),
        replicas=replicas,
        healthy=not card.problem,
        numa_node=card.numa_node,
    )


def _amount(gpu: Gpu, resource: str) -> int:
    return gpu.units if resource == RESOURCE_MEMORY else gpu.replicas


def _share(gpu: Gpu | None, uuid: GpuUuid, resource: str, count: int) -> Share:
    if resource == RESOURCE_MEMORY:
        return Share(uuid, units=count)
    units = seat_units(count, replicas=gpu.replicas, units=gpu.units) if gpu else 0
    return Share(uuid, units=units, seats=count)


def _check_size(spec: GpuNodeSpec) -> None:
    """Check the list of units; that of seats is never longer, as each seat has at least one unit."""
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
