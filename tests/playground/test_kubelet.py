"""The kubelet stub's own side: what is alive, cgroups, NVML processes, chance, several nodes. Its behaviour towards
plugins is compared with a real kubelet in tests/conformance.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fracgpu.kubelet import deviceplugin_pb2 as pb
from fracgpu.names import NodeName, PodUid
from playground.cluster import JsonObject
from playground.node.containers import PROCESS_MIB, Container
from playground.node.devicemanager import STOP_GRACE_SECONDS, AdmissionError, ContainerRequest, DeviceManager
from playground.node.kubelet import Kubelet
from playground.node.nvml import GpuProcess, SimulatedGpu, read_state, write_state
from tests.nodebench import (
    PATIENCE_SECONDS,
    StubBench,
    make_container,
    make_pod,
    until,
    until_allocatable,
    until_gone,
    until_phase,
)
from tests.recordingplugin import Call, RecordingPlugin

A, B = "example.com/a", "example.com/b"
IDS = [f"GPU-x::m{i}" for i in range(4)]
GPUS = [SimulatedGpu(uuid=uuid, product="NVIDIA L4", memory_mib=23034) for uuid in ("GPU-x", "GPU-y")]


async def see_gpu(call: Call) -> pb.ContainerAllocateResponse:
    """Allocate GPU-x by environment, GPU-y by CDI."""
    return pb.ContainerAllocateResponse(
        envs={"NVIDIA_VISIBLE_DEVICES": "GPU-x"}, cdi_devices=[pb.CDIDevice(name="nvidia.com/gpu=GPU-y")]
    )


@pytest.fixture
async def bench() -> AsyncIterator[StubBench]:
    with TemporaryDirectory(prefix="fg") as folder:
        state = Path(folder) / "nvml.json"
        write_state(state, GPUS)
        bench = StubBench(Path(folder), nvml_state=state)
        await bench.start()
        yield bench
        await bench.stop()


@pytest.fixture
async def plugin(bench: StubBench) -> AsyncIterator[RecordingPlugin]:
    plugin = RecordingPlugin(A, IDS, folder=bench.plugins_folder, allocate=see_gpu)
    await plugin.start()
    await until_allocatable(bench, A, 4)
    yield plugin
    await plugin.stop()


async def run(bench: StubBench, pod: JsonObject) -> PodUid:
    created = await bench.cluster.create("pods", pod)
    await until_phase(bench.cluster, pod["metadata"]["name"], "Running")
    return PodUid(created["metadata"]["uid"])


def cgroup_pids(bench: StubBench, uid: PodUid) -> list[int]:
    files = (bench.cgroup_root / "kubepods" / "besteffort" / f"pod{uid}").rglob("cgroup.procs")
    return sorted(int(line) for file in files for line in file.read_text().split())


def gpu_processes(bench: StubBench) -> list[list[GpuProcess]]:
    return [gpu.processes for gpu in read_state(bench.cgroup_root.parent / "nvml.json")]


async def test_a_force_deleted_pod_holds_its_devices_until_its_process_ends(
    bench: StubBench, plugin: RecordingPlugin
) -> None:
    uid = await run(bench, make_pod("p", node="node-1", c={A: 2}))
    container = bench.kubelet.container(uid, "c")
    (ids,) = plugin.allocated()
    let_end = bench.let_processes_live_on()
    await bench.cluster.delete("pods", "p", namespace="default", grace_seconds=0)
    await until_gone(bench.cluster, "p")

    process = GpuProcess(pid=container.pid, used_mib=PROCESS_MIB)
    assert bench.kubelet.held_device_ids() == {(uid, "c"): {A: ids}}
    assert cgroup_pids(bench, uid) == [container.pid]
    assert gpu_processes(bench) == [[process], [process]]

    let_end()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await container.ended.wait()
    assert bench.kubelet.held_device_ids() == {}
    assert cgroup_pids(bench, uid) == []
    assert list((bench.cgroup_root / "kubepods" / "besteffort").iterdir()) == []
    assert gpu_processes(bench) == [[], []]


async def test_a_pod_that_goes_while_the_kubelet_is_down_is_stopped_afterwards(
    bench: StubBench, plugin: RecordingPlugin
) -> None:
    uid = await run(bench, make_pod("p", node="node-1", c={A: 2}))
    await bench.kubelet.stop()
    await bench.cluster.delete("pods", "p", namespace="default", grace_seconds=0)
    assert bench.kubelet.held_device_ids()
    await bench.kubelet.start()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await bench.kubelet.container(uid, "c").ended.wait()


async def test_a_container_that_is_stopping_ends_without_its_kubelet(bench: StubBench, plugin: RecordingPlugin) -> None:
    uid = await run(bench, make_pod("p", node="node-1", c={A: 2}))
    asked, may_end = asyncio.Event(), asyncio.Event()

    async def wait(_container: Container) -> None:
        asked.set()
        await may_end.wait()

    bench.kubelet.runtime.on_sigterm = wait
    container = bench.kubelet.container(uid, "c")
    await bench.cluster.delete("pods", "p", namespace="default")
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asked.wait()
    await bench.kubelet.stop()
    may_end.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await container.ended.wait()
    await bench.kubelet.start()
    await until_gone(bench.cluster, "p")


@pytest.mark.parametrize(
    ("policy", "exit_code", "restarts"),
    [("OnFailure", 0, 0), ("OnFailure", 1, 1), ("Always", 0, 1), ("Never", 1, 0)],
)
async def test_restart_policies(bench: StubBench, policy: str, exit_code: int, restarts: int) -> None:
    pod = make_pod("p", node="node-1", c={}, other={})
    pod["spec"]["restartPolicy"] = policy
    uid = await run(bench, pod)
    bench.finish(uid, "c", exit_code)
    wanted = "running" if restarts else "terminated"
    pod = await until(
        bench.cluster,
        "pods",
        "p",
        lambda pod: (
            wanted in (status := pod["status"]["containerStatuses"][0])["state"] and status["restartCount"] == restarts
        ),
    )
    assert pod["status"]["phase"] == "Running", "the other container runs on"


async def test_the_pods_own_visible_devices_win_over_the_plugins(bench: StubBench, plugin: RecordingPlugin) -> None:
    pod = make_pod("p", node="node-1")
    own = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}
    pod["spec"]["containers"] = [make_container("c", {A: 1}, env=[own])]
    uid = await run(bench, pod)
    assert bench.kubelet.container(uid, "c").visible_gpus() == {"all", "GPU-y"}
    assert [len(processes) for processes in gpu_processes(bench)] == [1, 1]


async def test_a_cut_watch_is_taken_up_again(bench: StubBench) -> None:
    bench.watches.cut()
    await run(bench, make_pod("p", node="node-1", c={}))
    bench.watches.cut()
    await bench.cluster.delete("pods", "p", namespace="default")
    await until_gone(bench.cluster, "p")


async def test_several_nodes_live_in_one_loop_and_only_see_their_pods(bench: StubBench) -> None:
    async with AsyncExitStack() as stack:
        others = []
        for name in ("n2", "n3"):
            folder = bench.cgroup_root.parent / name
            other = Kubelet(cluster=bench.cluster, node_name=NodeName(name), root=folder, cgroup_root=folder / "cgroup")
            await other.start()
            stack.push_async_callback(other.runtime.close)
            stack.push_async_callback(other.stop)
            others.append(other)
        for name in ("node-1", "n2", "n3"):
            await run(bench, make_pod(f"on-{name}", node=name, c={}))
        for kubelet in (bench.kubelet, *others):
            pods = [container.config.pod["spec"]["nodeName"] for container in kubelet.runtime.alive()]
            assert pods == [kubelet.node_name]


class Plugins:
    """The device manager's plugins, answering at once."""

    def __init__(self) -> None:
        self.allocated: list[tuple[str, frozenset[str]]] = []

    async def prefer(self, resource: str, *, available: list[str], must_include: list[str], size: int) -> list[str]:
        return []

    async def allocate(self, resource: str, ids: list[str]) -> pb.ContainerAllocateResponse:
        self.allocated.append((resource, frozenset(ids)))
        return pb.ContainerAllocateResponse(envs={"IDS": ",".join(sorted(ids))})


def make_manager(*, seed: int = 0, active: list[str] | None = None) -> DeviceManager:
    pods = None if active is None else [PodUid(uid) for uid in active]
    manager = DeviceManager(rng=random.Random(seed), active_pods=lambda: pods)
    for resource in (A, B):
        manager.connect(resource, prefers=True)
        manager.update(resource, dict.fromkeys(IDS, True))
    return manager


def request(pod: str, limits: dict[str, str]) -> ContainerRequest:
    return ContainerRequest(pod_uid=PodUid(pod), container="c", kind="app", limits=limits)


async def test_the_order_of_two_resources_is_left_to_chance() -> None:
    orders = set()
    for seed in range(20):
        plugins = Plugins()
        await make_manager(seed=seed).allocate(request("p", {A: "1", B: "1"}), plugins)
        orders.add(tuple(resource for resource, _ in plugins.allocated))
    assert orders == {(A, B), (B, A)}


async def test_the_same_seed_makes_the_same_choices() -> None:
    runs = []
    for _ in range(2):
        plugins = Plugins()
        await make_manager(seed=7).allocate(request("p", {A: "2", B: "2"}), plugins)
        runs.append(plugins.allocated)
    assert runs[0] == runs[1]


async def test_a_checkpoint_brings_back_grants_but_no_device() -> None:
    manager, plugins = make_manager(active=["p"]), Plugins()
    await manager.allocate(request("p", {A: "3"}), plugins)
    successor = DeviceManager(rng=random.Random(1), active_pods=lambda: None)
    successor.restore(manager.checkpoint(), now=0.0)
    assert successor.granted(PodUid("p"), "c") == manager.granted(PodUid("p"), "c")
    assert successor.capacity(now=1.0) == ({A: 0, B: 0}, {A: 0, B: 0})
    with pytest.raises(AdmissionError, match="no healthy devices present"):
        await successor.allocate(request("q", {A: "1"}), plugins)
    successor.connect(A, prefers=False)
    successor.update(A, dict.fromkeys(IDS, True))
    await successor.allocate(request("q", {A: "1"}), plugins)
    (_, before), (_, after) = plugins.allocated
    assert before | after == set(IDS)


async def test_the_devices_of_a_stopped_plugin_count_as_capacity_for_5_minutes() -> None:
    manager = make_manager()
    manager.disconnect(A, now=100.0)
    assert manager.capacity(now=100.0 + STOP_GRACE_SECONDS) == ({A: 4, B: 4}, {A: 0, B: 4})
    assert manager.capacity(now=101.0 + STOP_GRACE_SECONDS) == ({A: 0, B: 4}, {A: 0, B: 4})
    manager.connect(A, prefers=False)
    manager.update(A, {"new": True})
    assert manager.capacity(now=102.0 + STOP_GRACE_SECONDS) == ({A: 1, B: 4}, {A: 1, B: 4})


async def test_a_changed_request_is_refused() -> None:
    manager = make_manager(active=["p"])
    await manager.allocate(request("p", {A: "1"}), Plugins())
    with pytest.raises(AdmissionError, match=f'changed request for resource "{A}" from 1 to 2'):
        await manager.allocate(request("p", {A: "2"}), Plugins())
