"""Which dialect a pod is written in, and the same pod in fracgpu's own language. Pure.

A translation leaves a `Note`, by which whoever looks again comes to the same: see `notes`.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from fracgpu.annotations import key_for
from fracgpu.errors import RequestError
from fracgpu.names import (
    ANNOTATION_CONTAINER,
    ANNOTATION_GPU_COUNT,
    ANNOTATION_GPU_FRACTION,
    ANNOTATION_GPU_MEMORY,
    ANNOTATION_MIN_GPU_MEMORY,
    ANNOTATION_UNDERSTOOD,
    DOMAIN,
    RESOURCE_MEMORY,
    RESOURCE_REPLICA,
)
from fracgpu.pods import Quantity
from webhook.dialects import gpu_manager, gpushare, hami, kai, kai_gpu_fractioning, nvidia
from webhook.dialects.asking import Ask, Asking
from webhook.dialects.notes import GO_ON, Amounts, Note
from webhook.pods import (
    DEFAULT_SCHEDULER,
    AdmittedContainer,
    AdmittedPod,
    count_of,
    limits_of,
    requests_of,
    with_amounts,
)
from webhook.policy import NvidiaGpu, Policy
from webhook.seats import decimal

NVIDIA: Final = "nvidia"
_MAX_NAME: Final = 48  # characters of a container's name that an annotation for it has room for
_MODULES: Final = {
    "gpushare": gpushare,
    "hami": hami,
    "kai": kai,
    "kai-gpu-fractioning": kai_gpu_fractioning,
    "gpu-manager": gpu_manager,
}  # dialect -> what reads it
_BY_RESOURCE: Final = {"gpushare": gpushare, "hami": hami, "gpu-manager": gpu_manager}  # no sign without a resource


@dataclass(frozen=True, slots=True)
class Translation:
    """A pod in our language.

    Attributes:
        pod: the pod.
        origin: what it was translated from, for sentences about what it came to; empty where it was not.
        warnings: for the person who wrote it.
        dialect: the name of the language that it was in; empty where it was not translated.
    """

    pod: AdmittedPod
    origin: str = ""
    warnings: tuple[str, ...] = ()
    dialect: str = ""


def translated(pod: AdmittedPod, *, before: Note | None, policy: Policy, nvidia_gpu: NvidiaGpu) -> Translation:
    """The pod in our language; itself where it is in no other.

    Args:
        pod: in its author's language; where it was translated before, it still has the limits that it got then, which
            tell the container that was meant, and are compared with what comes out now.
        before: the note of that translation.
        policy: which dialects are understood, and how.
        nvidia_gpu: what plain ``nvidia.com/gpu`` means.

    Raises:
        RequestError: it is in several, cannot be read, or asks what cannot be given.
    """
    readers: dict[str, tuple[list[str], Callable[[], Asking]]] = {}  # dialect -> what is in it, and its reader
    for name, module in _MODULES.items():
        if name in policy.dialects and (signs := module.signs(pod)):
            readers[name] = signs, lambda module=module: module.read(pod, policy=policy)  # type: ignore[misc]
    own = _own_signs(pod) if before is None else _own_annotations(pod)
    # What is left alone is left to NVIDIA's plugin, and two plugins cannot serve one pod.
    if (nvidia_gpu != "leave" or readers or own) and not hami.signs(pod) and (signs := nvidia.signs(pod)):
        readers[NVIDIA] = signs, lambda: nvidia.read(pod, meaning="seat" if nvidia_gpu == "seat" else "whole")
    if before is not None and before.dialect not in readers:
        is_read = before.dialect in (*policy.dialects, NVIDIA)
        raise _orphaned(before, "nothing in it does any more" if is_read else "that language is not understood here")
    found = [f"{signs[0][:128]} ({name})" for name, (signs, _) in readers.items()]
    if readers or own:
        # A resource of a tool that runs beside us is served by that tool, and two cannot serve one pod.
        found += [
            f"{signs[0][:128]} ({name})"
            for name, module in _BY_RESOURCE.items()
            if name not in policy.dialects and (signs := module.signs(pod))
        ]
    _check_one_language(found, own)
    if not readers:
        return Translation(pod)
    ((name, (signs, read)),) = readers.items()
    asking = read()
    if before is not None:
        _check_one_language(found, _own_signs(pod, apart_from=asking.asks))
    if not asking.asks:  # amounts of 0, which keep a pod from no node
        if before is not None:
            raise _orphaned(before, "nothing in it does any more")
        return Translation(pod)
    result = _written(pod, name, asking, policy, before)
    return Translation(result, f"{signs[0][:128]} ({name})", asking.warnings, dialect=name)


def _orphaned(before: Note, why: str) -> RequestError:
    return RequestError(
        f"annotation {ANNOTATION_UNDERSTOOD} says that the pod asked for GPUs in another language "
        f"({before.dialect[:64]}), and {why}; {GO_ON}"
    )


def _check_one_language(found: list[str], own: list[str]) -> None:
    found = [*found, f"{own[0][:128]} (fracgpu)"] if own else found
    if len(found) > 1:
        raise RequestError(
            f"the pod asks for GPUs in several languages: {', '.join(found)}; they would contradict each other, so "
            f"keep one of them and remove the others, for example keep {found[-1 if own else 0].partition(' ')[0]}"
        )


def _own_signs(pod: AdmittedPod, *, apart_from: Container[str] = ()) -> list[str]:
    """What in the pod asks for a GPU in our own language; limits of some containers do not count."""
    limited = [container for _, _, container in pod.listed() if container.name not in apart_from]
    found = [
        key
        for container in limited
        for key in (RESOURCE_MEMORY, RESOURCE_REPLICA)
        if key in limits_of(container) or key in requests_of(container)
    ]
    return _own_annotations(pod) + found


def _own_annotations(pod: AdmittedPod) -> list[str]:
    return [key for key in pod.annotations if key.startswith(f"{DOMAIN}/")]


def _written(pod: AdmittedPod, dialect: str, asking: Asking, policy: Policy, before: Note | None) -> AdmittedPod:
    means = dict(asking.annotations)
    seats: dict[str, int] = {}
    for name, ask in asking.asks.items():
        _check_holder(pod, name, dialect)
        if len(asking.asks) == 1:
            means |= _annotations(ask)
            # Once named, a container stays named, though it has the limit by now that makes it the default.
            if name != pod.default_holder() or (before is not None and ANNOTATION_CONTAINER in before.means):
                means[ANNOTATION_CONTAINER] = name
        else:
            _check_name(name)
            means |= {key_for(key, name): value for key, value in _annotations(ask).items()}
        if ask.seats:
            seats[name] = ask.gpus * ask.seats
    asked: dict[str, Amounts] = {}
    changed: dict[str, AdmittedContainer] = {}
    for _, _, container in pod.listed():
        limits, requests = limits_of(container), requests_of(container)
        taken = Amounts(
            {key: value for key, value in limits.items() if key in asking.foreign},
            {key: value for key, value in requests.items() if key in asking.foreign},
        )
        added = _seats_of(container, seats)
        if taken.limits or taken.requests:
            asked[container.name] = taken
            changed[container.name] = with_amounts(
                container,
                limits=added | {key: value for key, value in limits.items() if key not in taken.limits},
                requests=added | {key: value for key, value in requests.items() if key not in taken.requests},
            )
    is_theirs = pod.spec.scheduler_name in asking.schedulers
    scheduler = pod.spec.scheduler_name if is_theirs else before.scheduler_name if before is not None else ""
    note = Note(dialect, asked, means, seats, scheduler)
    annotations = pod.annotations | means | {ANNOTATION_UNDERSTOOD: msgspec.json.encode(note).decode()}
    result = pod.with_annotations(annotations).with_containers(changed)
    if is_theirs:
        spec = msgspec.structs.replace(result.spec, scheduler_name=policy.scheduler_name or DEFAULT_SCHEDULER)
        result = msgspec.structs.replace(result, spec=spec)
    return result


def _seats_of(container: AdmittedContainer, seats: Mapping[str, int]) -> dict[str, Quantity]:
    """The limit of seats that no annotation says; one that is there from an earlier call has to be the same."""
    amount = seats.get(container.name)
    if amount is None:
        return {}
    written = limits_of(container).get(RESOURCE_REPLICA)
    if written is not None and count_of(written) != amount:
        raise RequestError(
            f"container {container.name!r} has the limit {RESOURCE_REPLICA}: {str(written)[:64]!r}, and by annotation "
            f"{ANNOTATION_UNDERSTOOD} it is {amount}; remove the annotation, which only fracgpu writes, or the limit"
        )
    return {RESOURCE_REPLICA: str(amount)}


def _annotations(ask: Ask) -> dict[str, str]:
    found = {}
    if ask.memory:
        found[ANNOTATION_GPU_MEMORY] = f"{ask.memory}Mi"
    if ask.fraction:
        found[ANNOTATION_GPU_FRACTION] = decimal(ask.fraction)
    if ask.gpus > 1:
        found[ANNOTATION_GPU_COUNT] = str(ask.gpus)
    if ask.min_memory:
        found[ANNOTATION_MIN_GPU_MEMORY] = f"{ask.min_memory}Mi"
    return found


def _check_holder(pod: AdmittedPod, name: str, dialect: str) -> None:
    """Say it of what the author wrote: the annotations that would be refused are not his."""
    if any(c.name == name and not c.is_sidecar for c in pod.init_containers):
        raise RequestError(
            f"init container {name[:64]!r} asks for a GPU ({dialect}), and an init container cannot hold a share of a "
            "GPU, because Kubernetes hands it on to the app containers in pieces. Ask for it in an app container, or "
            "make this one a sidecar (restartPolicy: Always)"
        )


def _check_name(name: str) -> None:
    if len(name) > _MAX_NAME:
        raise RequestError(
            f"container {name[:64]!r} asks for a GPU beside others, and its name has more than {_MAX_NAME} characters, "
            f"for which an annotation has no room; give it a shorter name, or ask by the limit {RESOURCE_MEMORY}"
        )
