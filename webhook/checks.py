"""What a pod may not contain, whoever writes its limits: each refusal names the field, what was found and the remedy.

Pure. `check_names` reads the pod as it came in; `check_finished` reads it with the limits that the annotations gave it.
"""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Final

from fracgpu.errors import RequestError
from fracgpu.names import (
    ANNOTATION_ALLOCATION,
    ANNOTATION_CONTAINER,
    ANNOTATION_EXCLUDE_GPU_MODEL,
    ANNOTATION_EXCLUDE_GPU_UUID,
    ANNOTATION_GPU_COUNT,
    ANNOTATION_GPU_MEMORY,
    ANNOTATION_GPU_MODEL,
    ANNOTATION_GPU_UUID,
    DOMAIN,
    RESOURCE_MEMORY,
    RESOURCE_REPLICA,
    USER_ANNOTATIONS,
)
from fracgpu.pods import Container
from fracgpu.requests import MAX_SEATS, ContainerRequest, PodRequest, request_of
from webhook.pods import AdmittedPod, count_of, limits_of, requests_of
from webhook.policy import MAX_MEMORY_BYTES, Policy

_RESOURCES: Final = (RESOURCE_MEMORY, RESOURCE_REPLICA)
_REFINEMENTS: Final = (
    ANNOTATION_GPU_COUNT,
    ANNOTATION_CONTAINER,
    ANNOTATION_GPU_MODEL,
    ANNOTATION_EXCLUDE_GPU_MODEL,
    ANNOTATION_GPU_UUID,
    ANNOTATION_EXCLUDE_GPU_UUID,
)
_STEERING_ENV: Final = re.compile(r"(NVIDIA|CUDA)_VISIBLE_DEVICES|NVIDIA_GPU_MEMORY_.*|CUDA_MPS_.*", re.DOTALL)
"""What chooses GPUs or limits their memory. The kubelet lists a pod's own env after the plugin's, so it would win."""


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
    for key in _unknown(pod.annotations, USER_ANNOTATIONS):
        raise RequestError(
            f"annotation {key[:128]!r} is not one that fracgpu knows; {_allowed(key, USER_ANNOTATIONS)}, for example "
            f'{ANNOTATION_GPU_MEMORY}: "4Gi"'
        )
    for _, _, container in pod.listed():
        for key in _unknown({**limits_of(container), **requests_of(container)}, _RESOURCES):
            raise RequestError(
                f"container {container.name!r} asks for the resource {key[:128]!r}, which fracgpu does not have; "
                f'{_allowed(key, _RESOURCES)}, for example {RESOURCE_MEMORY}: "8"'
            )


def check_finished(pod: AdmittedPod, *, policy: Policy) -> None:
    """Refuse a request that contradicts itself or that the pod's own environment would undermine.

    Raises:
        RequestError: for the first thing that is wrong.
    """
    request = request_of(pod)
    for _, _, container in pod.listed():
        _check_requests_equal_limits(container)
    _check_annotations_apply(pod, request)
    if request is not None:
        for share in request.containers:
            _check_size(share, policy)
        _check_environment(pod, {container.container for container in request.containers})


def _check_requests_equal_limits(container: Container) -> None:
    """Kubernetes allows no difference for extended resources, and names neither the container nor the remedy."""
    for resource in _RESOURCES:
        requested, limit = requests_of(container).get(resource), limits_of(container).get(resource)
        if requested is not None and count_of(requested) != count_of(0 if limit is None else limit):
            raise RequestError(
                f"container {container.name!r} requests {resource}: {str(requested)[:64]!r} and has "
                f"{'no limit of it' if limit is None else f'the limit {str(limit)[:64]!r}'}; the two must be "
                f"equal, so remove the request and write the limit only, for example limits: {{{resource}: 8}}"
            )


def _check_size(share: ContainerRequest, policy: Policy) -> None:
    """A limit written in bytes would be counted as so many units, and the pod would wait for ever."""
    if (share.units - 1) * policy.unit * 2**20 >= MAX_MEMORY_BYTES:  # the last unit may be there by rounding only
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


def _check_annotations_apply(pod: AdmittedPod, request: PodRequest | None) -> None:
    """Refuse an annotation that refines a request where there is none to refine."""
    holders = [] if request is None else [container.container for container in request.containers]
    for key in _REFINEMENTS:
        if key in pod.annotations and not holders:
            raise RequestError(
                f"annotation {key} is {pod.annotations[key][:64]!r}, but nothing says how much of a GPU the pod wants; "
                f'add a size, for example {ANNOTATION_GPU_MEMORY}: "4Gi"'
            )
    name = pod.annotations.get(ANNOTATION_CONTAINER)
    if name is not None and name not in holders:
        raise RequestError(
            f"annotation {ANNOTATION_CONTAINER} is {name[:64]!r}, which asks for no GPU; it is one of "
            f'{", ".join(map(repr, holders[:10]))}, for example "{holders[0]}"'
        )


def _check_environment(pod: AdmittedPod, holders: set[str]) -> None:
    for _, _, container in pod.listed():
        for variable in container.env or () if container.name in holders else ():
            if _STEERING_ENV.fullmatch(variable.name):
                raise RequestError(
                    f"container {container.name!r} sets {variable.name[:64]!r} in env, which would override the GPU "
                    "that fracgpu assigns; fracgpu sets what is needed itself, so remove the variable and ask by "
                    f'annotation, for example {ANNOTATION_GPU_MEMORY}: "4Gi"'
                )


def _unknown(keys: Iterable[str], known: Sequence[str]) -> Iterable[str]:
    return (key for key in keys if key.startswith(f"{DOMAIN}/") and key not in known)


def _allowed(key: str, known: Sequence[str]) -> str:
    """The known names, and the nearest to this one; the domain, which all share, is not compared."""
    names = {name.removeprefix(f"{DOMAIN}/"): name for name in known}
    close = get_close_matches(key[:128].removeprefix(f"{DOMAIN}/"), names, n=1)
    return f"known are {', '.join(known)}" + (f" (the nearest is {names[close[0]]})" if close else "")
