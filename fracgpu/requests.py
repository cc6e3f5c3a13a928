"""What a pod asks of GPUs, read from its resource limits: the one type that webhook, placement and plugin share.

The limits say how many units or seats a container asks in all; ``fracgpu.io/gpu-count`` says over how many GPUs they
are split, and ``fracgpu.io/gpu-fraction`` which replica count the seats are counted in. Turning a size in bytes into
units is the webhook's part and not done here.
"""

from dataclasses import dataclass
from typing import Final

from fracgpu.annotations import Asked, PlacementPolicy, PodAnnotations, parse_fraction, parse_gpu_count, parse_policy
from fracgpu.errors import QuantityError, RequestError
from fracgpu.hosts import NOTHING, HostAmount, host_request_of
from fracgpu.names import (
    ANNOTATION_GPU_COUNT,
    ANNOTATION_GPU_FRACTION,
    ANNOTATION_GPU_MEMORY,
    ANNOTATION_GPU_UUID,
    ANNOTATION_POLICY,
    RESOURCE_MEMORY,
    RESOURCE_REPLICA,
)
from fracgpu.pods import Container, Pod
from fracgpu.quantities import parse_count
from fracgpu.selectors import GpuSelector, selector_of

MAX_SEATS: Final = 1024
"""More seats than any replica count; a fraction that needs more is a typing mistake."""
MAX_CONTAINERS: Final = 16
"""More containers with GPUs than any pod needs; each makes the search for their GPUs harder."""
_MAX_UNITS: Final = 2**31 - 1  # the kubelet counts devices in int32


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """What one container asks: `gpus` different GPUs with the same share on each.

    Attributes:
        container: the container's name.
        gpus: how many different GPUs, at least 1.
        units: memory units on each GPU; 0 in a request of seats.
        seats: seats on each GPU; 0 in a request of units.
        replicas: only GPUs with this replica count will do; None where any will.
        selector: only GPUs that it accepts will do; None where any will.
    """

    container: str
    gpus: int
    units: int
    seats: int
    replicas: int | None = None
    selector: GpuSelector | None = None


@dataclass(frozen=True, slots=True)
class PodRequest:
    """What a pod asks.

    Attributes:
        containers: at least one; all of units, or all of seats.
        policy: how it chooses among the places that fit; None leaves that to the cluster.
        host: the CPU and memory that the pod takes of its node.
    """

    containers: tuple[ContainerRequest, ...]
    policy: PlacementPolicy | None = None
    host: HostAmount = NOTHING


def gpu_resource_names(container: Container) -> tuple[str, ...]:
    """Which of fracgpu's resources a container asks more than 0 of.

    Raises:
        RequestError: an amount is not a whole number.
    """
    return tuple(name for name in (RESOURCE_MEMORY, RESOURCE_REPLICA) if _amount(container, name))


def request_of(pod: Pod) -> PodRequest | None:
    """Read a pod's request; None for a pod that asks no GPU.

    Raises:
        RequestError: the request contradicts itself or can never work; the sentence names the field and the remedy.
    """
    holders: list[tuple[Container, str]] = []
    for container in pod.init_containers:
        names = gpu_resource_names(container)
        if names and not container.is_sidecar:
            raise RequestError(
                f"init container {container.name!r} asks for {names[0]}: an init container cannot hold a share of a "
                "GPU, because Kubernetes hands it on to the app containers in pieces. Move the limit to an app "
                "container, or make this one a sidecar (restartPolicy: Always)"
            )
        holders += [(container, name) for name in names]
    for container in pod.containers:
        holders += [(container, name) for name in gpu_resource_names(container)]
    if not holders:
        return None
    if len({name for _, name in holders}) > 1:
        described = ", ".join(f"{container.name!r} {name}" for container, name in holders)
        raise RequestError(
            f"the pod asks for both {RESOURCE_MEMORY} and {RESOURCE_REPLICA} ({described}): Kubernetes would allocate "
            "them apart, perhaps on two GPUs. Use one of the two in all containers of a pod"
        )
    if len(holders) > MAX_CONTAINERS:
        raise RequestError(
            f"{len(holders)} containers of the pod ask for GPUs, and at most {MAX_CONTAINERS} may; spread them over "
            "several pods"
        )
    annotations = PodAnnotations(pod.annotations)
    target = annotations.target(
        apps=[container.name for container in pod.containers], holders=[container.name for container, _ in holders]
    )
    policy = annotations.of_pod.get(ANNOTATION_POLICY)
    return PodRequest(
        tuple(
            _container_request(container, name, annotations.about(container.name, is_target=container.name == target))
            for container, name in holders
        ),
        None if policy is None else parse_policy(policy),
        host_request_of(pod),
    )


def _container_request(container: Container, resource: str, asked: Asked) -> ContainerRequest:
    """Split a container's limit over its GPUs; `asked` are the annotations that speak of it."""
    amount = _amount(container, resource)
    count, selector = asked.get(ANNOTATION_GPU_COUNT), selector_of(asked)
    gpus = 1 if count is None else parse_gpu_count(count)
    if selector is not None and 0 < len(set(selector.uuids)) < gpus:
        raise RequestError(
            f"annotation {asked[ANNOTATION_GPU_UUID].key} names fewer GPUs than container {container.name!r} asks for "
            f"({gpus}, {ANNOTATION_GPU_COUNT}); name at least {gpus}"
        )
    share, rest = divmod(amount, gpus)
    if rest:
        raise RequestError(
            f"container {container.name!r} has the limit {resource}: {amount}, which cannot be split evenly over "
            f"{gpus} GPUs ({ANNOTATION_GPU_COUNT}); make the limit a multiple of {gpus}"
        )
    if resource == RESOURCE_MEMORY:
        return ContainerRequest(container.name, gpus, units=share, seats=0, selector=selector)
    replicas = None
    if (part := asked.get(ANNOTATION_GPU_FRACTION)) is not None:
        exact = share / parse_fraction(part)
        if exact.denominator != 1:
            raise RequestError(
                f"container {container.name!r} has the limit {resource}: {amount}, which is not the part {part.text} "
                f"of a whole number of seats; remove the limit and let {part.key} set it"
            )
        replicas = int(exact)
    return ContainerRequest(container.name, gpus, units=0, seats=share, replicas=replicas, selector=selector)


def _amount(container: Container, resource: str) -> int:
    value = container.limit(resource)
    try:
        amount = parse_count(value)
    except QuantityError as exc:
        raise RequestError(
            f"container {container.name!r} has the limit {resource}: {str(value)[:64]!r}; it is a whole number of at "
            f'least 0 that counts units or seats, for example "8"; ask for a size by {ANNOTATION_GPU_MEMORY}: "4Gi"'
        ) from exc
    if amount > _MAX_UNITS:
        raise RequestError(
            f"container {container.name!r} has the limit {resource}: {str(value)[:64]!r}, more than any node has; it "
            f'counts units or seats, not bytes, for example "8"; ask for a size by {ANNOTATION_GPU_MEMORY}: "4Gi"'
        )
    return amount
