"""KAI scheduler (and run:ai before it): annotations without a domain, for one container of the pod.

Source: KAI-Scheduler, pkg/common/constants/constants.go and
pkg/binder/plugins/gpusharing/gpu-request/gpu_request_validator.go.
"""

from fractions import Fraction
from typing import Final, NoReturn

from fracgpu.annotations import MAX_GPUS
from fracgpu.errors import RequestError
from webhook.dialects.asking import (
    Ask,
    Asking,
    check_gpus,
    check_memory,
    memory_in_mib,
    part_of,
    refuse,
    whole_number,
)
from webhook.pods import AdmittedPod
from webhook.policy import Policy
from webhook.seats import whole_seats

MEMORY: Final = "gpu-memory"
FRACTION: Final = "gpu-fraction"
COUNT: Final = "gpu-fraction-num-devices"
CONTAINER: Final = "gpu-fraction-container-name"
MEMORY_LIMIT: Final = "gpu-memory.limit"
FRACTION_LIMIT: Final = "gpu-fraction.limit"
_REFINEMENTS: Final = (COUNT, CONTAINER)
ANNOTATIONS: Final = (MEMORY, FRACTION, MEMORY_LIMIT, FRACTION_LIMIT, *_REFINEMENTS)
"""What tells the dialect."""
_MPS: Final = "mps"
_MODE: Final = "kai.scheduler/gpu-compute-sharing-mode"
_PORTIONS: Final = "kai.scheduler/container."
SCHEDULERS: Final = frozenset({"kai-scheduler", "runai-scheduler"})
_NEWER: Final = "nvidia.com/container."  # see kai_gpu_fractioning, to which the refinements then belong


def signs(pod: AdmittedPod) -> list[str]:
    """What in the pod is in this dialect."""
    found: list[str] = [key for key in (MEMORY, FRACTION, MEMORY_LIMIT, FRACTION_LIMIT) if key in pod.annotations]
    if found or not any(key.startswith(_NEWER) for key in pod.annotations):
        found += [key for key in _REFINEMENTS if key in pod.annotations]
    return found


def read(pod: AdmittedPod, *, policy: Policy) -> Asking:
    """Read what the pod asks.

    Raises:
        RequestError: it cannot be read or given.
    """
    notes = pod.annotations
    check_others(pod)
    gpus = number_of_gpus(pod)
    subjects = {key: f"annotation {key} is {notes[key][:64]!r}" for key in (MEMORY, FRACTION) if key in notes}
    if len(subjects) > 1:
        raise RequestError(
            f"{subjects[MEMORY]} and {subjects[FRACTION]}; a share has one size, so keep one of them, for example "
            f'{MEMORY}: "2000"'
        )
    if not subjects:
        raise RequestError(
            f"annotation {signs(pod)[0]} is set, and nothing says how much of a GPU the pod wants; add {MEMORY} (MiB) "
            f'or {FRACTION}, for example {MEMORY}: "2000"'
        )
    if MEMORY in notes:
        allowed = 'the video memory in MiB, a whole number above 0, for example "2000"'
        memory = whole_number(notes[MEMORY], subject=subjects[MEMORY], allowed=allowed)
        check_memory(memory, subject=subjects[MEMORY], example=f'{MEMORY}: "2000"')
        ask = Ask(gpus=gpus, memory=memory)
    else:
        part = part_of(notes[FRACTION], subject=subjects[FRACTION])
        whole_seats(part, replicas=policy.replicas, subject=subjects[FRACTION])
        ask = Ask(gpus=gpus, fraction=part)
    _check_no_burst(pod, ask)
    return Asking({container_of(pod): ask}, schedulers=SCHEDULERS)


def check_others(pod: AdmittedPod) -> None:
    """Check that a pod that asks for a share asks for nothing of KAI's that cannot be given with it.

    Raises:
        RequestError: it does.
    """
    for key, text in pod.annotations.items():
        subject = f"annotation {key[:128]} is {text[:64]!r}"
        if key == _MPS and text == "true":
            refuse(subject, why="whether a node uses MPS is set for the node", instead="remove the annotation")
        if key == _MODE:
            check_mode(text, subject=subject)
        if key.startswith(_PORTIONS):
            refuse_burst(subject)


def number_of_gpus(pod: AdmittedPod) -> int:
    """On how many GPUs the share is asked for.

    Raises:
        RequestError: it cannot be read.
    """
    text = pod.annotations.get(COUNT)
    if text is None:
        return 1
    subject = f"annotation {COUNT} is {text[:64]!r}"
    allowed = f'the number of GPUs, a whole number from 1 to {MAX_GPUS}, for example "2"'
    return check_gpus(whole_number(text, subject=subject, allowed=allowed), subject=subject)


def container_of(pod: AdmittedPod) -> str:
    """The container that gets the share; KAI's default is the first one.

    Raises:
        RequestError: there is none of that name.
    """
    names = [container.name for _, _, container in pod.listed()]
    if not pod.containers:
        raise RequestError("the pod has no container that could hold a share of a GPU; add one to spec.containers")
    name = pod.annotations.get(CONTAINER, pod.default_holder())
    if name not in names:
        raise RequestError(
            f"annotation {CONTAINER} is {name[:64]!r}, which is no container of this pod; it is one of "
            f'{", ".join(map(repr, names[:10]))}, for example "{names[0]}"'
        )
    return name


def _check_no_burst(pod: AdmittedPod, ask: Ask) -> None:
    """A limit above the request is memory that may be used while nobody else wants it."""
    for key, wanted in ((MEMORY_LIMIT, Fraction(ask.memory)), (FRACTION_LIMIT, ask.fraction)):
        text = pod.annotations.get(key)
        if text is None:
            continue
        subject = f"annotation {key} is {text[:64]!r}"
        if key == MEMORY_LIMIT:
            limit = Fraction(memory_in_mib(text, subject=subject))
        else:
            limit = part_of(text, subject=subject)
        if limit != wanted:
            refuse_burst(subject)


def check_mode(text: str, *, subject: str) -> None:
    """Check how containers on one GPU are to share its computing power.

    Raises:
        RequestError: not by taking turns.
    """
    if text.strip() != "time-slicing":
        refuse(
            subject,
            why="containers on one GPU take turns, or as the administrator has set it for the node",
            instead='remove the annotation, or use "time-slicing"',
        )


def refuse_burst(subject: str) -> NoReturn:
    """Refuse a limit that differs from the request.

    Raises:
        RequestError: always.
    """
    refuse(
        f"{subject} and differs from what is requested",
        why="a share is as large as it is, and does not grow while others leave room",
        instead="make the limit equal to the request, or remove it",
    )
