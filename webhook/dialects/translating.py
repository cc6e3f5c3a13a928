"""Which dialect a pod is written in, and the same pod in fracgpu's own language. Pure.

A translation leaves a note (`fracgpu.io/understood`) with what the pod said before and what was made of it. By that
note a pod that was translated is taken back to what it was, so that whoever looks again comes to the same; a note that
somebody invents means no more than the manifest that it describes.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Struct

from fracgpu.annotations import key_for, split_key
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
    USER_ANNOTATIONS,
)
from fracgpu.pods import Quantity, Resources
from webhook.dialects import gpu_manager, gpushare, hami, kai, kai_gpu_fractioning, nvidia
from webhook.dialects.asking import Ask, Asking, default_container
from webhook.pods import AdmittedContainer, AdmittedPod, count_of, limits_of, requests_of
from webhook.policy import NvidiaGpu, Policy
from webhook.seats import decimal

NVIDIA: Final = "nvidia"
_DEFAULT_SCHEDULER: Final = "default-scheduler"
_MAX_NAME: Final = 48  # characters of a container's name that an annotation for it has room for
_MODULES: Final = {
    "gpushare": gpushare,
    "hami": hami,
    "kai": kai,
    "kai-gpu-fractioning": kai_gpu_fractioning,
    "gpu-manager": gpu_manager,
}  # dialect -> what reads it
_FOREIGN: Final = frozenset((*gpushare.FOREIGN, *hami.FOREIGN, *gpu_manager.FOREIGN, nvidia.GPU))


class Amounts(Struct, frozen=True, omit_defaults=True):
    """What a container had of foreign resources."""

    limits: dict[str, Quantity] = {}
    requests: dict[str, Quantity] = {}


class Note(Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """The annotation `fracgpu.io/understood`, as JSON.

    Attributes:
        dialect: whose language it was.
        asked: container name -> what was taken out of its resources.
        means: our annotation -> value, as written into the pod.
        seats: container name -> the limit of seats that was written into it, where no annotation says that.
        scheduler_name: what the pod named before; empty where that was left as it was.
    """

    dialect: str
    asked: dict[str, Amounts] = {}
    means: dict[str, str] = {}
    seats: dict[str, int] = {}
    scheduler_name: str = ""


class _Undone(AdmittedPod, frozen=True):
    """A pod that was translated before, taken back to its author's language; the limits that it got then it still has.

    They tell which container was meant, and are compared with what comes out now.
    """

    note: Note = Note("")


@dataclass(frozen=True, slots=True)
class Translation:
    """A pod in our language; `warnings` are for the person who wrote it."""

    pod: AdmittedPod
    warnings: tuple[str, ...] = ()


def undone(pod: AdmittedPod) -> AdmittedPod:
    """The pod as it was before it was translated, perhaps by an earlier call; itself where it was not.

    Raises:
        RequestError: the note is not one of ours, or the pod was changed where it was translated.
    """
    text = pod.annotations.get(ANNOTATION_UNDERSTOOD)
    if text is None:
        return pod
    note = _note(text)
    for key, value in note.means.items():
        if pod.annotations.get(key, value) != value:
            raise RequestError(
                f"annotation {key[:128]} is {pod.annotations[key][:64]!r}, and by annotation {ANNOTATION_UNDERSTOOD} "
                f"it was written as {value[:64]!r} for what the pod said in another language ({note.dialect[:64]}); "
                f"to ask in fracgpu's language, remove {ANNOTATION_UNDERSTOOD}"
            )
    taken = note.means.keys() | {ANNOTATION_UNDERSTOOD}
    annotations = {key: value for key, value in pod.annotations.items() if key not in taken}
    changed = {}
    for _, _, container in pod.listed():
        if (asked := note.asked.get(container.name)) is not None:
            limits, requests = limits_of(container), requests_of(container)
            for key in (*(asked.limits.keys() & limits.keys()), *(asked.requests.keys() & requests.keys())):
                raise RequestError(
                    f"container {container.name!r} asks for {key}, and by annotation {ANNOTATION_UNDERSTOOD} that was "
                    f"taken out of it before; remove {ANNOTATION_UNDERSTOOD}, which only fracgpu writes"
                )
            changed[container.name] = _with_amounts(
                container, limits=limits | asked.limits, requests=requests | asked.requests
            )
    pod = pod.with_annotations(annotations).with_containers(changed)
    pod = _scheduled_by(pod, note.scheduler_name) if note.scheduler_name else pod
    return _Undone(pod.metadata, pod.spec, pod.status, note)


def _note(text: str) -> Note:
    """Read a note; it can put back only what a translation takes out."""
    try:
        note = _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError):
        note = None
    if note is not None:
        amounts = [
            amount for asked in note.asked.values() for amount in (*asked.limits.items(), *asked.requests.items())
        ]
        if all(key in _FOREIGN and count_of(value) is not None for key, value in amounts) and all(
            split_key(key)[0] in USER_ANNOTATIONS for key in note.means
        ):
            return note
    raise RequestError(f"annotation {ANNOTATION_UNDERSTOOD} is {text[:64]!r}; only fracgpu writes it, so remove it")


def translated(pod: AdmittedPod, *, policy: Policy, nvidia_gpu: NvidiaGpu) -> Translation:
    """The pod in our language; itself where it is in no other.

    Raises:
        RequestError: it is in several, cannot be read, or asks what cannot be given.
    """
    before = pod.note if isinstance(pod, _Undone) else None
    pod = AdmittedPod(pod.metadata, pod.spec, pod.status) if before is not None else pod
    readers: dict[str, tuple[list[str], Callable[[], Asking]]] = {}  # dialect -> what is in it, and its reader
    for name, module in _MODULES.items():
        if name in policy.dialects and (signs := module.signs(pod)):
            readers[name] = signs, lambda module=module: module.read(pod, policy=policy)  # type: ignore[misc]
    if nvidia_gpu != "leave" and not hami.signs(pod) and (signs := nvidia.signs(pod)):
        readers[NVIDIA] = signs, lambda: nvidia.read(pod, meaning=nvidia_gpu)
    if not readers:
        return Translation(pod)
    found = [f"{signs[0][:128]} ({name})" for name, (signs, _) in readers.items()]
    _check_one_language(found, _own_signs(pod) if before is None else _own_annotations(pod))
    ((name, (_, read)),) = readers.items()
    asking = read()
    if before is not None:
        _check_one_language(found, _own_signs(pod, apart_from=asking.asks))
    if not asking.asks:  # amounts of 0, which keep a pod from no node
        return Translation(pod)
    return _written(pod, name, asking, policy, before)


def _check_one_language(found: list[str], own: list[str]) -> None:
    found = [*found, f"{own[0][:128]} (fracgpu)"] if own else found
    if len(found) > 1:
        raise RequestError(
            f"the pod asks for GPUs in several languages: {', '.join(found)}; they would contradict each other, so "
            f"keep one of them and remove the others, for example keep {found[0].partition(' ')[0]}"
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


def _written(pod: AdmittedPod, dialect: str, asking: Asking, policy: Policy, before: Note | None) -> Translation:
    means = dict(asking.annotations)
    seats: dict[str, int] = {}
    for name, ask in asking.asks.items():
        _check_holder(pod, name, dialect)
        if len(asking.asks) == 1:
            means |= _annotations(ask)
            # Once named, a container stays named, though it has the limit by now that makes it the default.
            if name != default_container(pod) or (before is not None and ANNOTATION_CONTAINER in before.means):
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
            changed[container.name] = _with_amounts(
                container,
                limits=added | {key: value for key, value in limits.items() if key not in taken.limits},
                requests=added | {key: value for key, value in requests.items() if key not in taken.requests},
            )
    scheduler = pod.spec.scheduler_name if pod.spec.scheduler_name in asking.schedulers else ""
    note = Note(dialect, asked, means, seats, scheduler)
    annotations = pod.annotations | means | {ANNOTATION_UNDERSTOOD: msgspec.json.encode(note).decode()}
    result = pod.with_annotations(annotations).with_containers(changed)
    if scheduler:
        result = _scheduled_by(result, policy.scheduler_name or _DEFAULT_SCHEDULER)
    return Translation(result, asking.warnings)


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


def _with_amounts(
    container: AdmittedContainer, *, limits: dict[str, Quantity], requests: dict[str, Quantity]
) -> AdmittedContainer:
    """The container with these amounts; members that were absent and stay empty stay absent."""
    had = container.resources or Resources()
    resources = Resources(
        limits=None if had.limits is None and not limits else limits,
        requests=None if had.requests is None and not requests else requests,
    )
    return msgspec.structs.replace(container, resources=resources)


def _scheduled_by(pod: AdmittedPod, scheduler: str) -> AdmittedPod:
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, scheduler_name=scheduler))


_decoder = msgspec.json.Decoder(Note)
