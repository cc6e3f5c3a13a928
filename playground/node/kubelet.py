"""The kubelet of one simulated node: pods come from the API server, are admitted one at a time, then run.

Beside it: the device manager chooses (``devicemanager``), gRPC talks (``kubelet_grpc``), a worker per admitted pod
runs it (``podworker``), the runtime holds what is really alive (``containers``), ``nodestatus`` writes the Node. This
module is their order: the serial admission (a pod's Allocate is awaited before the next event is looked at), which
pods are active, and the restart. It follows Kubernetes 1.36; tests/conformance runs one suite against this kubelet
and a real one. Left out: static pods, eviction, admission by CPU and memory.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from pathlib import Path

from fracgpu.kubelet import podresources_pb2 as podresources
from fracgpu.names import NodeName, PodUid
from playground.cluster import ApiStatusError, ClusterApi, JsonObject
from playground.node.cgroups import CgroupTree
from playground.node.containers import Container, ContainerRuntime
from playground.node.devicemanager import AdmissionError, ContainerRequest, DeviceManager
from playground.node.kubelet_grpc import CHECKPOINT, DevicePlugins, PodResources
from playground.node.nodestatus import NodeStatus
from playground.node.podworker import PodWorker
from playground.recording import EventRecorder

log = logging.getLogger(__name__)

REJECTED = "UnexpectedAdmissionError"
RETRY_SECONDS = 1.0


class Kubelet:
    """One node. ``start``, ``stop`` and ``restart`` are the kubelet's; the containers live on in ``runtime``."""

    def __init__(
        self,
        *,
        cluster: ClusterApi,
        node_name: NodeName,
        root: Path,
        cgroup_root: Path,
        nvml_state: Path | None = None,
        seed: int = 0,
        tells_events: bool = False,
    ) -> None:
        """Prepare a node; nothing happens before ``start``.

        Args:
            cluster: the API server.
            node_name: the Node object is created under this name.
            root: what /var/lib/kubelet is on a node; keep it short, Unix socket paths end at 107 bytes.
            cgroup_root: what /sys/fs/cgroup is on a node.
            nvml_state: the state file of the node's GPUs, where the containers' processes appear.
            seed: for every choice that the real kubelet leaves to chance.
            tells_events: whether the API server hears of what happens to containers, for ``kubectl describe pod``.
        """
        self.node_name = node_name
        self._cgroups = CgroupTree(cgroup_root)
        self.runtime = ContainerRuntime(cgroups=self._cgroups, nvml_state=nvml_state)
        self.plugins_folder = root / "device-plugins"
        self.pod_resources_socket = root / "pod-resources" / "kubelet.sock"
        self._cluster = cluster
        self._events = EventRecorder(cluster, component="kubelet", host=node_name) if tells_events else None
        self._rng = random.Random(seed)  # noqa: S311 - nothing secret: it makes a test repeatable
        self._pods: dict[PodUid, PodWorker] = {}
        self._sources_ready = False  # whether the API server's pods are known
        self._devices = self._new_device_manager()
        self._plugins = DevicePlugins(self.plugins_folder, self)
        self._pod_resources = PodResources(self.pod_resources_socket.parent, self._list_pod_resources)
        self._node = NodeStatus(
            cluster=cluster, node_name=node_name, capacity=lambda: self._devices.capacity(time.monotonic())
        )
        self._tasks: set[asyncio.Task[None]] = set()

    # Life.

    async def start(self) -> None:
        """Start as a new kubelet process: checkpoint, sockets, Node object, then the pods."""
        self._pods, self._sources_ready = {}, False
        self._devices = self._new_device_manager()
        if self._checkpoint.exists():
            self._devices.restore(self._checkpoint.read_text(), time.monotonic())
        self._cgroups.prepare()
        await self._plugins.start()
        await self._pod_resources.start()
        await self._node.create()
        self._tasks = {
            asyncio.create_task(self._node.run(), name=f"{self.node_name} node status"),
            asyncio.create_task(self._follow_pods(), name=f"{self.node_name} pods"),
        }

    async def stop(self) -> None:
        """End the kubelet process; containers keep running, and one that is stopping still stops.

        Raises:
            Exception: what one of its tasks died of, which nobody has seen yet.
        """
        tasks = self._tasks | {pod.task for pod in self._pods.values() if pod.task}
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await self._plugins.stop()
        await self._pod_resources.stop()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def restart(self) -> None:
        """Stop and start: plugins must register again, running containers are adopted."""
        await self.stop()
        await self.start()

    # What tests ask and do.

    def held_device_ids(self) -> dict[tuple[PodUid, str], dict[str, frozenset[str]]]:
        """Return (pod, container) -> resource -> device IDs, for every process that is alive.

        Force-deleted pods count until their processes end. This is the truth that "nothing was over-committed" is
        counted on.
        """
        return self.runtime.held_device_ids()

    def container(self, pod_uid: PodUid, name: str) -> Container:
        """Return the newest container of that name; its config has the environment, CDI devices and device IDs."""
        container = self.runtime.latest(pod_uid, name)
        if container is None:
            raise KeyError(f"pod {pod_uid} has no container {name} on {self.node_name}")
        return container

    def finish(self, pod_uid: PodUid, name: str, exit_code: int) -> None:
        """Let a container's process exit by itself; the pod's restartPolicy decides what follows."""
        self.runtime.end(self.container(pod_uid, name), exit_code)
        if pod_uid in self._pods:
            self._pods[pod_uid].look_again()

    # What plugins do (PluginEvents).

    def plugin_connected(self, resource: str, *, prefers: bool) -> None:
        """A plugin registered and answered."""
        self._devices.connect(resource, prefers=prefers)

    def plugin_listed(self, resource: str, devices: dict[str, bool]) -> None:
        """A plugin sent its device list."""
        self._devices.update(resource, devices)
        self._save()
        self._node.look_again()
        for pod in self._pods.values():
            pod.look_again()  # the health of its devices is in its status

    def plugin_disconnected(self, resource: str) -> None:
        """A plugin's stream ended."""
        self._devices.disconnect(resource, time.monotonic())
        self._node.look_again()

    # Devices.

    def _new_device_manager(self) -> DeviceManager:
        return DeviceManager(rng=self._rng, active_pods=self._active_pods)

    @property
    def _checkpoint(self) -> Path:
        return self.plugins_folder / CHECKPOINT

    def _save(self) -> None:
        self._checkpoint.write_text(self._devices.checkpoint())

    def _active_pods(self) -> set[PodUid] | None:
        """Return the pods whose devices are theirs: a force-deleted one is not among them, alive or not."""
        if not self._sources_ready:
            return None
        return {uid for uid, pod in self._pods.items() if not pod.over}

    def _list_pod_resources(self) -> podresources.ListPodResourcesResponse:
        self._devices.free_inactive()
        response = podresources.ListPodResourcesResponse()
        for pod in self._pods.values():
            if pod.over:
                continue
            metadata = pod.object["metadata"]
            entry = response.pod_resources.add(name=metadata["name"], namespace=metadata["namespace"])
            for container, kind in pod.containers():
                if kind == "init":
                    continue
                listed = entry.containers.add(name=container["name"])
                for resource, granted in self._devices.granted(pod.uid, container["name"]).items():
                    for device in granted.ids:  # one entry per device: the real kubelet does not group them
                        listed.devices.add(resource_name=resource, device_ids=[device])
        return response

    # Pods: one event after the other.

    async def _follow_pods(self) -> None:
        selector = f"spec.nodeName={self.node_name}"
        while True:
            try:
                pods, version = await self._cluster.list("pods", field_selector=selector)
                await self._replace(pods)
                async for event in self._cluster.watch("pods", resource_version=version, field_selector=selector):
                    if event.type == "DELETED":
                        self._remove(PodUid(event.object["metadata"]["uid"]))
                    else:
                        await self._add_or_update(event.object)
            except ApiStatusError as exc:
                if exc.code != 410:
                    log.warning("%s: pods not followed: %s", self.node_name, exc)
                    await asyncio.sleep(RETRY_SECONDS)

    async def _replace(self, pods: list[JsonObject]) -> None:
        listed = {PodUid(pod["metadata"]["uid"]) for pod in pods}
        for uid in self._pods.keys() - listed:
            self._remove(uid)
        for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"])):
            await self._add_or_update(pod)
        if not self._sources_ready:
            self._sources_ready = True
            for container in self.runtime.alive():
                if container.config.pod_uid not in listed:  # the pod went while no kubelet looked
                    self._tasks.add(asyncio.create_task(self.runtime.stop(container)))

    def _remove(self, uid: PodUid) -> None:
        pod = self._pods.pop(uid, None)
        if pod is not None:
            pod.vanish()
            if pod.task is not None:
                self._tasks.add(pod.task)  # it ends with the pod's last process, or with the kubelet
                pod.task.add_done_callback(self._tasks.discard)

    async def _add_or_update(self, obj: JsonObject) -> None:
        uid = PodUid(obj["metadata"]["uid"])
        if uid in self._pods:
            self._pods[uid].update(obj)
            return
        pod = PodWorker(
            obj,
            cluster=self._cluster,
            runtime=self.runtime,
            devices=self._devices,
            rng=self._rng,
            events=self._events,
        )
        self._pods[uid] = pod  # before admission: PodResources lists it from now on
        if not pod.over:
            try:
                await self._admit(pod)
            except AdmissionError as exc:
                await pod.reject(REJECTED, f"Allocate failed due to {exc}, which is unexpected")
        pod.start()

    async def _admit(self, pod: PodWorker) -> None:
        alive = {container.config.name for container in self.runtime.alive(pod.uid)}
        for container, kind in pod.containers():
            request = ContainerRequest(
                pod_uid=pod.uid,
                container=container["name"],
                kind=kind,
                limits=container.get("resources", {}).get("limits", {}),
                already_running=not self._sources_ready and container["name"] in alive,
            )
            await self._devices.allocate(request, self._plugins)
        self._save()
