"""The simulation with the words that tests need: make pods, wait for what the cluster should become, count the truth.

Nothing is waited for by the clock: every wait is for a state of the API server or of the kubelets, with a limit after
which the test fails.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli.simulation import SimulatedNode, Simulation
from fracgpu.device_ids import parse_device_id
from fracgpu.names import ANNOTATION_ALLOCATION, ANNOTATION_GPU_MEMORY, RESOURCE_MEMORY, NodeName, PodUid
from fracgpu.plans import decode_plan
from fracgpu.quantities import seat_units
from playground.cluster import ApiStatusError, JsonObject

NAMESPACE = "team-a"
WAIT_SECONDS = 40.0


def pod(name: str, memory: str = "", **annotations: str) -> JsonObject:
    notes = {f"fracgpu.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    if memory:
        notes[ANNOTATION_GPU_MEMORY] = memory
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": notes},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "example"}]},
    }


class Cluster(Simulation):
    """A simulation that keeps an eye on its kubelets."""

    def __init__(self, directory: Path, *, nodes: tuple[SimulatedNode, ...]) -> None:
        super().__init__(directory, nodes=nodes)
        self._overcommitted: list[str] = []
        for name, kubelet in self.kubelets.items():
            self._watch_starts(name, kubelet.runtime)

    def assert_never_overcommitted(self) -> None:
        """Fail if at any moment the living containers of a node held more of a GPU than it has."""
        assert self._overcommitted == []

    def used_units(self, node: str = "node-1") -> int:
        """Units that the living containers of a node hold, as its kubelet knows it."""
        return sum(self._units_by_gpu(NodeName(node)).values())

    def _units_by_gpu(self, node: NodeName) -> dict[str, int]:
        used: dict[str, int] = {}
        for resources in self.kubelets[node].held_device_ids().values():
            for resource, ids in resources.items():
                gpus = [parse_device_id(text).gpu for text in ids]
                for gpu in set(gpus):
                    count = gpus.count(gpu)
                    units = count if resource == RESOURCE_MEMORY else seat_units(count, replicas=4, units=20)
                    used[gpu] = used.get(gpu, 0) + units
        return used

    def _watch_starts(self, node: NodeName, runtime: Any) -> None:
        start = runtime.start

        def start_and_count(config: Any) -> Any:
            container = start(config)
            self._overcommitted += [
                f"{node} {gpu}: {units} units when {config.name} of {config.pod['metadata']['name']} started"
                for gpu, units in self._units_by_gpu(node).items()
                if units > 20
            ]
            return container

        runtime.start = start_and_count

    async def create(self, manifest: JsonObject) -> PodUid:
        created = await self.api.cluster.create("pods", manifest)
        return PodUid(created["metadata"]["uid"])

    async def get(self, name: str) -> JsonObject:
        return await self.api.cluster.get("pods", name, namespace=NAMESPACE)

    async def delete(self, name: str, *, force: bool = False) -> None:
        await self.api.cluster.delete("pods", name, namespace=NAMESPACE, grace_seconds=0 if force else None)

    async def running(self, name: str) -> JsonObject:
        return await self.until(name, lambda found: found.get("status", {}).get("phase") == "Running")

    async def waiting(self, name: str, *, because: str = "") -> JsonObject:
        """Wait until the scheduler tried the pod and wrote down why it waits."""
        return await self.until(
            name, lambda found: bool(scheduler_message(found)) and because in scheduler_message(found)
        )

    async def reasons(self) -> dict[str, str]:
        """Why each waiting pod waits, as the user is told."""
        report = await self.report()
        return {found.pod.removeprefix(f"{NAMESPACE}/"): found.reason for found in report.waiting}

    async def gone(self, name: str) -> None:
        await self._follow("pods", lambda pods: all(found["metadata"]["name"] != name for found in pods))

    async def grants(self, node: str, wanted: Callable[[set[str]], bool]) -> None:
        """Wait until the plugin of a node publishes grants of these pods (names)."""

        def is_there(nodes: list[JsonObject]) -> bool:
            found = next(n for n in nodes if n["metadata"]["name"] == node)
            return wanted({grant["name"] for grant in found.get("status", {}).get("grants", [])})

        await self._follow("gpunodes", is_there)

    async def until(self, name: str, wanted: Callable[[JsonObject], bool]) -> JsonObject:
        """Wait until the pod is as wanted."""
        seen: list[JsonObject] = []

        def is_there(pods: list[JsonObject]) -> bool:
            seen[:] = [found for found in pods if found["metadata"]["name"] == name]
            return bool(seen) and wanted(seen[0])

        try:
            await self._follow("pods", is_there)
        except TimeoutError:
            logs = "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in self._directory.glob("*.log"))
            raise AssertionError(f"pod {name} did not become as wanted: {seen}\n{logs}") from None
        return seen[0]

    async def _follow(self, resource: str, wanted: Callable[[list[JsonObject]], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                items, version = await self.api.cluster.list(resource)
                if wanted(items):
                    return
                try:
                    async for _ in self.api.cluster.watch(resource, resource_version=version):
                        break
                except ApiStatusError as exc:
                    if exc.code != 410:
                        raise


def scheduler_message(found: JsonObject) -> str:
    """What the scheduler wrote onto a pod that waits."""
    conditions = found.get("status", {}).get("conditions") or []
    return next((str(c.get("message", "")) for c in conditions if c["type"] == "PodScheduled"), "")


def planned_gpus(found: JsonObject) -> set[str]:
    """The GPUs that a pod's annotation names."""
    plan = decode_plan(found["metadata"]["annotations"][ANNOTATION_ALLOCATION])
    return set(plan.per_gpu())
