"""Turn a pod's annotations into the limits that kube-scheduler and the kubelet count.

A pure decision on plain data. How it becomes a patch is in `patches`; what a pod may not contain whatever its
annotations say is in `checks`; what the finished limits mean is read by `fracgpu.requests`, as everywhere else.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Final

import msgspec

from fracgpu.errors import QuantityError, RequestError
from fracgpu.names import (
    ANNOTATION_CONTAINER,
    ANNOTATION_GPU_COUNT,
    ANNOTATION_GPU_FRACTION,
    ANNOTATION_GPU_MEMORY,
    RESOURCE_MEMORY,
    RESOURCE_REPLICA,
)
from fracgpu.pods import Quantity, Resources
from fracgpu.quantities import Mib, parse_quantity, units_for
from fracgpu.requests import parse_fraction, parse_gpu_count
from webhook.checks import check_finished, check_names
from webhook.pods import AdmittedContainer, AdmittedPod, ContainerField, count_of, limits_of, requests_of
from webhook.policy import MAX_MEMORY_BYTES, MIN_MEMORY_BYTES, Policy

_MAX_LISTED: Final = 10
_FORGOTTEN_SUFFIX: Final = re.compile(r"[1-9]\d{0,6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that a container is to have, and the place of that container in the pod.

    Attributes:
        field: the list that holds the container.
        index: its place in that list.
        container: the container as it came in.
        resource: the extended resource.
        amount: in units or seats, over all GPUs of the container.
    """

    field: ContainerField
    index: int
    container: AdmittedContainer
    resource: str
    amount: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What to answer.

    Attributes:
        refusal: why the pod is refused, for the person who wrote it; empty for a pod that is let in.
        limit: what to write into the pod; None where it stays as it is.
    """

    refusal: str = ""
    limit: Limit | None = None


def mutate(pod: AdmittedPod, *, policy: Policy) -> Decision:
    """Decide on a pod that is about to be created. Any pod gets a decision; nothing is raised."""
    try:
        check_names(pod)
        limit = _asked(pod, policy)
        finished = pod if limit is None else _with_limit(pod, limit)
        check_finished(finished, policy=policy)
    except RequestError as exc:
        return Decision(refusal=str(exc))
    return Decision(limit=None if finished == pod else limit)


def _asked(pod: AdmittedPod, policy: Policy) -> Limit | None:
    """The limit that the annotations ask for; None where they name no size."""
    memory = pod.annotations.get(ANNOTATION_GPU_MEMORY)
    fraction = pod.annotations.get(ANNOTATION_GPU_FRACTION)
    if memory is not None and fraction is not None:
        raise RequestError(
            f"annotations {ANNOTATION_GPU_MEMORY} ({memory[:64]!r}) and {ANNOTATION_GPU_FRACTION} ({fraction[:64]!r}) "
            f'are both set; a share has one size, so keep one of them, for example {ANNOTATION_GPU_MEMORY}: "4Gi"'
        )
    if memory is not None:
        resource, share = RESOURCE_MEMORY, _units(memory, unit=policy.unit)
    elif fraction is not None:
        resource, share = RESOURCE_REPLICA, _seats(fraction, replicas=policy.replicas)
    else:
        return None
    gpus = parse_gpu_count(pod.annotations.get(ANNOTATION_GPU_COUNT, "1"))
    field, index, container = _target(pod, resource)
    return Limit(field, index, container, resource, gpus * share)


def _units(text: str, *, unit: Mib) -> int:
    """Units on each GPU, rounded up."""
    try:
        size_bytes = parse_quantity(text.strip())
    except QuantityError:
        found = ""
    else:
        if MIN_MEMORY_BYTES <= size_bytes <= MAX_MEMORY_BYTES:
            return units_for(size_bytes, unit=unit)
        found = ", which is more than any GPU has" if size_bytes > MAX_MEMORY_BYTES else ", which is less than 1 MiB"
    example = f"{text.strip()}Mi" if _FORGOTTEN_SUFFIX.fullmatch(text.strip()) else "4Gi"
    raise RequestError(
        f"annotation {ANNOTATION_GPU_MEMORY} is {text[:64]!r}{found}; it is the video memory on each GPU, a number "
        f'with a suffix such as Mi, Gi, M or G, from 1Mi to 16Ti, for example "{example}"'
    )


def _seats(text: str, *, replicas: int) -> int:
    """Seats on each GPU: a fraction has to be a whole number of them."""
    fraction = parse_fraction(text)
    exact = fraction * replicas
    if exact.denominator == 1:
        return int(exact)
    steps = _decimal_steps(replicas)
    if steps <= _MAX_LISTED:
        allowed = "one of " + ", ".join(_decimal(Fraction(step, steps)) for step in range(1, steps + 1))
    else:
        allowed = f"a multiple of {_decimal(Fraction(1, steps))}"
    beyond = "" if steps == replicas else f" (for other numbers of seats write the limit {RESOURCE_REPLICA} yourself)"
    raise RequestError(
        f"annotation {ANNOTATION_GPU_FRACTION} is {text[:64]!r}, which is no whole number of the {replicas} seats of "
        f'a GPU; it is {allowed}{beyond}, for example "{_decimal(Fraction(ceil(fraction * steps), steps))}"'
    )


def _decimal_steps(replicas: int) -> int:
    """The largest divisor of R whose parts a decimal number can write: a third it cannot."""
    steps = 1
    for prime in (2, 5):
        while replicas % prime == 0:
            replicas //= prime
            steps *= prime
    return steps


def _decimal(fraction: Fraction) -> str:
    return f"{Decimal(fraction.numerator) / Decimal(fraction.denominator):f}"


def _target(pod: AdmittedPod, resource: str) -> tuple[ContainerField, int, AdmittedContainer]:
    """The container that gets the limit: the named one, or else the first app container.

    One that has such a limit goes before: another webhook may have put a container in front since we wrote it.
    """
    if not pod.containers:
        raise RequestError("the pod has no container that could hold a share of a GPU; add one to spec.containers")
    places = [place for place in pod.listed() if place[0] == "containers" or place[2].is_sidecar]
    name = pod.annotations.get(ANNOTATION_CONTAINER)
    if name is None:
        apps = [place for place in places if place[0] == "containers"]
        return next((place for place in apps if resource in limits_of(place[2])), apps[0])
    for place in places:
        if name and place[2].name == name:
            return place
    names = [container.name for _, _, container in places]
    ordinary = any(container.name == name for container in pod.init_containers)
    raise RequestError(
        f"annotation {ANNOTATION_CONTAINER} is {name[:64]!r}, which is "
        f"{'an init container that ends before the app starts' if ordinary else 'no container of this pod'}; it is "
        f'one of {", ".join(map(repr, names[:_MAX_LISTED]))}, for example "{names[0]}"'
    )


def _with_limit(pod: AdmittedPod, limit: Limit) -> AdmittedPod:
    """The pod as it will be; an amount that is there already is kept, and must be the same.

    Raises:
        RequestError: the container has another limit of that resource.
    """
    limits = limits_of(limit.container)
    written = limits.get(limit.resource)
    if written is not None and count_of(written) != limit.amount:
        by = ANNOTATION_GPU_MEMORY if limit.resource == RESOURCE_MEMORY else ANNOTATION_GPU_FRACTION
        raise RequestError(
            f"container {limit.container.name!r} has the limit {limit.resource}: {str(written)[:64]!r}, but annotation "
            f"{by} {pod.annotations[by][:64]!r} makes it {limit.amount}; remove one of the two, for example the limit"
        )
    amounts: dict[str, Quantity] = {limit.resource: str(limit.amount)}
    after = msgspec.structs.replace(
        limit.container,
        resources=Resources(limits=amounts | limits, requests=amounts | requests_of(limit.container)),
    )
    name = "containers" if limit.field == "containers" else "init_containers"
    containers = [after if container is limit.container else container for container in getattr(pod.spec, name)]
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, **{name: tuple(containers)}))
