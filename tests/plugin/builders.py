"""Values for the plugin's tests: GPUs, pods with plans, device IDs, listings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from fracgpu.device_ids import DeviceId
from fracgpu.gpunodes import Gpu, GpuNodeSpec
from fracgpu.names import ANNOTATION_ALLOCATION, RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid
from fracgpu.plans import Plan, Share, encode_plan
from fracgpu.pods import Pod
from fracgpu.quantities import Mib, seat_units
from plugin.gpus.cards import Card
from plugin.gpus.inventory import Inventory
from plugin.granting.listing import ListedPod
from plugin.wishes import GpuWish

UNIT = Mib(512)
A, B, C = (GpuUuid(f"GPU-{letter}") for letter in "abc")


def make_gpu(uuid: GpuUuid = A, *, units: int = 80, replicas: int = 4, healthy: bool = True, index: int = 0) -> Gpu:
    return Gpu(uuid, index, "NVIDIA A100", Mib(units * UNIT), units, replicas, healthy)


def make_spec(*gpus: Gpu) -> GpuNodeSpec:
    return GpuNodeSpec(UNIT, gpus or (make_gpu(A), make_gpu(B, index=1)))


def make_inventory(spec: GpuNodeSpec) -> Inventory:
    """An inventory that offers this."""
    cards = [
        Card(gpu.uuid, gpu.index, gpu.product, gpu.memory, gpu.numa_node, problem="" if gpu.healthy else "lost")
        for gpu in spec.gpus
    ]
    wishes = {gpu.uuid: GpuWish(gpu.replicas, Mib(0)) for gpu in spec.gpus}
    inventory = Inventory(cards, unit=spec.memory_unit)
    inventory.begin(wishes, before=None)
    assert [(gpu.uuid, gpu.units) for gpu in inventory.spec.gpus] == [(gpu.uuid, gpu.units) for gpu in spec.gpus]
    return inventory


def units(gpu: GpuUuid, count: int, *, start: int = 0) -> list[str]:
    return [str(DeviceId(gpu, RESOURCE_MEMORY, number)) for number in range(start, start + count)]


def seats(gpu: GpuUuid, count: int, *, start: int = 0) -> list[str]:
    return [str(DeviceId(gpu, RESOURCE_REPLICA, number)) for number in range(start, start + count)]


def seat_share(gpu: GpuUuid, count: int, *, replicas: int = 4, of_units: int = 80) -> Share:
    return Share(gpu, seat_units(count, replicas=replicas, units=of_units), count)


def pod_object(
    name: str,
    containers: Mapping[str, Sequence[Share]],
    *,
    namespace: str = "team-a",
    has_plan: bool = True,
    unit: Mib = UNIT,
    sidecars: Sequence[str] = (),
    annotations: Mapping[str, str] | None = None,
    **metadata: str,
) -> dict[str, Any]:
    """A pod as JSON whose containers ask for these shares, and, with `has_plan`, were planned so.

    A container without shares asks for no GPU.
    """
    plan = Plan(unit, {container: tuple(shares) for container, shares in containers.items() if shares})
    entries: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for container, shares in containers.items():
        resource = RESOURCE_REPLICA if any(share.seats for share in shares) else RESOURCE_MEMORY
        amount = sum(share.seats or share.units for share in shares)
        entry: dict[str, Any] = {"name": container, "image": "pause:3.10"}
        if amount:
            entry["resources"] = {"limits": {resource: str(amount)}, "requests": {resource: str(amount)}}
        if container in sidecars:
            entry["restartPolicy"] = "Always"
        entries[container in sidecars].append(entry)
    own = {ANNOTATION_ALLOCATION: encode_plan(plan)} if has_plan else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {**(annotations or {}), **own},
            **metadata,
        },
        "spec": {"containers": entries[False], "initContainers": entries[True]},
    }


def make_pod(
    name: str,
    containers: Mapping[str, Sequence[Share]],
    *,
    uid: str = "",
    created: str = "2026-11-21T00:00:00Z",
    **options: Any,
) -> Pod:
    obj = pod_object(name, containers, uid=uid or f"uid-{name}", creationTimestamp=created, **options)
    return msgspec.convert(obj, Pod)


def listed(name: str, containers: Mapping[str, Sequence[str]], *, namespace: str = "team-a") -> ListedPod:
    """What PodResources says of a pod: container -> device IDs, each of one resource."""
    held: dict[str, dict[str, frozenset[str]]] = {}
    for container, ids in containers.items():
        resource = RESOURCE_REPLICA if any("::r" in text for text in ids) else RESOURCE_MEMORY
        held[container] = {resource: frozenset(ids)} if ids else {}
    return ListedPod(f"{namespace}/{name}", held)
