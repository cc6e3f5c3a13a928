"""Whether a container may have the devices that the kubelet has chosen. Pure: values in, nothing or a refusal out.

The refusals are sentences for the user, who reads them in the pod's status: what was found, what is allowed, and
what happens next. The kubelet does not try a pod again that failed its admission; the pod's controller makes another.
"""

from collections.abc import Collection, Mapping
from typing import Final

from fracgpu.device_ids import count_by_gpu, parse_device_id
from fracgpu.errors import NoRoomError
from fracgpu.gpunodes import Gpu
from fracgpu.names import RESOURCE_MEMORY, GpuUuid
from fracgpu.plans import Share
from fracgpu.quantities import Mib, seat_units
from plugin.granting.admission import AdmissionError, Claim
from plugin.granting.book import GrantBook
from plugin.granting.wording import amount, amounts

_NEXT: Final = "this pod stays failed, and its controller (Deployment, StatefulSet, Job) makes a new one"


def room(gpu: Gpu, used: Share, resource: str) -> int:
    """How many more units, or seats, of a GPU can be given away beside what is used of it."""
    free_units = gpu.units - used.units
    if resource == RESOURCE_MEMORY:
        return max(0, free_units)
    free_seats = gpu.replicas - used.seats
    if not used.units:
        return max(0, free_seats)  # up to the whole GPU, with the units that do not divide evenly
    return max(0, min(free_seats, free_units // (gpu.units // gpu.replicas)))


def seat_units_of(gpu: Gpu, seats: int) -> int:
    """The memory units that seats of a GPU take with them."""
    return seat_units(seats, replicas=gpu.replicas, units=gpu.units)


def lingering(ended: Collection[str]) -> str:
    """Say that these pods, though ended, still hold memory."""
    return f"pod {', '.join(ended)} was deleted or has ended, but its processes have not been seen to end yet"


def check_claim(claim: Claim, *, size: int, unit: Mib) -> None:
    """Check what can be known before any device is chosen.

    Raises:
        AdmissionError: the pod can have nothing, or something else than what the kubelet asks for.
    """
    if claim.problem:
        raise AdmissionError(claim.problem)
    who = f"container {claim.container!r} of pod {claim.pod.key}"
    if claim.unit is not None and claim.unit != unit:
        raise AdmissionError(
            f"{who} is planned in units of {claim.unit} MiB, and this node counts in units of {unit} MiB: "
            f"fracgpu's extender and device plugins must use the same --memory-unit-mib; {_NEXT}"
        )
    if claim.size != size:
        raise AdmissionError(
            f"{who} may have {amount(claim.size, claim.resource)}, and the kubelet asks for {size}: the pod's limits "
            f"and its plan contradict each other; {_NEXT}"
        )


def check_devices(
    claim: Claim, resource: str, ids: Collection[str], *, gpus: Mapping[GpuUuid, Gpu], book: GrantBook
) -> None:
    """Check the devices that the kubelet has chosen for a claim that passed `check_claim`.

    Args:
        claim: what the container may be given.
        resource: what the devices are counted in.
        ids: the device IDs.
        gpus: UUID -> GPU of this node.
        book: what is held already; what this very container holds does not stand in its way.

    Raises:
        DeviceIdError: an ID is not of fracgpu's making.
        AdmissionError: an ID names no share of this node, its GPU is unhealthy, or the choice is not what the plan
            (or, without a plan, the pod) says.
        NoRoomError: the memory of a GPU is not really free.
    """
    given = count_by_gpu(ids)
    _check_existence(resource, ids, gpus)
    _check_shape(claim, given, gpus)
    for uuid, count in given.items():
        gpu, used = gpus[uuid], book.used(uuid, besides=(claim.pod.uid, claim.container))
        free = room(gpu, used, resource)
        if count <= free:
            continue
        total = gpu.units if resource == RESOURCE_MEMORY else gpu.replicas
        ended = book.ended_holders(uuid)
        why = lingering(ended) if ended else "other pods hold the rest, some of them not placed by fracgpu"
        raise NoRoomError(
            f"{uuid} has {free} of {amount(total, resource)} free, and container {claim.container!r} of pod "
            f"{claim.pod.key} needs {count}: {why}; {_NEXT}"
        )


def _check_existence(resource: str, ids: Collection[str], gpus: Mapping[GpuUuid, Gpu]) -> None:
    for text in ids:
        device = parse_device_id(text)
        gpu = gpus.get(device.gpu)
        if gpu is None:
            raise AdmissionError(f"the kubelet chose a device of {device.gpu}, which this node does not have; {_NEXT}")
        if not gpu.healthy:
            raise AdmissionError(
                f"the kubelet chose a device of {device.gpu}, which is unhealthy: {gpu.problem}; {_NEXT}"
            )
        total = gpu.units if resource == RESOURCE_MEMORY else gpu.replicas
        if device.resource != resource or device.number >= total:
            raise AdmissionError(f"{text} is not one of the {amount(total, resource)} of {device.gpu}; {_NEXT}")


def _check_shape(claim: Claim, given: Mapping[GpuUuid, int], gpus: Mapping[GpuUuid, Gpu]) -> None:
    who = f"container {claim.container!r} of pod {claim.pod.key}"
    found = amounts(given, claim.resource)
    if claim.planned:
        if given != claim.planned:
            raise AdmissionError(
                f"{who} is planned with {amounts(claim.planned, claim.resource)}, and the kubelet "
                f"chose {found}; {_NEXT}"
            )
        for uuid, count in given.items():
            gpu, meant = gpus[uuid], claim.units[uuid]
            units = meant if claim.resource == RESOURCE_MEMORY else seat_units_of(gpu, count)
            if units != meant:
                raise AdmissionError(
                    f"{who} is planned with {amount(count, claim.resource)} of {uuid} that were "
                    f"{amount(meant, RESOURCE_MEMORY)} then and are {units} now: it was divided anew, into "
                    f"{gpu.replicas} seats, in between; {_NEXT}"
                )
        return
    share = claim.size // claim.gpus
    if len(given) != claim.gpus or any(count != share for count in given.values()):
        raise AdmissionError(
            f"{who} asks for {amount(share, claim.resource)} on {claim.gpus} of this node's GPUs, and the kubelet "
            f"chose {found}: no {'set of GPUs' if claim.gpus > 1 else 'single GPU'} has so much free; {_NEXT}"
        )
    if claim.replicas is not None and any(gpus[uuid].replicas != claim.replicas for uuid in given):
        raise AdmissionError(
            f"{who} counts in seats of 1/{claim.replicas} GPU, which the GPUs of this node do not have; {_NEXT}"
        )
