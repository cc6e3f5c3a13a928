"""Which dialect a pod is written in, and the same pod in fracgpu's own language. Pure.

A translation leaves a note (`fracgpu.io/understood`) with what the pod said before and what was made of it. By that
note a pod that was translated is taken back to what it was, so that whoever looks again comes to the same; a note that
somebody invents means no more than the manifest that it describes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Struct

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
from webhook.pods import AdmittedContainer, AdmittedPod, limits_of, requests_of, with_amounts
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


@dataclass(frozen=True, slots=True)
class Translation:
    """A pod in our language; `warnings` are for the person who wrote it."""

    pod: AdmittedPod
    warnings: tuple[str, ...] = ()


def undone(pod: AdmittedPod) -> AdmittedPod:
    """The pod as it was before it was translated, perhaps by an earlier call; itself where it was not.

    Raises:
        RequestError: the note is not one of ours.
    """
    text = pod.annotations.get(ANNOTATION_UNDERSTOOD)
    if text is None:
        return pod
    try:
        note = _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise RequestError(
            f"annotation {ANNOTATION_UNDERSTOOD} is {text[:64]!r}; only fracgpu writes it, so remove it"
        ) from exc
    written = {**note.means, ANNOTATION_UNDERSTOOD: text}
    annotations = {key: value for key, value in pod.annotations.items() if written.get(key) != value}
    changed = {}
    for _, _, container in pod.listed():
        asked = note.asked.get(container.name)
        seats = note.seats.get(container.name)
        if asked is not None or seats is not None:
            asked = asked or Amounts()
            ours = {RESOURCE_REPLICA} if seats is not None else set()
            changed[container.name] = with_amounts(
                container,
                limits={k: v for k, v in limits_of(container).items() if k not in ours} | asked.limits,
                requests={k: v for k, v in requests_of(container).items() if k not in ours} | asked.requests,
            )
    pod = pod.with_annotations(annotations).with_containers(changed)
    return _scheduled_by(pod, note.scheduler_name) if note.scheduler_name else pod


def translated(pod: AdmittedPod, *, policy: Policy, nvidia_gpu: NvidiaGpu) -> Translation:
    """The pod in our language; itself where it is in no other.

    Raises:
        RequestError: it is in several, cannot be read, or asks what cannot be given.
    """
    readers: dict[str, tuple[list[str], Callable[[], Asking]]] = {}  # dialect -> what is in it, and its reader
    for name, module in _MODULES.items():
        if name in policy.dialects and (signs := module.signs(pod)):
            readers[name] = signs, lambda module=module: module.read(pod, policy=policy)  # type: ignore[misc]
    if nvidia_gpu != "leave" and not readers and (signs := nvidia.signs(pod)):
        readers[NVIDIA] = signs, lambda: nvidia.read(pod, meaning=nvidia_gpu)
    if not readers:
        return Translation(pod)
    own = _own_signs(pod)
    if len(readers) > 1 or own:
        found = [f"{signs[0][:128]} ({name})" for name, (signs, _) in readers.items()]
        found += [f"{own[0][:128]} (fracgpu)"] if own else []
        raise RequestError(
            f"the pod asks for GPUs in several languages: {', '.join(found)}; they would contradict each other, so "
            f"keep one of them and remove the others, for example keep {found[0].partition(' ')[0]}"
        )
    ((name, (_, read)),) = readers.items()
    return _written(pod, name, read(), policy)


def _own_signs(pod: AdmittedPod) -> list[str]:
    """What in the pod asks for a GPU in our own language."""
    found = [key for key in pod.annotations if key.startswith(f"{DOMAIN}/")]
    for _, _, container in pod.listed():
        amounts = {**limits_of(container), **requests_of(container)}
        found += [key for key in (RESOURCE_MEMORY, RESOURCE_REPLICA) if key in amounts]
    return found


def _written(pod: AdmittedPod, dialect: str, asking: Asking, policy: Policy) -> Translation:
    means = dict(asking.annotations) if asking.asks else {}
    seats: dict[str, int] = {}
    first_app = next((container.name for container in pod.containers), "")
    for name, ask in asking.asks.items():
        if len(asking.asks) == 1:
            means |= _annotations(ask)
            if name != first_app:
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
        added: dict[str, Quantity] = {RESOURCE_REPLICA: str(seats[container.name])} if container.name in seats else {}
        if taken.limits or taken.requests:
            asked[container.name] = taken
            changed[container.name] = with_amounts(
                container,
                limits={key: value for key, value in limits.items() if key not in taken.limits} | added,
                requests={key: value for key, value in requests.items() if key not in taken.requests} | added,
            )
    scheduler = pod.spec.scheduler_name if asking.asks and pod.spec.scheduler_name in asking.schedulers else ""
    note = Note(dialect, asked, means, seats, scheduler)
    annotations = pod.annotations | means | {ANNOTATION_UNDERSTOOD: msgspec.json.encode(note).decode()}
    result = pod.with_annotations(annotations).with_containers(changed)
    if scheduler:
        result = _scheduled_by(result, policy.scheduler_name or _DEFAULT_SCHEDULER)
    return Translation(result, asking.warnings)


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


def _check_name(name: str) -> None:
    if len(name) > _MAX_NAME:
        raise RequestError(
            f"container {name[:64]!r} asks for a GPU beside others, and its name has more than {_MAX_NAME} characters, "
            f"for which an annotation has no room; give it a shorter name, or ask by the limit {RESOURCE_MEMORY}"
        )


def _scheduled_by(pod: AdmittedPod, scheduler: str) -> AdmittedPod:
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, scheduler_name=scheduler))


_decoder = msgspec.json.Decoder(Note)
