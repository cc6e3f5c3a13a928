"""From a pod's annotations to the limits of its containers: whose, of which resource, how much. Pure.

What the finished limits mean is read by `fracgpu.requests`, as everywhere else.
"""

from collections.abc import Mapping
from typing import Final

from fracgpu.annotations import (
    Asked,
    PodAnnotations,
    Written,
    has_size,
    key_for,
    parse_fraction,
    parse_gpu_count,
    parse_memory,
    split_key,
)
from fracgpu.errors import RequestError
from fracgpu.names import (
    ANNOTATION_CONTAINER,
    ANNOTATION_GPU_COUNT,
    ANNOTATION_GPU_FRACTION,
    ANNOTATION_GPU_MEMORY,
    RESOURCE_MEMORY,
    RESOURCE_REPLICA,
    SIZE_ANNOTATIONS,
)
from fracgpu.pods import Quantity
from fracgpu.quantities import units_for
from webhook.pods import AdmittedContainer, AdmittedPod, count_of, limits_of, requests_of, with_amounts
from webhook.policy import Policy
from webhook.seats import whole_seats

_MAX_LISTED: Final = 10
_NO_CONTAINER: Final = "the pod has no container that could hold a share of a GPU; add one to spec.containers"


def with_limits(pod: AdmittedPod, *, policy: Policy) -> AdmittedPod:
    """The pod with the limits that its annotations ask for; an amount that is there already has to be the same.

    Raises:
        RequestError: an annotation cannot be read, names no container that could hold a GPU, or contradicts another
            one or a limit.
    """
    annotations = PodAnnotations(pod.annotations)
    holders = {container.name: container for container in _possible_holders(pod)}
    for name, own in annotations.by_container.items():
        if name not in holders:
            raise _unknown_container(pod, next(iter(own.values())).key, name, holders)
    sizes = {name: size for name, own in annotations.by_container.items() if (size := _size(own)) is not None}
    size = _size(annotations.of_pod)
    target = _target(pod, holders, annotations, sizes)
    if size is not None:
        if target in sizes:
            raise RequestError(
                f"annotations {size.key} ({size.text[:64]!r}) and {sizes[target].key} ({sizes[target].text[:64]!r}) "
                f"both give container {target!r} a size; keep one of them, or say by {ANNOTATION_CONTAINER} which "
                f'container the first is for, for example "{target}"'
            )
        sizes[target] = size
    changed = {}
    for name, written in sizes.items():
        asked = annotations.about(name, is_target=name == target)
        changed[name] = _with_amount(holders[name], written, asked, policy=policy)
    return pod.with_containers(changed)


def _size(asked: Asked) -> Written | None:
    """The one size of these annotations; None where they have none."""
    found = [asked[key] for key in SIZE_ANNOTATIONS if key in asked]
    if len(found) > 1:
        raise RequestError(
            f"annotations {found[0].key} ({found[0].text[:64]!r}) and {found[1].key} ({found[1].text[:64]!r}) are both "
            f'set; a share has one size, so keep one of them, for example {ANNOTATION_GPU_MEMORY}: "4Gi"'
        )
    return found[0] if found else None


def _possible_holders(pod: AdmittedPod) -> list[AdmittedContainer]:
    """The containers that can hold a share: those that run as long as the pod does; sidecars first, as they start."""
    sidecars = [container for container in pod.spec.init_containers or () if container.is_sidecar]
    return [*sidecars, *(pod.spec.containers or ())]


def _target(
    pod: AdmittedPod,
    holders: Mapping[str, AdmittedContainer],
    annotations: PodAnnotations,
    sizes: Mapping[str, Written],
) -> str:
    """The container that a size or a count without a name is for; empty where nothing is asked."""
    named = annotations.of_pod.get(ANNOTATION_CONTAINER)
    if named is not None and named.text not in holders:
        raise _unknown_container(pod, str(named), named.text, holders)
    limited = pod.limited()
    target = annotations.target(
        apps=[container.name for container in pod.containers],
        holders=[name for name in holders if name in sizes or name in limited],
    )
    if not target and has_size(annotations.of_pod):
        raise RequestError(_NO_CONTAINER)
    return target


def _unknown_container(
    pod: AdmittedPod, subject: str, name: str, holders: Mapping[str, AdmittedContainer]
) -> RequestError:
    if not holders:
        return RequestError(_NO_CONTAINER)
    is_ordinary = any(container.name == name for container in pod.init_containers)
    is_key = not subject.startswith("annotation")
    beginning = f"annotation {subject} names {name[:64]!r}" if is_key else subject
    names = [container.name for container in pod.containers if container.name in holders] or list(holders)
    names += [name for name in holders if name not in names]
    example = key_for(split_key(subject)[0], names[0]) if is_key else f'"{names[0]}"'
    return RequestError(
        f"{beginning}, which is "
        f"{'an init container that ends before the app starts' if is_ordinary else 'no container of this pod'}; it is "
        f"one of {', '.join(map(repr, names[:_MAX_LISTED]))}, for example {example}"
    )


def _with_amount(container: AdmittedContainer, size: Written, asked: Asked, *, policy: Policy) -> AdmittedContainer:
    if size is asked.get(ANNOTATION_GPU_FRACTION):
        resource = RESOURCE_REPLICA
        share = whole_seats(parse_fraction(size), replicas=policy.replicas, subject=str(size))
    else:
        resource, share = RESOURCE_MEMORY, units_for(parse_memory(size), unit=policy.unit)
    gpus = parse_gpu_count(asked[ANNOTATION_GPU_COUNT]) if ANNOTATION_GPU_COUNT in asked else 1
    amount = gpus * share
    limits = limits_of(container)
    written = limits.get(resource)
    if written is not None and count_of(written) != amount:
        raise RequestError(
            f"container {container.name!r} has the limit {resource}: {str(written)[:64]!r}, but annotation {size.key} "
            f"{size.text[:64]!r} makes it {amount}; remove one of the two, for example the limit"
        )
    requested = requests_of(container).get(resource)
    if written is None and requested is not None and count_of(requested) != amount:
        raise RequestError(
            f"container {container.name!r} requests {resource}: {str(requested)[:64]!r}, but annotation {size.key} "
            f"{size.text[:64]!r} makes it {amount}; remove one of the two, for example the request"
        )
    amounts: dict[str, Quantity] = {resource: str(amount)}
    return with_amounts(container, limits=amounts | limits, requests=amounts | requests_of(container))
