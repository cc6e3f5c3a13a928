"""The pods of a chaotic world: what they ask, and their manifests. Pure."""

import random
from dataclasses import dataclass

from fracgpu.names import (
    ANNOTATION_CONTAINER,
    ANNOTATION_GPU_COUNT,
    ANNOTATION_GPU_MEMORY,
    RESOURCE_MEMORY,
    RESOURCE_REPLICA,
)
from fracgpu.quantities import DEFAULT_MEMORY_UNIT
from playground.cluster import JsonObject

NAMESPACE = "chaos"
LINGER_LABEL = "linger-seconds"
"""A label with the seconds for which a pod's processes ignore SIGTERM."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What one container asks: units or seats on each of so many GPUs; nothing where both are 0."""

    container: str
    units: int = 0
    seats: int = 0
    gpus: int = 1
    sidecar: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of pod; `linger_seconds` is how long its processes ignore SIGTERM."""

    asks: tuple[Ask, ...]
    restart_policy: str = "Always"
    linger_seconds: float = 0

    def __str__(self) -> str:
        """In a few words, for the log."""
        asks = [
            f"{f'{ask.gpus}x' * (ask.gpus > 1)}{f'{ask.units}u' if ask.units else f'{ask.seats}s'}{'*' * ask.sidecar}"
            for ask in self.asks
            if ask.units or ask.seats
        ]
        linger = f" lingers {self.linger_seconds} s" if self.linger_seconds else ""
        return f"{'+'.join(asks)} {self.restart_policy}{linger}"


def draw_shape(rng: random.Random) -> Shape:
    """Draw a pod: half of them plain, the others of every kind there is."""
    main = Ask("main", units=rng.choice([1, 2, 4, 4, 7, 10, 12, 20]))
    kinds = {
        "memory": (main,),
        "seats": (Ask("main", seats=rng.choice([1, 1, 2, 4])),),
        "two GPUs": (Ask("main", units=rng.choice([1, 4, 10]), gpus=2),),
        "two containers": (main, Ask("helper", units=rng.choice([1, 3, 9]))),
        "two containers of seats": (Ask("main", seats=1), Ask("helper", seats=rng.choice([1, 2]))),
        "sidecar": (Ask("proxy", units=rng.choice([1, 3]), sidecar=True), main),
        "a container without": (Ask("helper"), main),
    }
    (kind,) = rng.choices(list(kinds), [50, 15, 10, 8, 5, 7, 5])
    return Shape(
        kinds[kind],
        restart_policy=rng.choice(["Always", "Always", "Never", "OnFailure"]),
        linger_seconds=rng.choice([0, 0, 0.5, 2.0, 4.0]),
    )


def manifest(name: str, shape: Shape) -> JsonObject:
    """Write a pod as a user would: plain memory as an annotation, all else as limits."""
    annotations: dict[str, str] = {}
    if len(shape.asks) == 1 and shape.asks[0].units:
        (only,) = shape.asks
        annotations = {ANNOTATION_GPU_MEMORY: f"{only.units * DEFAULT_MEMORY_UNIT}Mi"}
        if only.gpus > 1:
            annotations |= {ANNOTATION_GPU_COUNT: str(only.gpus), ANNOTATION_CONTAINER: only.container}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "annotations": annotations,
            "labels": {LINGER_LABEL: str(shape.linger_seconds)},
        },
        "spec": {
            "restartPolicy": shape.restart_policy,
            "initContainers": [_container(ask, shape) for ask in shape.asks if ask.sidecar],
            "containers": [_container(ask, shape) for ask in shape.asks if not ask.sidecar],
        },
    }


def scheduled_form(name: str, *, uid: str, seats: int, gpus: int) -> JsonObject:
    """Return a pod as kube-scheduler would send it that asks so many seats on each of so many GPUs; nobody made it."""
    limits = {RESOURCE_REPLICA: str(seats * gpus)}
    return {
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": uid,
            "annotations": {ANNOTATION_GPU_COUNT: str(gpus)},
        },
        "spec": {"containers": [{"name": "main", "resources": {"limits": limits, "requests": limits}}]},
        "status": {"phase": "Pending"},
    }


def asks_of(pod: JsonObject) -> tuple[Ask, ...]:
    """Read what a pod of ours asks, from its limits as the API server has them."""
    spec, gpus = pod["spec"], int(pod["metadata"].get("annotations", {}).get(ANNOTATION_GPU_COUNT, "1"))
    asks = []
    for container in (*spec.get("initContainers", []), *spec["containers"]):
        limits = container.get("resources", {}).get("limits", {})
        units, seats = int(limits.get(RESOURCE_MEMORY, 0)) // gpus, int(limits.get(RESOURCE_REPLICA, 0)) // gpus
        if units or seats:
            asks.append(Ask(container["name"], units=units, seats=seats, gpus=gpus))
    return tuple(asks)


def _container(ask: Ask, shape: Shape) -> JsonObject:
    container: JsonObject = {"name": ask.container, "image": "example"}
    if ask.sidecar:
        container["restartPolicy"] = "Always"
    if ask.seats:
        container["resources"] = {"limits": {RESOURCE_REPLICA: str(ask.seats)}}
    elif ask.units and len(shape.asks) > 1:
        container["resources"] = {"limits": {RESOURCE_MEMORY: str(ask.units)}}
    return container
