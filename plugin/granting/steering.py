"""Which device IDs the kubelet should choose: exactly the plan's, or without a plan the best fit. Pure.

The kubelet follows the answer to the letter (seen on Kubernetes 1.36); where it cannot, `Allocate` refuses.
"""

from collections.abc import Iterable, Mapping

from fracgpu.device_ids import DeviceId, count_by_gpu, parse_device_id
from fracgpu.names import GpuUuid
from plugin.granting.admission import AdmissionError
from plugin.granting.wording import amount, amounts


def planned_ids(
    available: Iterable[str], must_include: Iterable[str], planned: Mapping[GpuUuid, int], *, resource: str
) -> tuple[str, ...]:
    """The IDs that follow a plan exactly: on each GPU those that must be in it, then those with the lowest numbers.

    Args:
        available: the IDs that the kubelet offers; those that must be included are among them.
        must_include: IDs that have to be in the answer.
        planned: GPU -> how many IDs on it.
        resource: what they count.

    Raises:
        AdmissionError: the plan cannot be followed; says on which GPU and by how many.
        DeviceIdError: an ID is not of fracgpu's making.
    """
    must = {parse_device_id(text) for text in must_include}
    # There may be thousands, and those of other GPUs are of no interest.
    prefixes = tuple(f"{gpu}::" for gpu in planned)
    offered = _by_gpu({parse_device_id(text) for text in available if text.startswith(prefixes)} | must)
    forced = _by_gpu(must)
    chosen: list[DeviceId] = []
    for gpu, wanted in planned.items():
        here = sorted(offered.get(gpu, ()), key=lambda device: (device not in must, device.number))
        if len(here) < wanted:
            raise AdmissionError(
                f"the pod is planned on {gpu} with {amount(wanted, resource)}, and the kubelet has "
                f"{amount(len(here), resource)} of it left: other pods hold the rest"
            )
        chosen += here[:wanted]
    unplanned = sorted(gpu for gpu, ids in forced.items() if len(ids) > planned.get(gpu, 0))
    if unplanned:
        raise AdmissionError(
            f"the kubelet insists on devices of {', '.join(unplanned)}, beyond the pod's plan "
            f"({amounts(planned, resource)}): something other than fracgpu decides about this node's devices"
        )
    return tuple(map(str, chosen))


def best_fit(
    available: Iterable[str],
    must_include: Iterable[str],
    *,
    gpus: int,
    per_gpu: int,
    room: Mapping[GpuUuid, int],
    resource: str,
) -> dict[GpuUuid, int]:
    """Choose GPUs for a pod without a plan: those that will have the least room left, each for the whole of one share.

    Args:
        available: the IDs that the kubelet offers.
        must_include: IDs that have to be in the answer; their GPUs come first.
        gpus: how many different GPUs.
        per_gpu: how many IDs on each.
        room: GPU -> how many more IDs of this resource its memory has room for; GPUs that must not be used are absent.
        resource: what they count.

    Returns:
        GPU -> how many IDs on it.

    Raises:
        AdmissionError: too few GPUs have room for one share each; says how much the largest has.
        DeviceIdError: an ID is not of fracgpu's making.
    """
    offered = count_by_gpu({*available, *must_include})
    forced = count_by_gpu(must_include)
    free = {gpu: min(count, room.get(gpu, 0)) for gpu, count in offered.items()}
    fitting = [gpu for gpu, count in free.items() if count >= per_gpu]
    if len(fitting) < gpus:
        where = "one GPU" if gpus == 1 else f"each of {gpus} GPUs"
        raise AdmissionError(
            f"the pod asks for {amount(per_gpu, resource)} on {where} of this node, and only {len(fitting)} of them "
            f"can give so much; the most that is free on one GPU is {amount(max(free.values(), default=0), resource)}"
        )
    fitting.sort(key=lambda gpu: (gpu not in forced, free[gpu], gpu))
    return dict.fromkeys(fitting[:gpus], per_gpu)


def _by_gpu(devices: Iterable[DeviceId]) -> dict[GpuUuid, list[DeviceId]]:
    found: dict[GpuUuid, list[DeviceId]] = {}
    for device in devices:
        found.setdefault(device.gpu, []).append(device)
    return found
