"""The plugin's process on the C twin of NVML: start, MIG, Xid errors, ECC and row remapping, as the kubelet sees them.

Left out: recovery after an Xid, which takes a quiet minute (test_health.py and test_watching.py have a clock of their
own), and after a lost GPU, which takes up to half a minute (so does what test_following.py does with a driver).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from fracgpu.device_ids import parse_device_id
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid
from fracgpu.plans import Share
from playground.node.nvml import (
    STATE_VARIABLE,
    GpuProcess,
    RemappedRows,
    SimulatedGpu,
    SimulatedMig,
    SimulatedXid,
    build_library,
    read_state,
    write_state,
)
from plugin.gpus.layout import RESOURCES
from tests.plugin.builders import A, B, C
from tests.plugin.node import NODE, PATIENCE_SECONDS, Object, SimulatedNode
from tests.plugin.test_following import allocatable, gpu_of

THREE: Final = [
    SimulatedGpu(uuid=uuid, product="NVIDIA A100", memory_mib=40960, minor=index)
    for index, uuid in enumerate((A, B, C))
]
MIG_1, MIG_2, MIG_3 = (GpuUuid(f"MIG-{number}") for number in (1, 2, 3))


def instance(uuid: GpuUuid, number: int, *, profile: str = "1g.5gb", memory_mib: int = 4864) -> SimulatedMig:
    return SimulatedMig(uuid=uuid, profile=profile, memory_mib=memory_mib, gpu_instance=number)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the C library."""
    folder = tmp_path_factory.mktemp("nvml")
    if build_library(folder) is None:
        pytest.skip("no C compiler to build the simulated NVML with")
    return folder


class NativePlugin:
    """A plugin's process and what it logs."""

    def __init__(self, running: asyncio.subprocess.Process, log: Path) -> None:
        self.running = running
        self.log = log

    async def until_logged(self, *parts: str, times: int = 1) -> None:
        """Wait until so many lines contain all parts."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                lines = self.log.read_text().splitlines()
                if sum(all(part in line for part in parts) for line in lines) >= times:
                    return
                assert self.running.returncode is None, self.log.read_text()
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def native(
    node: SimulatedNode,
    library: Path,
    *more: str,
    gpus: Sequence[SimulatedGpu] = THREE,
    program: Sequence[str] = ("-m", "plugin"),
) -> AsyncIterator[NativePlugin]:
    """Run the plugin; it is asked to end when this is left, and has to do so without complaint."""
    state = node.folder / "nvml.json"
    write_state(state, gpus)
    kubeconfig = node.folder / "kubeconfig"
    kubeconfig.write_text(node.api.kubeconfig())
    log = node.folder / "plugin.log"
    arguments = {
        "--node-name": NODE,
        "--kubeconfig": kubeconfig,
        "--kubelet-socket": node.kubelet.plugins_folder / "kubelet.sock",
        "--port": 0,
        "--pod-resources-socket": node.kubelet.pod_resources_socket,
        "--cgroup-root": node.cgroup_root,
    }
    own = {"LD_LIBRARY_PATH": str(library), STATE_VARIABLE: str(state), "PYTHONWARNINGS": "ignore"}
    with log.open("wb") as stream:
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, *program, *(str(part) for pair in arguments.items() for part in pair), *more),
            stderr=stream,
            cwd=Path(__file__).parents[2],
            env={**os.environ, **own},
        )
    try:
        yield NativePlugin(running, log)
        if running.returncode is None:
            running.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await running.wait()
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    assert "Traceback" not in log.read_text()


class Lists:
    """What the kubelet was sent, as the sets of GPUs whose devices were unhealthy.

    Attributes:
        history: resource -> one set for each list that came, in order; repeated ones are left out.
        gpus: resource -> the GPUs of the last list.
    """

    def __init__(self, node: SimulatedNode, monkeypatch: pytest.MonkeyPatch) -> None:
        self.history: dict[str, list[frozenset[str]]] = {resource: [] for resource in RESOURCES}
        self.gpus: dict[str, frozenset[str]] = {}
        self._news = asyncio.Event()
        self._take = node.kubelet.plugin_listed
        monkeypatch.setattr(node.kubelet, "plugin_listed", self._listed)

    def _listed(self, resource: str, devices: dict[str, bool]) -> None:
        by_gpu: dict[str, set[bool]] = {}
        for text, healthy in devices.items():
            by_gpu.setdefault(parse_device_id(text).gpu, set()).add(healthy)
        assert all(len(states) == 1 for states in by_gpu.values()), "all slices of a GPU share its health"
        ill = frozenset(gpu for gpu, states in by_gpu.items() if states == {False})
        if not self.history[resource] or self.history[resource][-1] != ill:
            self.history[resource].append(ill)
        self.gpus[resource] = frozenset(by_gpu)
        self._take(resource, devices)
        self._news.set()

    async def until_ill(self, *gpus: str) -> None:
        """Wait until the kubelet knows of both resources that exactly these GPUs are ill."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while any(not seen or seen[-1] != {*gpus} for seen in self.history.values()):
                self._news.clear()
                await self._news.wait()

    def assert_only(self, *want: set[str]) -> None:
        """Both resources went through these states, and no other."""
        expected = [frozenset(ill) for ill in want]
        assert self.history == dict.fromkeys(RESOURCES, expected)


@pytest.fixture
def lists(node: SimulatedNode, monkeypatch: pytest.MonkeyPatch) -> Lists:
    return Lists(node, monkeypatch)


def change(node: SimulatedNode, uuid: str, **fields: Any) -> None:
    """Change one GPU."""
    state = node.folder / "nvml.json"
    write_state(state, [dataclasses.replace(gpu, **fields) if gpu.uuid == uuid else gpu for gpu in read_state(state)])


def xids(*numbers: int) -> list[SimulatedXid]:
    return [SimulatedXid(count, xid) for count, xid in enumerate(numbers, start=1)]


async def gpunode(node: SimulatedNode, *, ill: set[str]) -> Object:
    """Wait until the GPUNode names exactly these GPUs as ill."""
    return await node.until(
        "gpunodes",
        NODE,
        lambda found: {gpu["uuid"] for gpu in found["spec"]["gpus"] if gpu.get("healthy") is False} == ill,
    )


async def test_it_starts_advertises_and_grants(node: SimulatedNode, library: Path, lists: Lists) -> None:
    async with native(node, library) as plugin:
        await allocatable(node, units=240, seats=12)
        lists.assert_only(set())
        assert lists.gpus == dict.fromkeys(RESOURCES, frozenset({A, B, C}))
        uid = await node.create("first", {"main": [Share(B, 8)]})
        await node.until_phase("first", "Running")
        assert node.kubelet.container(uid, "main").visible_gpus() == {B}
        shown = await node.until_granted(uid)
        found = {key: gpu_of(shown, C)[key] for key in ("index", "product", "memoryMiB", "units", "replicas")}
        assert found == {"index": 2, "product": "NVIDIA A100", "memoryMiB": 40960, "units": 80, "replicas": 4}
    assert plugin.running.returncode == 0


async def test_what_containers_use_is_in_the_gpunode(node: SimulatedNode, library: Path) -> None:
    async with native(node, library, "--usage-seconds", "1"):
        await allocatable(node, units=240, seats=12)
        uid = await node.create("infer", {"main": [Share(B, 8)]})
        await node.until_phase("infer", "Running")
        change(node, B, processes=[GpuProcess(node.kubelet.container(uid, "main").pid, 3000)])
        want = {"podUID": uid, "container": "main", "gpu": B, "usedMiB": 3000}
        holders = [uid]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while want not in (shown := await node.until_granted(*holders))["status"].get("usage", ()):
                # A grant is news, along which the last measurement goes.
                holders.append(await node.create(f"other-{len(holders)}", {"main": [Share(A, 1)]}))
        moment = datetime.fromisoformat(shown["status"]["usageTime"])
        assert abs(datetime.now(UTC) - moment) < timedelta(seconds=PATIENCE_SECONDS)


# --- MIG


async def test_mixed_instances_and_an_xid_of_one_of_them(node: SimulatedNode, library: Path, lists: Lists) -> None:
    large = instance(MIG_3, 2, profile="3g.20gb", memory_mib=19968)
    gpus = [THREE[0], dataclasses.replace(THREE[1], mig=[instance(MIG_1, 7), instance(MIG_2, 8), large])]
    async with native(node, library, "--mig-strategy", "mixed", gpus=gpus) as plugin:
        await allocatable(node, units=80 + 9 + 9 + 39, seats=16)
        running = await node.create("running", {"main": [Share(MIG_1, 9)]})
        await node.until_phase("running", "Running")
        assert node.kubelet.container(running, "main").visible_gpus() == {MIG_1}

        change(node, B, xids=[SimulatedXid(1, 79, gpu_instance=7, compute_instance=0)])
        await lists.until_ill(MIG_1)
        await allocatable(node, units=80 + 9 + 39, seats=12)
        shown = await gpunode(node, ill={MIG_1})
        assert "Xid 79" in gpu_of(shown, MIG_1)["problem"]
        beside = await node.create("beside", {"main": [Share(MIG_2, 9)]})
        await node.until_phase("beside", "Running")
        assert node.kubelet.container(running, "main").exit_code is None
        await node.until_granted(running, beside)

        # One that names no instance is the whole GPU's.
        state = node.folder / "nvml.json"
        change(node, B, xids=[*read_state(state)[1].xids, SimulatedXid(2, 79)])
        await lists.until_ill(MIG_1, MIG_2, MIG_3)
        await allocatable(node, units=80, seats=4)
        lists.assert_only(set(), {MIG_1}, {MIG_1, MIG_2, MIG_3})
    assert plugin.running.returncode == 0


async def test_single_shares_the_instances_of_one_profile(node: SimulatedNode, library: Path) -> None:
    gpus = [dataclasses.replace(THREE[0], mig=[instance(MIG_1, 7), instance(MIG_2, 8)])]
    async with native(node, library, "--mig-strategy", "single", gpus=gpus) as plugin:
        await allocatable(node, units=18, seats=8)
        uid = await node.create("small", {"main": [Share(MIG_2, 9)]})
        await node.until_phase("small", "Running")
        assert node.kubelet.container(uid, "main").visible_gpus() == {MIG_2}
    assert plugin.running.returncode == 0


@pytest.mark.parametrize(
    ("gpus", "want"),
    [
        (
            [dataclasses.replace(THREE[0], mig=[instance(MIG_1, 7), instance(MIG_3, 2, profile="3g.20gb")])],
            ["1g.5gb, 3g.20gb"],
        ),
        ([THREE[0], dataclasses.replace(THREE[1], mig=[instance(MIG_1, 7)])], [f"{B} is and {A} is not"]),
    ],
    ids=["profiles", "modes"],
)
async def test_single_is_refused_where_gpus_differ(
    node: SimulatedNode, library: Path, lists: Lists, gpus: list[SimulatedGpu], want: list[str]
) -> None:
    async with native(node, library, "--mig-strategy", "single", gpus=gpus) as plugin:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await plugin.running.wait()
    assert plugin.running.returncode == 2
    said = plugin.log.read_text()
    for part in ("--mig-strategy is single", "use mixed", *want):
        assert part in said
    assert lists.gpus == {}


# --- health


async def test_an_xid_takes_its_gpu_and_only_that(node: SimulatedNode, library: Path, lists: Lists) -> None:
    async with native(node, library) as plugin:
        await allocatable(node, units=240, seats=12)
        running = await node.create("running", {"main": [Share(A, 8)]})
        await node.until_phase("running", "Running")
        change(node, A, xids=xids(79))
        status = (await allocatable(node, units=160, seats=8))["status"]
        assert (status["capacity"][RESOURCE_MEMORY], status["capacity"][RESOURCE_REPLICA]) == ("240", "12")
        shown = await gpunode(node, ill={A})
        assert "Xid 79" in gpu_of(shown, A)["problem"]
        await node.create("refused", {"main": [Share(A, 8)]})
        await node.until_phase("refused", "Failed")
        beside = await node.create("beside", {"main": [Share(B, 8)]})
        await node.until_phase("beside", "Running")
        assert node.kubelet.container(running, "main").exit_code is None
        await node.until_granted(running, beside)
        lists.assert_only(set(), {A})
    assert plugin.running.returncode == 0


async def test_the_xids_of_applications_say_nothing_of_a_gpu(node: SimulatedNode, library: Path, lists: Lists) -> None:
    ignored = (13, 31, 43, 45, 68, 109)
    async with native(node, library) as plugin:
        await lists.until_ill()
        change(node, A, xids=xids(*ignored))
        for number in ignored:
            await plugin.until_logged('"Xid error"', f'"xid":{number},', '"ignored":true')
        change(node, B, xids=xids(79))
        await lists.until_ill(B)
        lists.assert_only(set(), {B})
        await allocatable(node, units=160, seats=8)


async def test_other_xids_can_be_ignored_instead(node: SimulatedNode, library: Path, lists: Lists) -> None:
    async with native(node, library, "--ignored-xids", "79,95") as plugin:
        await lists.until_ill()
        change(node, A, xids=xids(79, 95))
        await plugin.until_logged('"Xid error"', '"xid":95,', '"ignored":true')
        change(node, B, xids=xids(13))
        await lists.until_ill(B)
        lists.assert_only(set(), {B})


async def test_memory_errors_and_failed_remaps_and_their_end(node: SimulatedNode, library: Path, lists: Lists) -> None:
    async with native(node, library) as plugin:
        await lists.until_ill()
        state = node.folder / "nvml.json"
        a, b, c = read_state(state)
        failing = dataclasses.replace(b, remapped=RemappedRows(uncorrected=1, failure=True))
        pending = dataclasses.replace(c, remapped=RemappedRows(uncorrected=1, pending=True))
        write_state(state, [dataclasses.replace(a, ecc_uncorrected=2), failing, pending])
        await lists.until_ill(A, B)
        shown = await gpunode(node, ill={A, B})
        assert "cannot be corrected (ECC)" in gpu_of(shown, A)["problem"]
        assert "row of its memory has failed" in gpu_of(shown, B)["problem"]
        await allocatable(node, units=80, seats=4)
        write_state(state, [a, b, pending])
        await lists.until_ill()
        await allocatable(node, units=240, seats=12)
        lists.assert_only(set(), {A, B}, set())
    assert "will be replaced when it is next reset" in plugin.log.read_text()


async def test_health_checks_that_are_left_out(node: SimulatedNode, library: Path, lists: Lists) -> None:
    async with native(node, library, "--disable-health-checks", "xids,row-remap") as plugin:
        await lists.until_ill()
        change(node, A, xids=xids(79), remapped=RemappedRows(failure=True))
        await plugin.until_logged('"Xid error"', '"xid":79,', '"ignored":true')
        change(node, B, ecc_uncorrected=1)  # seen by a look that sees A's remapping too
        await lists.until_ill(B)
        lists.assert_only(set(), {B})


async def test_without_any_health_check(node: SimulatedNode, library: Path, lists: Lists) -> None:
    async with native(node, library, "--disable-health-checks", "all") as plugin:
        await lists.until_ill()
        change(node, A, xids=xids(79))
        await plugin.until_logged('"Xid error"', '"xid":79,', '"ignored":true')
        await node.create("first", {"main": [Share(A, 8)]})
        await node.until_phase("first", "Running")
        lists.assert_only(set())
