"""The loop on a cgroup tree, with the playground's API server."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins

from fracgpu.errors import UnavailableError
from fracgpu.gpunodes import Grant
from fracgpu.kube.client import KubeClient
from fracgpu.kube.recording import EventRecorder
from fracgpu.kube.resources import PODS
from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.plans import Share
from fracgpu.pods import Pod
from playground.api.apiserver import ApiServer
from plugin.kubelet.cgroups import PodCgroups
from plugin.metrics import Metrics
from plugin.usage.watchdog import UsageWatchdog
from tests.kube.server import Server, serving
from tests.plugin.builders import A, B, make_spec
from tests.plugin.node import PATIENCE_SECONDS

GIB = 2**30
PERIOD = 10.0
LABELS = {"namespace": "team-a", "container": "main", "gpu": A}


class Node:
    """A node with pods, their cgroups and what NVML would list; the test says when a measurement is due."""

    def __init__(self, api: ApiServer, client: KubeClient, root: Path, *, evicts: bool) -> None:
        self.api = api
        self.metrics = Metrics()
        self.processes: dict[GpuUuid, list[tuple[int, int | None]]] = {A: [], B: []}
        self.nvml_answers = True
        self.pods: dict[PodUid, Pod] = {}
        self.grants: list[Grant] = []
        self.client = client
        self._root = root
        self._seconds = 0.0
        self._began = datetime(2026, 11, 21, tzinfo=UTC)
        (root / "kubepods").mkdir()
        self.told = 0
        self.outcomes: list[str] = []  # of what was told
        self._news = asyncio.Event()
        self.begin(evicts=evicts)

    def begin(self, *, evicts: bool) -> None:
        """Make a watchdog, and what writes its events; `running` runs the latter."""
        self.recorder = EventRecorder(
            self.client,
            component="fracgpu-plugin",
            instance="node-1",
            node=NodeName("node-1"),
            on_outcome=self._note,
            clock=lambda: self._seconds,
            wall_clock=self._now,
        )
        self.watchdog = UsageWatchdog(
            self.client,
            spec=make_spec,
            grants=lambda: self.grants,
            pods=lambda: self.pods,
            cgroups=PodCgroups(self._root),
            processes=self._list,
            metrics=self.metrics,
            period_seconds=PERIOD,
            evicts=evicts,
            tell=self._tell,
            clock=lambda: self._seconds,
            wall_clock=self._now,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Node]:
        """Write events while this is open."""
        writing = asyncio.create_task(self.recorder.run())
        try:
            yield self
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    def _now(self) -> datetime:
        return self._began + timedelta(seconds=self._seconds)

    def _tell(self, **facts: Any) -> None:
        self.told += 1
        self.recorder.warn(**facts)

    def _note(self, outcome: str) -> None:
        self.outcomes.append(outcome)
        self._news.set()

    async def until_written(self) -> None:
        """Wait until it is known what became of all that was told."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.outcomes) < self.told:
                self._news.clear()
                await self._news.wait()

    async def _list(self) -> dict[GpuUuid, list[tuple[int, int | None]]]:
        if not self.nvml_answers:
            raise UnavailableError("NVML does not answer")
        return self.processes

    async def run_pod(self, name: str, *, pid: int, units: int = 4, labels: dict[str, str] | None = None) -> Pod:
        """A bound pod whose container "main" holds units of GPU A and runs one process."""
        identity = f"{pid:064x}"
        metadata = {"name": name, "namespace": "team-a", "labels": labels or {}}
        spec = {"nodeName": "node-1", "containers": [{"name": "main", "image": "x"}]}
        await self.api.cluster.create("pods", {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        status = {"name": "main", "containerID": f"containerd://{identity}", "state": {"running": {}}}
        await self.api.cluster.patch(
            "pods",
            name,
            {"status": {"phase": "Running", "containerStatuses": [status]}},
            namespace="team-a",
            subresource="status",
        )
        await self.look()
        pod = next(pod for pod in self.pods.values() if pod.metadata.name == name)
        self.grants.append(Grant(pod.uid, "team-a", name, {"main": (Share(A, units),)}))
        self.put(pod, pid)
        return pod

    def put(self, pod: Pod, *pids: int) -> None:
        folder = self._root / "kubepods" / f"pod{pod.uid}" / f"{pids[0]:064x}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))

    def hide(self, pod: Pod) -> None:
        for path in (self._root / "kubepods" / f"pod{pod.uid}").glob("*/cgroup.procs"):
            path.write_text("0\n")

    def use(self, pid: int, *, gib: float, gpu: GpuUuid = A) -> None:
        others = [(other, size) for other, size in self.processes[gpu] if other != pid]
        self.processes[gpu] = [*others, (pid, int(gib * GIB))]

    async def look(self) -> None:
        """As the plugin's watch of its pods."""
        listing = await self.client.list(PODS)
        self.pods = {pod.uid: pod for pod in listing.items}

    async def check(self, times: int = 1) -> None:
        for _ in range(times):
            self._seconds += PERIOD
            await self.look()
            await self.watchdog.check()
            await self.until_written()

    async def skip(self, seconds: float) -> None:
        self._seconds += seconds

    async def events(self, reason: str = "GpuMemoryOveruse") -> list[dict[str, Any]]:
        found, _ = await self.api.cluster.list("events")
        return [event for event in found if event["reason"] == reason]

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"fracgpu_plugin_{name}", labels)


@pytest.fixture
async def kube(tmp_path: Path) -> AsyncIterator[tuple[ApiServer, KubeClient]]:
    server = ApiServer()
    await server.start()
    (tmp_path / "kubeconfig").write_text(server.kubeconfig())
    client = await KubeClient.connect(kubeconfig=tmp_path / "kubeconfig")
    yield server, client
    await client.close()
    await server.stop()


@pytest.fixture
async def node(kube: tuple[ApiServer, KubeClient], tmp_path: Path) -> AsyncIterator[Node]:
    (tmp_path / "cgroup").mkdir()
    async with Node(*kube, tmp_path / "cgroup", evicts=False).running() as made:
        yield made


@pytest.fixture
async def evicting(kube: tuple[ApiServer, KubeClient], tmp_path: Path) -> AsyncIterator[Node]:
    (tmp_path / "cgroup").mkdir()
    async with Node(*kube, tmp_path / "cgroup", evicts=True).running() as made:
        yield made


async def test_what_is_used_is_shown_by_container_until_the_pod_ends(node: Node) -> None:
    pod = await node.run_pod("infer", pid=10)
    node.use(10, gib=1.5)
    node.use(99, gib=3)
    await node.check()
    assert node.value("granted_memory_bytes", pod="infer", **LABELS) == 2 * GIB
    assert node.value("used_memory_bytes", pod="infer", **LABELS) == 1.5 * GIB
    assert node.value("unattributed_memory_bytes", gpu=A) == 3 * GIB
    assert node.value("measurements_total", outcome="ok") == 1

    await node.api.cluster.delete("pods", "infer", namespace="team-a", grace_seconds=0)
    await node.check()
    assert node.value("used_memory_bytes", pod="infer", **LABELS) == 1.5 * GIB, "its process lives, and is known"

    node.grants.clear()
    await node.check()
    assert node.value("used_memory_bytes", pod="infer", **LABELS) is None
    assert node.value("granted_memory_bytes", pod="infer", **LABELS) is None
    assert node.value("unattributed_memory_bytes", gpu=A) == 4.5 * GIB
    assert pod.uid not in node.pods


async def test_overuse_is_told_on_the_pod(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    pod = await node.run_pod("infer", pid=10)
    node.use(10, gib=2.5)
    await node.check()
    assert await node.events() == []
    await node.check()
    (event,) = await node.events()
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "team-a",
        "name": "infer",
        "uid": pod.uid,
    }
    assert (event["type"], event["count"], event["source"]["host"]) == ("Warning", 1, "node-1")
    assert event["message"] == ("The pod uses more GPU memory than it was granted: 2.5 GiB of GPU-a, granted 2 GiB.")
    assert (node.value("overusing_pods"), node.value("overuse_total")) == (1, 1)
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "uses more GPU memory than granted"
    ]
    node.use(10, gib=1)
    await node.check()
    assert (node.value("overusing_pods"), node.value("overuse_total")) == (0, 1)


async def test_what_lasts_is_one_event_that_counts(node: Node) -> None:
    await node.run_pod("infer", pid=10)
    node.use(10, gib=2.5)
    await node.check(2)
    version = (await node.events())[0]["metadata"]["resourceVersion"]
    await node.check(59)
    assert (await node.events())[0]["metadata"]["resourceVersion"] == version, "nothing written for ten minutes"
    await node.check(1)
    (event,) = await node.events()
    assert event["count"] == 2
    assert (event["firstTimestamp"], event["lastTimestamp"]) == ("2026-11-21T00:00:20Z", "2026-11-21T00:10:20Z")


async def test_an_event_that_the_api_server_did_not_take_is_written_later(
    node: Node, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pod = await node.run_pod("infer", pid=10)
    node.use(10, gib=2.5)
    async with serving(Server()) as troubled:
        troubled.pods = [to_builtins(pod)]
        troubled.refuse("PATCH", 500)
        troubled.answers.append({"metadata": {"name": "event"}})
        node.client = await KubeClient.connect(kubeconfig=troubled.kubeconfig(tmp_path))
        node.begin(evicts=False)
        async with node.running():
            await node.check(5)
        sent = [json.loads(seen.body) for seen in troubled.seen if seen.method == "PATCH"]
        await node.client.close()
    assert [(event["count"], event["lastTimestamp"]) for event in sent] == [
        (1, "2026-11-21T00:00:20Z"),
        (1, "2026-11-21T00:00:30Z"),
    ]
    assert [record.message for record in caplog.records if record.message in ("trouble", "recovered")] == [
        "trouble",
        "recovered",
    ]


async def test_without_the_option_nobody_is_evicted(node: Node) -> None:
    await node.run_pod("infer", pid=10)
    node.use(10, gib=30)
    await node.check(20)
    assert all(pod.metadata.deletion_timestamp is None for pod in node.pods.values())


async def test_a_pod_that_goes_on_is_evicted(evicting: Node) -> None:
    node = evicting
    await node.run_pod("greedy", pid=10)
    await node.run_pod("modest", pid=11)
    node.use(10, gib=2.5)
    node.use(11, gib=2)
    await node.check(2)
    await node.look()
    assert all(pod.metadata.deletion_timestamp is None for pod in node.pods.values())
    await node.check(4)
    ending = [pod.metadata.name for pod in node.pods.values() if pod.metadata.deletion_timestamp is not None]
    assert ending == ["greedy"]
    assert node.value("evictions_total", outcome="evicted") == 1
    (event,) = await node.events("GpuMemoryEviction")
    assert event["message"] == (
        "The pod was evicted, because it went on using more GPU memory than it was granted: "
        "2.5 GiB of GPU-a, granted 2 GiB."
    )
    assert node.value("overusing_pods") == 0, "nothing more is to be done about it"


async def test_a_disruption_budget_is_respected_and_asked_again(evicting: Node) -> None:
    node = evicting
    await node.run_pod("greedy", pid=10, labels={"app": "greedy"})
    budget = {
        "metadata": {"name": "all", "namespace": "team-a"},
        "spec": {"selector": {"matchLabels": {"app": "greedy"}}},
    }
    await node.api.cluster.create("poddisruptionbudgets", budget)
    node.use(10, gib=2.5)
    await node.check(8)
    assert node.value("evictions_total", outcome="blocked") == 1
    assert all(pod.metadata.deletion_timestamp is None for pod in node.pods.values())
    assert await node.events("GpuMemoryEviction") == []

    allowed = {"status": {"disruptionsAllowed": 1}}
    await node.api.cluster.patch("poddisruptionbudgets", "all", allowed, namespace="team-a", subresource="status")
    await node.check(2)
    assert node.value("evictions_total", outcome="evicted") == 1
    assert len(await node.events("GpuMemoryEviction")) == 1


async def test_measurements_that_failed_evict_nobody(evicting: Node) -> None:
    node = evicting
    await node.run_pod("greedy", pid=10)
    node.use(10, gib=2.5)
    for _ in range(6):
        await node.check(2)
        node.nvml_answers = False
        await node.check()
        assert node.value("used_memory_bytes", pod="greedy", **LABELS) is None
        node.nvml_answers = True
    assert node.value("measurements_total", outcome="failed") == 6
    for _ in range(6):
        await node.check(2)
        await node.skip(3600)
    assert node.value("evictions_total", outcome="evicted") == 0
    await node.check(3)
    assert node.value("evictions_total", outcome="evicted") == 1


async def test_without_host_pid_it_says_so_once_and_accuses_nobody(
    evicting: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node = evicting
    pod = await node.run_pod("hidden", pid=10)
    node.use(10, gib=30)
    node.hide(pod)
    await node.check(5)
    assert node.value("hidden_pods") == 1
    assert node.value("used_memory_bytes", pod="hidden", **LABELS) is None
    assert node.value("unattributed_memory_bytes", gpu=A) is None
    said = [record.getMessage() for record in caplog.records if "hostPID: true" in record.getMessage()]
    assert len(said) == 1
    assert node.value("evictions_total", outcome="evicted") == 0


async def test_a_container_that_was_restarted_is_still_known(node: Node) -> None:
    pod = await node.run_pod("infer", pid=10)
    node.use(10, gib=1)
    await node.check()
    node.put(pod, 11)  # the next container, while the last one's process has not ended
    node.use(11, gib=0.5)
    status = {"name": "main", "containerID": f"containerd://{11:064x}", "state": {"running": {}}}
    await node.api.cluster.patch(
        "pods", "infer", {"status": {"containerStatuses": [status]}}, namespace="team-a", subresource="status"
    )
    await node.check()
    assert node.value("used_memory_bytes", pod="infer", **LABELS) == 1.5 * GIB


async def test_it_measures_until_cancelled(node: Node) -> None:
    await node.run_pod("infer", pid=10)
    running = asyncio.create_task(node.watchdog.run())
    async with asyncio.timeout(10):
        while node.value("measurements_total", outcome="ok") != 1:
            await node.look()  # whatever takes time
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
