"""What a dialect's module finds in a pod, in terms that all dialects share, and how it reads numbers. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import NoReturn

from fracgpu.annotations import MAX_GPUS, MAX_MEMORY_BYTES
from fracgpu.errors import QuantityError, RequestError
from fracgpu.quantities import MIB_BYTES, parse_count, parse_quantity
from webhook.pods import AdmittedContainer, AdmittedPod, limits_of, requests_of
from webhook.policy import Policy
from webhook.seats import whole_seats


@dataclass(frozen=True, slots=True)
class Ask:
    """What one container asks of each of its GPUs: exactly one of memory, a fraction, or a number of seats.

    Attributes:
        gpus: how many different GPUs.
        memory: video memory in MiB.
        fraction: the part of the GPU.
        seats: seats of a GPU, whatever the number of seats it has.
        min_memory: the memory that the GPU must have in all, in MiB; 0 for any.
    """

    gpus: int = 1
    memory: int = 0
    fraction: Fraction = Fraction(0)
    seats: int = 0
    min_memory: int = 0


@dataclass(frozen=True, slots=True)
class Asking:
    """What a pod asks in a dialect.

    Attributes:
        asks: container name -> what it asks.
        foreign: resources that are not to be counted by kube-scheduler any more, in any container.
        annotations: our annotation -> value, for the pod as a whole: which GPUs, which policy.
        schedulers: names of that tool's schedulers, which will not schedule the pod any more.
        warnings: what was left out because the administrator wants it so; for the person who wrote the manifest.
    """

    asks: Mapping[str, Ask]
    foreign: frozenset[str] = frozenset()
    annotations: Mapping[str, str] = field(default_factory=dict)
    schedulers: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()


def asks_of(pod: AdmittedPod, ask: Callable[[AdmittedContainer], Ask | None]) -> dict[str, Ask]:
    """What each container asks, by its name; those that ask for nothing are not here."""
    found = {container.name: ask(container) for _, _, container in pod.listed()}
    return {name: asked for name, asked in found.items() if asked is not None}


def resources_named(pod: AdmittedPod, names: Iterable[str]) -> list[str]:
    """Which of these resources a container of the pod names, even with 0."""
    present = [container for _, _, container in pod.listed()]
    return [name for name in names if any(resources_of(container, (name,)) for container in present)]


def resources_of(container: AdmittedContainer, names: Iterable[str]) -> list[str]:
    """Which of these resources a container names, even with 0."""
    return [name for name in names if name in limits_of(container) or name in requests_of(container)]


def amount_of(container: AdmittedContainer, resource: str, *, meaning: str, most: int = 2**31 - 1) -> int | None:
    """How much a container asks of a foreign resource; None where it does not name it.

    Args:
        container: which has equal limit and request of it, or only one of the two.
        resource: its name.
        meaning: what the number counts, for the sentence: ``the video memory on each GPU in MiB, for example "3000"``.
        most: the largest number that makes sense.

    Raises:
        RequestError: not a whole number from 0 to `most`, or the request differs from the limit.
    """
    limit, request = limits_of(container).get(resource), requests_of(container).get(resource)
    written = request if limit is None else limit
    if written is None:
        return None
    try:
        amount = parse_count(written)
        requested = amount if request is None else parse_count(request)
    except QuantityError:
        amount = requested = -1
    subject = f"container {container.name!r} asks for {resource}: {str(written)[:64]!r}"
    if not 0 <= amount <= most:
        raise RequestError(f"{subject}; it is a whole number from 0 to {most}, {meaning}")
    if amount != requested:
        raise RequestError(
            f"{subject} as its limit and {str(request)[:64]!r} as its request; the two must be equal, so remove the "
            "request"
        )
    return amount


def check_gpus(gpus: int, *, subject: str) -> int:
    """Check a number of GPUs that another tool's manifest names.

    Raises:
        RequestError: none, or more than any node has.
    """
    if not 1 <= gpus <= MAX_GPUS:
        raise RequestError(f"{subject}; it is the number of GPUs, a whole number from 1 to {MAX_GPUS}, for example 1")
    return gpus


def check_memory(mib: int, *, subject: str, example: str) -> int:
    """Check a size of memory in MiB.

    Raises:
        RequestError: none, or more than any GPU has.
    """
    if not 1 <= mib <= MAX_MEMORY_BYTES // MIB_BYTES:
        raise RequestError(
            f"{subject}, which is {'more than any GPU has' if mib else 'nothing'}; the memory of one GPU is from 1 MiB "
            f"to {MAX_MEMORY_BYTES // MIB_BYTES} MiB, for example {example}"
        )
    return mib


def memory_in_mib(text: str, *, subject: str) -> int:
    """Read a Kubernetes quantity of bytes, rounded up to MiB.

    Raises:
        RequestError: it is none, or no size that a GPU could have.
    """
    try:
        size_bytes = parse_quantity(text.strip())
    except QuantityError:
        size_bytes = Fraction(-1)
    if not MIB_BYTES <= size_bytes <= MAX_MEMORY_BYTES:
        raise RequestError(
            f"{subject}; it is video memory, a number with a suffix such as Mi or Gi, from 1Mi to 16Ti, for example "
            '"4Gi"'
        )
    return ceil(size_bytes / MIB_BYTES)


def whole_number(text: str, *, subject: str, allowed: str) -> int:
    """Read a whole number without sign or suffix.

    Raises:
        RequestError: it is none.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise RequestError(f"{subject}; it is {allowed}")
    return int(text)


def part_of(text: str, *, subject: str) -> Fraction:
    """Read a decimal number above 0 and at most 1.

    Raises:
        RequestError: it is none.
    """
    try:
        part = parse_quantity(text)
    except QuantityError:
        part = Fraction(0)
    if not 0 < part <= 1 or not text[-1:].isdigit():
        raise RequestError(f'{subject}; it is the part of a GPU, above 0 and at most 1, for example "0.5"')
    return part


def computing(percent: int, *, memory: int, gpus: int, policy: Policy, subject: str) -> Ask:
    """What a part of a GPU's computing power together with a size of memory comes to: seats, which bring both.

    The GPU has to be so large that this part of its memory is enough.

    Args:
        percent: 1 to 100.
        memory: in MiB, on each GPU; 0 for what comes with the seats.
        gpus: how many.
        policy: whose replicas are the seats.
        subject: who asks for it, as a sentence begins.

    Raises:
        RequestError: it is no whole number of seats.
    """
    part = Fraction(percent, 100)
    seats = computing_seats(part, policy=policy, subject=subject)
    units_per_seat = ceil(Fraction(memory, policy.unit * seats))
    return Ask(gpus=gpus, fraction=part, min_memory=units_per_seat * policy.replicas * policy.unit)


def computing_seats(part: Fraction, *, policy: Policy, subject: str) -> int:
    """The seats that a part of a GPU's computing power comes to.

    Raises:
        RequestError: it is no whole number of seats.
    """
    try:
        return whole_seats(part, replicas=policy.replicas, subject=subject, in_percent=True)
    except RequestError as exc:
        raise RequestError(
            f"{exc}; or ask the administrator to leave computing power out (--compute-shares=ignore of the webhook)"
        ) from exc


def ignored(subject: str) -> str:
    """The warning about computing power that is left out."""
    return f"{subject}, which fracgpu leaves out here: it shares memory, and time in turns without a bound on the part"


def refuse(subject: str, *, why: str, instead: str) -> NoReturn:
    """Refuse what fracgpu cannot give.

    Raises:
        RequestError: always.
    """
    raise RequestError(f"{subject}, which fracgpu cannot give: {why}; {instead}")


def listed(text: str) -> list[str]:
    """The members of a list with commas, without blank ones."""
    return [term for part in text.split(",") if (term := part.strip())]
