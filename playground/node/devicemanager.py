"""The kubelet's device manager: which device IDs each container was given, and how they are chosen.

It follows Kubernetes 1.36 (pkg/kubelet/cm/devicemanager) decision by decision and sentence by sentence, because the
plugin and the tests read those sentences. It opens no socket and no file: the plugins are reached through
``PluginCalls``, and the checkpoint is a string. Nothing is locked while a plugin is asked, so PodResources answers
from inside those calls. Left out: NUMA alignment (the topology manager's default policy asks for none) and
PreStartContainer, which fracgpu never asks for.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from fracgpu.kubelet import deviceplugin_pb2 as pb
from fracgpu.names import PodUid
from fracgpu.quantities import parse_count

STOP_GRACE_SECONDS = 300.0
"""How long a stopped plugin's devices still count as capacity, so that a plugin may restart unnoticed."""

ContainerKind = Literal["init", "sidecar", "app"]


class AdmissionError(Exception):
    """A container cannot have its devices; the text is the kubelet's own."""


class PluginCallError(Exception):
    """A call to a plugin failed; the text is how Go's gRPC prints it."""


class PluginCalls(Protocol):
    """The two calls of an admission."""

    async def prefer(self, resource: str, *, available: list[str], must_include: list[str], size: int) -> list[str]:
        """Call GetPreferredAllocation."""
        ...

    async def allocate(self, resource: str, ids: list[str]) -> pb.ContainerAllocateResponse:
        """Call Allocate."""
        ...


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """What one container asks at admission; the amounts are quantities as written in the pod."""

    pod_uid: PodUid
    container: str
    kind: ContainerKind
    limits: Mapping[str, str]
    already_running: bool = False  # true only while the kubelet starts: the container outlived its predecessor


@dataclass(frozen=True, slots=True)
class Granted:
    """The devices of one resource that a container has, and what the plugin said about them."""

    ids: frozenset[str]
    response: pb.ContainerAllocateResponse


@dataclass(slots=True)
class _Endpoint:
    prefers: bool
    stopped_at: float | None


class DeviceManager:
    """Devices, allocations and checkpoint of one node."""

    def __init__(self, *, rng: random.Random, active_pods: Callable[[], Collection[PodUid] | None]) -> None:
        """Start empty; ``active_pods`` returns None as long as the kubelet does not know its pods yet."""
        self._rng = rng
        self._active_pods = active_pods
        self._endpoints: dict[str, _Endpoint] = {}  # resource -> its plugin
        self._healthy: dict[str, set[str]] = {}  # resource -> device IDs
        self._unhealthy: dict[str, set[str]] = {}  # resource -> device IDs
        self._in_use: dict[str, set[str]] = {}  # resource -> device IDs, also those of an unfinished admission
        self._granted: dict[PodUid, dict[str, dict[str, Granted]]] = {}  # pod -> container -> resource
        self._removed: set[str] = set()  # resources whose plugin stayed away too long: capacity 0
        self._reusable_by = PodUid("")
        self._reusable: dict[str, set[str]] = {}  # resource -> IDs of that pod's init containers

    # The plugins come, change and go.

    def connect(self, resource: str, *, prefers: bool) -> None:
        """A plugin has registered; its devices follow with ``update``."""
        self._endpoints[resource] = _Endpoint(prefers, stopped_at=None)

    def disconnect(self, resource: str, now: float) -> None:
        """A plugin's stream has ended: its devices are unhealthy from now on."""
        if resource in self._endpoints:
            self._unhealthy.setdefault(resource, set()).update(self._healthy.get(resource, ()))
            self._healthy[resource] = set()
            self._endpoints[resource].stopped_at = now

    def update(self, resource: str, devices: Mapping[str, bool]) -> None:
        """A plugin has sent its whole list: device ID -> healthy."""
        self._healthy[resource] = {device for device, healthy in devices.items() if healthy}
        self._unhealthy[resource] = {device for device, healthy in devices.items() if not healthy}
        self._removed.discard(resource)

    def capacity(self, now: float) -> tuple[dict[str, int], dict[str, int]]:
        """Return capacity and allocatable; a plugin that stayed away too long is forgotten by this call."""
        for resource in self._healthy.keys() | self._unhealthy.keys():
            stopped_at = self._endpoints[resource].stopped_at
            if stopped_at is not None and now - stopped_at > STOP_GRACE_SECONDS:
                for table in (self._endpoints, self._healthy, self._unhealthy):
                    table.pop(resource, None)
                self._removed.add(resource)
        allocatable = {resource: len(ids) for resource, ids in self._healthy.items()}
        capacity = {resource: count + len(self._unhealthy.get(resource, ())) for resource, count in allocatable.items()}
        gone = dict.fromkeys(self._removed, 0)
        return capacity | gone, allocatable | gone

    # What the containers have.

    def granted(self, pod_uid: PodUid, container: str) -> dict[str, Granted]:
        """Return what a container has, by resource."""
        return dict(self._granted.get(pod_uid, {}).get(container, {}))

    def is_healthy(self, resource: str, device: str) -> bool:
        """Return a device's health; one that no list names counts as healthy, as in the kubelet."""
        return device not in self._unhealthy.get(resource, ())

    def free_inactive(self) -> None:
        """Forget the devices of pods that are no longer active."""
        active = self._active_pods()
        if active is None:
            return
        gone = self._granted.keys() - set(active)
        if gone:
            for pod_uid in gone:
                del self._granted[pod_uid]
            self._recount()

    def _recount(self) -> None:
        self._in_use = {}
        for containers in self._granted.values():
            for resources in containers.values():
                for resource, granted in resources.items():
                    self._in_use.setdefault(resource, set()).update(granted.ids)

    # Admission.

    async def allocate(self, request: ContainerRequest, plugins: PluginCalls) -> None:
        """Give a container its devices, one resource after the other in random order.

        Raises:
            AdmissionError: with the kubelet's sentence; what the pod already got is freed when it is inactive.
        """
        if request.pod_uid != self._reusable_by:
            self._reusable_by, self._reusable = request.pod_uid, {}
        resources = list(request.limits)
        self._rng.shuffle(resources)  # a Go map: no order
        freed = False
        for resource in resources:
            if resource not in self._healthy and resource not in self._in_use:
                continue
            if not freed:
                self.free_inactive()
                freed = True
            ids = await self._choose(request, resource, parse_count(request.limits[resource]), plugins)
            if ids:
                await self._commit(request, resource, ids, plugins)
        for resource, granted in self.granted(request.pod_uid, request.container).items():
            reusable = self._reusable.setdefault(resource, set())
            if request.kind == "init":
                reusable |= granted.ids
            else:
                reusable -= granted.ids

    async def _commit(self, request: ContainerRequest, resource: str, ids: set[str], plugins: PluginCalls) -> None:
        if resource not in self._endpoints:
            self._recount()
            raise AdmissionError(f"unknown Device Plugin {resource}")
        try:
            response = await plugins.allocate(resource, self._rng.sample(sorted(ids), len(ids)))
        except PluginCallError as exc:
            self._recount()
            raise AdmissionError(str(exc)) from exc
        container = self._granted.setdefault(request.pod_uid, {}).setdefault(request.container, {})
        container[resource] = Granted(frozenset(ids), response)

    async def _choose(self, request: ContainerRequest, resource: str, required: int, plugins: PluginCalls) -> set[str]:
        needed = required
        held = self.granted(request.pod_uid, request.container).get(resource)
        if held is not None:
            needed -= len(held.ids)
            if needed:
                raise AdmissionError(
                    f'pod "{request.pod_uid}" container "{request.container}" changed request for resource '
                    f'"{resource}" from {len(held.ids)} to {required}'
                )
        if request.already_running:
            return set()
        self._check_health(resource, held)
        if not needed:
            return set()

        chosen: set[str] = set()

        def take(devices: Collection[str]) -> bool:
            candidates = sorted(set(devices) - chosen)
            taken = self._rng.sample(candidates, min(needed - len(chosen), len(candidates)))
            chosen.update(taken)
            self._in_use.setdefault(resource, set()).update(taken)
            return len(chosen) == needed

        if take(self._reusable.get(resource, ())):
            return chosen
        available = self._healthy[resource] - self._in_use.get(resource, set())
        if len(available) < needed - len(chosen):
            raise AdmissionError(
                f"requested number of devices unavailable for {resource}. "
                f"Requested: {needed - len(chosen)}, Available: {len(available)}"
            )
        preferred = await self._preferred(resource, available | chosen, set(chosen), required, plugins)
        if take(preferred & available) or take(available):
            return chosen
        raise AdmissionError(
            f"unexpectedly allocated less resources than required. Requested: {required}, Got: {len(chosen)}"
        )

    def _check_health(self, resource: str, held: Granted | None) -> None:
        if resource not in self._healthy:
            raise AdmissionError(f"cannot allocate unregistered device {resource}")
        if not self._healthy[resource]:
            raise AdmissionError(f"no healthy devices present; cannot allocate unhealthy devices {resource}")
        if held is not None and not held.ids <= self._healthy[resource]:
            raise AdmissionError(
                f"previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
            )

    async def _preferred(
        self, resource: str, available: set[str], must_include: set[str], size: int, plugins: PluginCalls
    ) -> set[str]:
        if not self._endpoints[resource].prefers:
            return set()
        try:
            answer = await plugins.prefer(
                resource,
                available=self._rng.sample(sorted(available), len(available)),
                must_include=sorted(must_include),
                size=size,
            )
        except PluginCallError as exc:
            message = f"device plugin GetPreferredAllocation rpc failed with err: {exc}"
            raise AdmissionError(message) from exc
        return set(answer)

    # The checkpoint, in the real file's shape (without its checksum, which hashes a Go value's printed form).

    def checkpoint(self) -> str:
        """Return what a restarted kubelet needs."""
        entries = [
            {
                "PodUID": pod_uid,
                "ContainerName": container,
                "ResourceName": resource,
                "DeviceIDs": {"-1": sorted(granted.ids)},
                "AllocResp": base64.b64encode(granted.response.SerializeToString()).decode(),
            }
            for pod_uid, containers in self._granted.items()
            for container, resources in containers.items()
            for resource, granted in resources.items()
        ]
        registered = {resource: sorted(ids) for resource, ids in self._healthy.items()}
        data = {"PodDeviceEntries": entries, "RegisteredDevices": registered}
        return json.dumps({"Data": data, "Checksum": 0})

    def restore(self, checkpoint: str, now: float) -> None:
        """Load a checkpoint: known resources have no device until their plugin registers again."""
        data = json.loads(checkpoint)["Data"]
        for entry in data["PodDeviceEntries"]:
            response = pb.ContainerAllocateResponse.FromString(base64.b64decode(entry["AllocResp"]))
            ids = frozenset(device for devices in entry["DeviceIDs"].values() for device in devices)
            container = self._granted.setdefault(entry["PodUID"], {}).setdefault(entry["ContainerName"], {})
            container[entry["ResourceName"]] = Granted(ids, response)
        self._recount()
        for resource in data["RegisteredDevices"]:
            self._healthy[resource], self._unhealthy[resource] = set(), set()
            self._endpoints[resource] = _Endpoint(prefers=False, stopped_at=now)
