"""One pod on a simulated node, from its admission to the end of its last process.

A worker starts what should run, restarts what should run again, tells the API server, and sees the pod off: on
graceful deletion the containers are stopped, then the object is deleted; on force deletion the object is gone at once
and only the processes remain to be waited for. Devices are given before, by the kubelet's admission; a restarted
container keeps them. Left out: probes, images, volumes, restart backoff, an end to the grace period.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping

from fracgpu.names import PodUid
from playground.cluster import ApiStatusError, ClusterApi, JsonObject
from playground.node import podstatus
from playground.node.containers import Container, ContainerConfig, ContainerRuntime
from playground.node.devicemanager import ContainerKind, DeviceManager, Granted
from playground.recording import EventRecorder

log = logging.getLogger(__name__)

TERMINAL = ("Succeeded", "Failed")


class PodWorker:
    """A pod that the kubelet knows."""

    def __init__(
        self,
        pod: JsonObject,
        *,
        cluster: ClusterApi,
        runtime: ContainerRuntime,
        devices: DeviceManager,
        rng: random.Random,
        events: EventRecorder | None = None,
    ) -> None:
        self.object = pod
        self.over = pod.get("status", {}).get("phase") in TERMINAL
        """Terminal: nothing of it runs or will, and its devices are no longer its own."""
        self._cluster = cluster
        self._runtime = runtime
        self._devices = devices
        self._rng = rng
        self._events = events
        self._vanished = False  # gone from the API server: nobody to report to
        self._phase = ""  # the phase that rejection, or somebody else's hand, imposed on it
        self._changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    @property
    def uid(self) -> PodUid:
        """The pod's UID."""
        return PodUid(self.object["metadata"]["uid"])

    def containers(self) -> list[tuple[JsonObject, ContainerKind]]:
        """Return the containers in the order of admission."""
        spec = self.object["spec"]
        inits: list[tuple[JsonObject, ContainerKind]] = [
            (entry, "sidecar" if entry.get("restartPolicy") == "Always" else "init")
            for entry in spec.get("initContainers", [])
        ]
        return inits + [(entry, "app") for entry in spec["containers"]]

    def start(self) -> None:
        """Run the pod in a task of its own, from here to its end."""
        self.task = asyncio.create_task(self._run(), name=f"pod {self.uid}")

    def update(self, pod: JsonObject) -> None:
        """The API server has a new version of the pod; one that somebody marked as ended is stopped, and stays so."""
        self.object = pod
        if not self.over and pod.get("status", {}).get("phase") in TERMINAL:
            self._phase = pod["status"]["phase"]
        self.look_again()

    def look_again(self) -> None:
        """Something changed: a container ended, or a device's health."""
        self._changed.set()

    def vanish(self) -> None:
        """The API server has the pod no more: its processes are to end, whoever waits for that."""
        self._vanished = True
        self._changed.set()

    async def reject(self, reason: str, message: str) -> None:
        """Admission refused the pod: it is terminal."""
        self.over = True
        self._phase = "Failed"
        if self._events is not None:
            await self._events.tell(self.object, reason=reason, message=message, kind="Warning")
        await self._write_status(podstatus.rejected(reason, message))

    async def _run(self) -> None:
        while not (self.over or self._phase or self._must_stop()):
            self._changed.clear()
            for kind, container in self._start_what_should_run():
                await self._tell_started(kind, container)
            if self._is_complete():
                break
            await self._write_status(self._status(final=False))
            await self._changed.wait()
        alive = self._runtime.alive(self.uid)
        for container in alive:
            await self._tell(
                container.config.kind, container.config.name, "Killing", f"Stopping container {container.config.name}"
            )
        await asyncio.gather(*map(self._runtime.stop, alive))
        if not self.over or (self._phase and self._has_run()):
            status = self._status(final=True)
            await self._write_status(status | {"phase": self._phase or status["phase"]})
            self.over = True
        while not self._must_stop():
            self._changed.clear()
            await self._changed.wait()
        await self._delete()

    def _must_stop(self) -> bool:
        return self._vanished or bool(self.object["metadata"].get("deletionTimestamp"))

    def _has_run(self) -> bool:
        return any(self._runtime.latest(self.uid, entry["name"]) for entry, _kind in self.containers())

    def _is_complete(self) -> bool:
        apps = [self._runtime.latest(self.uid, entry["name"]) for entry in self.object["spec"]["containers"]]
        return all(app is not None and app.exit_code is not None for app in apps)

    async def _tell_started(self, kind: ContainerKind, container: Container) -> None:
        entries = {entry["name"]: entry for entry, _ in self.containers()}
        image = entries[container.config.name].get("image", "")
        pulled = f'Container image "{image}" already present on machine and can be accessed by the pod'
        for reason, message in (
            ("Pulled", pulled),
            ("Created", "Container created"),
            ("Started", "Container started"),
        ):
            await self._tell(kind, container.config.name, reason, message)

    async def _tell(self, kind: ContainerKind, name: str, reason: str, message: str) -> None:
        if self._events is None or self._vanished:
            return
        field = "containers" if kind == "app" else "initContainers"
        await self._events.tell(self.object, reason=reason, message=message, field_path=f"spec.{field}{{{name}}}")

    def _start_what_should_run(self) -> list[tuple[ContainerKind, Container]]:
        started = []
        for entry, kind in self.containers():
            last = self._runtime.latest(self.uid, entry["name"])
            if last is None:
                container = self._start_container(entry, kind, restart_count=0)
                started.append((kind, container))
                if kind == "init":
                    self._runtime.end(container, 0)  # simulated init containers have nothing to do
            elif last.exit_code is not None and self._runs_again(kind, last.exit_code):
                again = self._start_container(entry, kind, restart_count=last.config.restart_count + 1)
                started.append((kind, again))
        return started

    def _runs_again(self, kind: ContainerKind, exit_code: int) -> bool:
        policy = self.object["spec"].get("restartPolicy", "Always")
        return kind == "sidecar" or (
            kind == "app" and (policy == "Always" or (policy == "OnFailure" and exit_code != 0))
        )

    def _start_container(self, entry: JsonObject, kind: ContainerKind, *, restart_count: int) -> Container:
        granted = self._devices.granted(self.uid, entry["name"])
        env, cdi_devices = self._from_plugins(granted)
        own = [(variable["name"], variable.get("value", "")) for variable in entry.get("env", [])]
        return self._runtime.start(
            ContainerConfig(
                pod=self.object,
                name=entry["name"],
                kind=kind,
                env=(*env.items(), *own),
                cdi_devices=cdi_devices,
                device_ids={resource: part.ids for resource, part in granted.items()},
                restart_count=restart_count,
            )
        )

    def _from_plugins(self, granted: Mapping[str, Granted]) -> tuple[dict[str, str], tuple[str, ...]]:
        """Join the plugins' answers; where two set one variable, chance decides whose value stays."""
        env: dict[str, str] = {}
        cdi_devices: dict[str, None] = {}  # an ordered set
        for part in self._rng.sample(list(granted.values()), len(granted)):
            for name, value in part.response.envs.items():
                env.setdefault(name, value)
            cdi_devices.update(dict.fromkeys(device.name for device in part.response.cdi_devices))
        return env, tuple(cdi_devices)

    def _status(self, *, final: bool) -> JsonObject:
        newest = [self._runtime.latest(self.uid, entry["name"]) for entry, _kind in self.containers()]
        return podstatus.running_or_ended(
            self.object,
            [container for container in newest if container is not None],
            is_healthy=self._devices.is_healthy,
            final=final,
        )

    async def _write_status(self, status: JsonObject) -> None:
        known = self.object.get("status", {})
        if self._vanished or all(known.get(name) == value for name, value in status.items()):
            return
        metadata = self.object["metadata"]
        try:
            await self._cluster.patch(
                "pods",
                metadata["name"],
                {"metadata": {"uid": self.uid}, "status": status},  # the UID: not a namesake's status
                namespace=metadata["namespace"],
                subresource="status",
            )
        except ApiStatusError as exc:
            log.info("status of pod %s not written: %s", metadata["name"], exc)

    async def _delete(self) -> None:
        if self._vanished:
            return
        metadata = self.object["metadata"]
        try:
            await self._cluster.delete(
                "pods", metadata["name"], namespace=metadata["namespace"], grace_seconds=0, uid=self.uid
            )
        except ApiStatusError as exc:
            log.info("pod %s not deleted: %s", metadata["name"], exc)
