"""What a pod may not contain, whoever writes its limits: each refusal names the field, what was found and the remedy.

Pure. `check_names` reads the pod as its author wrote it; the others read it with the limits that it is to have.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fractions import Fraction
from typing import Final

from fracgpu.annotations import MAX_MEMORY_BYTES, PodAnnotations, has_size, split_key
from fracgpu.errors import RequestError
from fracgpu.names import (
    ANNOTATION_ALLOCATION,
    ANNOTATION_CONTAINER,
    ANNOTATION_GPU_COUNT,
    ANNOTATION_GPU_FRACTION,
    ANNOTATION_GPU_MEMORY,
    DOMAIN,
    PER_CONTAINER_ANNOTATIONS,
    RESOURCE_MEMORY,
    RESOURCE_REPLICA,
    SIZE_ANNOTATIONS,
    USER_ANNOTATIONS,
)
from fracgpu.pods import Container, Quantity
from fracgpu.quantities import MIB_BYTES, format_mib
from fracgpu.requests import MAX_SEATS, ContainerRequest, PodRequest
from webhook.pods import AdmittedPod, count_of, limits_of, requests_of
from webhook.policy import Policy, Rules
from webhook.seats import decimal

_RESOURCES: Final = (RESOURCE_MEMORY, RESOURCE_REPLICA)


def check_names(pod: AdmittedPod) -> None:
    """Refuse what is in fracgpu's domain and unknown, or not for users to write.

    Raises:
        RequestError: an annotation or a resource name.
    """
    if ANNOTATION_ALLOCATION in pod.annotations:
        raise RequestError(
            f"annotation {ANNOTATION_ALLOCATION} is set, and only fracgpu writes it, when it binds the pod; remove it "
            f'and ask by {ANNOTATION_GPU_MEMORY}, for example "4Gi"'
        )
    for key in pod.annotations:
        if key[: len(DOMAIN) + 1].lower() == f"{DOMAIN}/":  # Kubernetes takes capitals too, and nothing would read them
            _check_annotation(key)
    for _, _, container in pod.listed():
        for key in _unknown({**limits_of(container), **requests_of(container)}, _RESOURCES):
            raise RequestError(
                f"container {container.name!r} asks for the resource {key[:128]!r}, which fracgpu does not have; "
                f'{_allowed(key, _RESOURCES)}, for example {RESOURCE_MEMORY}: "8"'
            )


def check_finished(pod: AdmittedPod, request: PodRequest | None, *, policy: Policy, rules: Rules) -> None:
    """Refuse a request that contradicts itself, or is more than the namespace may ask.

    Args:
        pod: with the limits that it is to have.
        request: what they ask; None for no GPU.
        policy: the cluster's counting.
        rules: what holds in the namespace.

    Raises:
        RequestError: for the first thing that is wrong.
    """
    for _, _, container in pod.listed():
        _check_requests_equal_limits(container)
    _check_annotations_apply(pod, request)
    if request is not None:
        for share in request.containers:
            _check_size(share, policy)
            _check_maximum(share, policy, rules)
        _check_count(request, rules)


def _check_annotation(key: str) -> None:
    prefix = f"{DOMAIN}/"
    name, container = split_key(prefix + key[len(prefix) :])
    if name not in USER_ANNOTATIONS or not key.startswith(prefix):
        raise RequestError(
            f"annotation {key[:128]!r} is not one that fracgpu knows; {_allowed(name, USER_ANNOTATIONS)}, for example "
            f'{ANNOTATION_GPU_MEMORY}: "4Gi"'
        )
    if container is not None and name not in PER_CONTAINER_ANNOTATIONS:
        raise RequestError(
            f"annotation {key[:128]!r} names a container, and {name} is for the whole pod; write {name} without "
            f"{'.' + container[:64]!r}"
        )


def _check_requests_equal_limits(container: Container) -> None:
    """Kubernetes allows no difference for extended resources, and names neither the container nor the remedy."""
    for resource in _RESOURCES:
        requested, limit = requests_of(container).get(resource), limits_of(container).get(resource)
        if requested is not None and count_of(requested) != count_of(0 if limit is None else limit):
            raise RequestError(
                f"container {container.name!r} requests {resource}: {str(requested)[:64]!r} and has "
                f"{'no limit of it' if limit is None else f'the limit {str(limit)[:64]!r}'}; the two must be "
                f"equal, so remove the request and write the limit only, for example limits: "
                f"{{{resource}: {_example(requested if limit is None else limit)}}}"
            )


def _example(amount: Quantity) -> int:
    """What was found, where it is a number."""
    return count_of(amount) or 8


def _check_size(share: ContainerRequest, policy: Policy) -> None:
    """A limit written in bytes would be counted as so many units, and the pod would wait for ever."""
    if (share.units - 1) * policy.unit * MIB_BYTES >= MAX_MEMORY_BYTES:  # the last unit may be there by rounding only
        raise RequestError(
            f"container {share.container!r} asks for {share.units} of {RESOURCE_MEMORY} on each GPU, more than any GPU "
            f"has; it counts units of {policy.unit} MiB, not bytes, so ask for a size by annotation, for example "
            f'{ANNOTATION_GPU_MEMORY}: "4Gi"'
        )
    if share.seats > MAX_SEATS:
        raise RequestError(
            f"container {share.container!r} asks for {share.seats} of {RESOURCE_REPLICA} per GPU, more than any GPU "
            f'has; it counts seats, at most {MAX_SEATS}, for example {RESOURCE_REPLICA}: "1"'
        )


def _check_maximum(share: ContainerRequest, policy: Policy, rules: Rules) -> None:
    """What an administrator allows in a namespace."""
    if rules.max_gpu_memory is not None and share.units * policy.unit * MIB_BYTES > rules.max_gpu_memory:
        most = int(rules.max_gpu_memory // MIB_BYTES)
        if share.units * policy.unit - most >= policy.unit:  # the last unit may be there by rounding only
            raise RequestError(
                f"container {share.container!r} asks for {format_mib(share.units * policy.unit)} on one GPU "
                f"({RESOURCE_MEMORY}: {share.units} units), and in this namespace at most {format_mib(most)} are "
                f'allowed; ask for less, for example {ANNOTATION_GPU_MEMORY}: "{most}Mi"'
            )
    replicas = share.replicas or policy.replicas
    if rules.max_gpu_fraction is not None and share.seats > rules.max_gpu_fraction * replicas:
        most = int(rules.max_gpu_fraction * replicas)
        raise RequestError(
            f"container {share.container!r} asks for {share.seats} of the {replicas} seats of a GPU "
            f"({RESOURCE_REPLICA}), and in this namespace at most {most} are allowed; ask for less, for example "
            f"{_part(most, replicas)}"
        )


def _part(seats: int, replicas: int) -> str:
    """How to ask for so many seats: as a fraction, where a decimal number can write it."""
    part = Fraction(seats, replicas)
    if 10**6 % part.denominator == 0:
        return f'{ANNOTATION_GPU_FRACTION}: "{decimal(part)}"'
    return f'{RESOURCE_REPLICA}: "{seats}"'


def _check_count(request: PodRequest, rules: Rules) -> None:
    gpus = sum(share.gpus for share in request.containers)
    if rules.max_gpu_count is not None and gpus > rules.max_gpu_count:
        raise RequestError(
            f"the pod asks for {gpus} GPUs, and in this namespace a pod may have at most {rules.max_gpu_count}; ask "
            f'for less, for example {ANNOTATION_GPU_COUNT}: "{rules.max_gpu_count}"'
        )


def _check_annotations_apply(pod: AdmittedPod, request: PodRequest | None) -> None:
    """Refuse an annotation that refines a request where there is none to refine."""
    holders = [] if request is None else [container.container for container in request.containers]
    annotations = PodAnnotations(pod.annotations)
    for name, own in annotations.by_container.items():
        for written in own.values():
            if name not in holders:
                raise RequestError(
                    f"{written}, but nothing says how much of a GPU container {name!r} wants; add a size for it, for "
                    f'example {ANNOTATION_GPU_MEMORY}.{name}: "4Gi"'
                )
    for key, written in annotations.of_pod.items():
        if key not in SIZE_ANNOTATIONS and not holders:
            raise RequestError(
                f"{written}, but nothing says how much of a GPU the pod wants; add a size, for example "
                f'{ANNOTATION_GPU_MEMORY}: "4Gi"'
            )
    count, named = annotations.of_pod.get(ANNOTATION_GPU_COUNT), annotations.of_pod.get(ANNOTATION_CONTAINER)
    if count is not None and named is None and not has_size(annotations.of_pod) and len(holders) > 1:
        raise RequestError(
            f"{count}, and {len(holders)} containers ask for GPUs; say whose count it is, for example "
            f'{ANNOTATION_GPU_COUNT}.{holders[0]}: "{count.text[:8]}"'
        )
    if named is not None and named.text not in holders:
        raise RequestError(
            f"{named}, which asks for no GPU; it is one of {', '.join(map(repr, holders[:10]))}, for example "
            f'"{holders[0]}"'
        )


def _unknown(keys: Iterable[str], known: Sequence[str]) -> Iterable[str]:
    return (key for key in keys if key.startswith(f"{DOMAIN}/") and key not in known)


def _allowed(key: str, known: Sequence[str]) -> str:
    """The known names, and the nearest to this one; the domain, which all share, is not compared."""
    names = {name.removeprefix(f"{DOMAIN}/"): name for name in known}
    close = get_close_matches(key[:128].removeprefix(f"{DOMAIN}/"), names, n=1)
    return f"known are {', '.join(known)}" + (f" (the nearest is {names[close[0]]})" if close else "")
