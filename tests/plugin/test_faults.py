"""What befalls a node under the plugin's process: pods run on, nothing is handed out twice, the plugin comes back.

The kubelet is the playground's, which runs in this process and reaches the API server without HTTP: what is cut off
here is the plugin alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import grpc.aio
import pytest

from fracgpu.device_ids import parse_device_id
from fracgpu.kubelet import deviceplugin_pb2 as pb
from fracgpu.kubelet.deviceplugin_pb2_grpc import DevicePluginStub
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA
from fracgpu.plans import Share
from fracgpu.quantities import seat_units
from playground.node.containers import Container, ContainerConfig
from plugin.gpus.layout import RESOURCES
from plugin.granting.journal import JOURNAL
from plugin.injection.specfiles import OWN_FILE
from plugin.kubelet.front import SOCKETS
from tests.chaos.clock import ShiftedClock
from tests.plugin.builders import A, B, seat_share
from tests.plugin.injection.conftest import host
from tests.plugin.injection.host import Host
from tests.plugin.node import NODE, PATIENCE_SECONDS, SimulatedNode
from tests.plugin.test_following import allocatable, gpu_of, policy
from tests.plugin.test_native_process import THREE, Lists, change, library, lists, native
from tests.plugin.test_process import GPUS, process

__all__ = ["host", "library", "lists"]  # fixtures

UNITS: Final = 80
DAYS: Final = 86400
STOP_SECONDS: Final = 5.0
"""How long the plugin may take to end."""


@pytest.fixture(autouse=True)
def _nothing_twice(node: SimulatedNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compare what living processes hold whenever one more starts."""
    wrong: list[str] = []
    start = node.kubelet.runtime.start

    def start_and_count(config: ContainerConfig) -> Container:
        container = start(config)
        held = [text for given in node.kubelet.held_device_ids().values() for ids in given.values() for text in ids]
        wrong.extend(f"{text} is held {times} times" for text, times in Counter(held).items() if times > 1)
        used: Counter[str] = Counter()
        for device in map(parse_device_id, held):
            is_unit = device.resource == RESOURCE_MEMORY
            used[device.gpu] += 1 if is_unit else seat_units(1, replicas=4, units=UNITS)
        wrong.extend(f"{gpu} gave {units} units" for gpu, units in used.items() if units > UNITS)
        return container

    monkeypatch.setattr(node.kubelet.runtime, "start", start_and_count)
    yield
    assert wrong == []


async def ended(process: asyncio.subprocess.Process) -> int | None:
    """Ask a plugin to end, which it has to within the grace period."""
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(STOP_SECONDS):
        await process.wait()
    return process.returncode


async def log_of(process: asyncio.subprocess.Process) -> str:
    """All that an ended plugin has logged."""
    assert process.stderr is not None
    return (await process.stderr.read()).decode()


def is_alive(node: SimulatedNode, uid: Any) -> bool:
    return node.kubelet.container(uid, "main").exit_code is None


async def refused(node: SimulatedNode, name: str, share: Share) -> str:
    """Create a pod that fails; returns why.

    The kubelet counts units and seats apart: that seats take units with them only the plugin knows, by its own book.
    """
    await node.create(name, {"main": [share]})
    return str((await node.until_phase(name, "Failed"))["status"]["message"])


# --- the kubelet


@pytest.mark.parametrize("how", ["restarted", "its socket", "our socket", "all sockets"])
async def test_the_kubelet_is_reached_again(node: SimulatedNode, how: str) -> None:
    async with process(node) as plugin:
        await node.kubelet.until_heard()
        running = await node.create("running", {"main": [Share(A, 40)]})
        seated = await node.create("seated", {"main": [seat_share(B, 2)]})
        await node.until_phase("running", "Running")
        await node.until_phase("seated", "Running")
        folder = node.kubelet.plugins_folder
        node.kubelet.heard = asyncio.Queue()
        if how == "restarted":
            await node.kubelet.restart()
        elif how == "its socket":
            (folder / "kubelet.sock").rename(folder / "away")
            assert plugin.stderr is not None
            async for line in plugin.stderr:
                if b"waiting for the kubelet" in line:
                    break
            (folder / "away").rename(folder / "kubelet.sock")
        elif how == "our socket":
            for socket in SOCKETS.values():
                (folder / socket).unlink()
        else:
            await node.kubelet._plugins.stop()
            await node.kubelet._plugins.start()
        await node.kubelet.until_heard()
        await allocatable(node, units=160, seats=8)
        assert "has 2 of 4 seats free" in await refused(node, "too-large", seat_share(A, 3))
        fits = await node.create("fits", {"main": [Share(A, 40)]})
        await node.until_phase("fits", "Running")
        beside = await node.create("beside", {"main": [seat_share(B, 2)]})
        await node.until_phase("beside", "Running")
        await node.until_granted(running, seated, fits, beside)
        assert is_alive(node, running)
        assert is_alive(node, seated)
        assert await ended(plugin) == 0
    assert "Traceback" not in await log_of(plugin)


async def test_capacity_stays_while_the_plugin_is_exchanged(node: SimulatedNode) -> None:
    async with process(node) as first:
        await allocatable(node, units=160, seats=8)
        async with offers(node) as seen:
            running = await node.create("running", {"main": [Share(A, 40)]})
            await node.until_phase("running", "Running")
            assert await ended(first) == 0
            await allocatable(node, units=0, seats=0)
            assert "no healthy devices present" in await refused(node, "meanwhile", Share(B, 8))
            async with process(node) as second:
                await allocatable(node, units=160, seats=8)
                assert is_alive(node, running)
                assert "has 2 of 4 seats free" in await refused(node, "too-large", seat_share(A, 3))
                assert await ended(second) == 0
                await allocatable(node, units=0, seats=0)
    assert {offer["capacity"] for offer in seen} == {("160", "8")}
    assert {("0", "0"), ("160", "8")} <= {offer["allocatable"] for offer in seen}


@contextlib.asynccontextmanager
async def offers(node: SimulatedNode) -> AsyncIterator[list[dict[str, tuple[str | None, str | None]]]]:
    """What the Node offers of the two resources, version by version, from now on."""
    seen: list[dict[str, tuple[str | None, str | None]]] = []
    _, version = await node.cluster.list("nodes")

    async def follow() -> None:
        async for event in node.cluster.watch("nodes", resource_version=version):
            status = event.object["status"]
            seen.append(
                {
                    part: (status[part].get(RESOURCE_MEMORY), status[part].get(RESOURCE_REPLICA))
                    for part in ("capacity", "allocatable")
                }
            )

    following = asyncio.create_task(follow())
    try:
        yield seen
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@pytest.mark.parametrize("hints", [True, False])
async def test_numa_nodes_are_told_where_that_is_asked_for(node: SimulatedNode, hints: bool) -> None:
    gpus = [dataclasses.replace(gpu, numa_node=index) for index, gpu in enumerate(GPUS)]
    flags = ["--numa-hints"] if hints else []
    async with process(node, *flags, gpus=gpus) as plugin:
        await node.kubelet.until_heard()
        for resource in RESOURCES:
            told = await _topology(node, resource)
            assert told == ({A: {(0,)}, B: {(1,)}} if hints else {A: {()}, B: {()}})
        shown = await node.until_granted()
        assert shown["spec"].get("numaHints", False) is hints
        assert [gpu["numaNode"] for gpu in shown["spec"]["gpus"]] == [0, 1]
        await node.create("first", {"main": [Share(B, 8)]})
        await node.until_phase("first", "Running")
        assert await ended(plugin) == 0


async def _topology(node: SimulatedNode, resource: str) -> dict[str, set[tuple[int, ...]]]:
    """GPU -> the NUMA nodes that its devices name, as a kubelet would be told."""
    told: dict[str, set[tuple[int, ...]]] = {}
    socket = node.kubelet.plugins_folder / SOCKETS[resource]
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        async for answer in DevicePluginStub(channel).ListAndWatch(pb.Empty()):
            for device in answer.devices:
                numbers = tuple(found.ID for found in device.topology.nodes)
                told.setdefault(parse_device_id(device.ID).gpu, set()).add(numbers)
            break
    return told


# --- the plugin is killed


async def test_killed_while_it_tells_of_an_ill_gpu(
    node: SimulatedNode, lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with process(node) as first:
        await lists.until_ill()
        running = await node.create("running", {"main": [Share(A, 40)]})
        await node.until_phase("running", "Running")
        listed = node.kubelet.plugin_listed

        def take_and_kill(resource: str, devices: dict[str, bool]) -> None:
            first.kill()
            listed(resource, devices)

        with monkeypatch.context() as patch:
            patch.setattr(node.kubelet, "plugin_listed", take_and_kill)
            change(node, A, ecc_uncorrected=1)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await first.wait()
            await allocatable(node, units=0, seats=0)
    assert first.returncode == -signal.SIGKILL
    assert is_alive(node, running)
    async with process(node, gpus=None) as second:
        await lists.until_ill(A)
        await allocatable(node, units=80, seats=4)
        await refused(node, "refused", Share(A, 8))
        beside = await node.create("beside", {"main": [Share(B, 80)]})
        await node.until_phase("beside", "Running")
        await node.until_granted(running, beside)
        change(node, A, ecc_uncorrected=0)
        await lists.until_ill()
        assert "has 2 of 4 seats free" in await refused(node, "too-large", seat_share(A, 3))
        assert await ended(second) == 0


async def test_killed_while_gpus_are_divided_anew(node: SimulatedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the GPU that a pod holds nothing changes, before and after; the other changes once."""
    async with process(node) as first:
        await allocatable(node, units=160, seats=8)
        running = await node.create("running", {"main": [Share(A, 40)]})
        await node.until_phase("running", "Running")
        listed = node.kubelet.plugin_listed
        with monkeypatch.context() as patch:

            def take_and_kill(resource: str, devices: dict[str, bool]) -> None:
                first.kill()
                listed(resource, devices)

            patch.setattr(node.kubelet, "plugin_listed", take_and_kill)
            await node.cluster.create("sharingpolicies", policy("all", replicas=8, reservedMiB=1024))
            async with asyncio.timeout(PATIENCE_SECONDS):
                await first.wait()
    async with process(node) as second:
        await allocatable(node, units=158, seats=12)
        shown = await node.until("gpunodes", NODE, lambda found: bool(gpu_of(found, A).get("pending")))
        found = {uuid: (gpu_of(shown, uuid)["units"], gpu_of(shown, uuid)["replicas"]) for uuid in (A, B)}
        assert found == {A: (80, 4), B: (78, 8)}
        assert gpu_of(shown, A)["pending"] == {"units": 78, "replicas": 8}
        assert is_alive(node, running)
        assert "has 2 of 4 seats free" in await refused(node, "too-large", seat_share(A, 3))
        fits = await node.create("fits", {"main": [Share(A, 40)]})
        await node.until_phase("fits", "Running")
        await node.until_granted(running, fits)
        for name in ("running", "fits"):
            await node.cluster.delete("pods", name, namespace="team-a")
        await allocatable(node, units=156, seats=16)
        assert await ended(second) == 0


# --- the API server


class Way:
    """The way to the API server, which can be cut and mended; its address stays the same."""

    def __init__(self, target: str) -> None:
        self._target = int(target.rpartition(":")[2])
        self._server: asyncio.Server | None = None
        self._port = 0
        self._connections: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Refuse connections, and break those that there are."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._connections):
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        ends = {writer, far_writer}
        self._connections |= ends
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            self._connections -= ends


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def way(node: SimulatedNode, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Way]:
    """The plugin's way to the API server."""
    way = Way(node.api.url)
    await way.mend()
    monkeypatch.setattr(node.api, "url", way.url)
    yield way
    way.cut()


async def test_the_api_server_is_away_for_a_while(node: SimulatedNode, way: Way) -> None:
    async with process(node) as plugin:
        await node.kubelet.until_heard()
        stays = await node.create("stays", {"main": [Share(A, 40)]})
        goes = await node.create("goes", {"main": [Share(B, 40)]})
        await node.until_granted(stays, goes)
        way.cut()
        await node.cluster.delete("pods", "goes", namespace="team-a")
        await node.kubelet.container(goes, "main").ended.wait()
        assert "the API server has not told of it" in await refused(node, "unheard", Share(B, 8))
        await way.mend()
        await node.until_granted(stays)
        assert "has 2 of 4 seats free" in await refused(node, "too-large", seat_share(A, 3))
        later = await node.create("later", {"main": [Share(B, 80)]})
        await node.until_phase("later", "Running")
        await node.until_granted(stays, later)
        assert is_alive(node, stays)
        assert await ended(plugin) == 0
    assert "Traceback" not in await log_of(plugin)


async def test_the_plugin_is_restarted_while_the_api_server_is_away(node: SimulatedNode, way: Way) -> None:
    """It serves nobody before it knows what is granted, and can be ended meanwhile."""
    async with process(node) as first:
        await node.kubelet.until_heard()
        stays = await node.create("stays", {"main": [Share(A, 40)]})
        goes = await node.create("goes", {"main": [Share(B, 40)]})
        await node.until_granted(stays, goes)
        way.cut()
        assert await ended(first) == 0
    node.kubelet.heard = asyncio.Queue()
    async with process(node) as second:
        assert second.stderr is not None
        async for line in second.stderr:
            if b'"trouble"' in line:
                break
        assert await ended(second) == 0
    async with process(node) as third:
        assert third.stderr is not None
        async for line in third.stderr:
            if b'"trouble"' in line:
                break
        await node.cluster.delete("pods", "goes", namespace="team-a")
        await node.kubelet.container(goes, "main").ended.wait()
        assert node.kubelet.heard.empty()
        await way.mend()
        await node.kubelet.until_heard()
        await node.until_granted(stays)
        assert "has 2 of 4 seats free" in await refused(node, "too-large", seat_share(A, 3))
        later = await node.create("later", {"main": [Share(B, 80)]})
        await node.until_phase("later", "Running")
        await node.until_granted(stays, later)
        assert is_alive(node, stays)
        assert await ended(third) == 0


# --- clock and disk


async def test_the_clock_jumps_two_days_ahead_and_four_back(
    node: SimulatedNode, lists: Lists, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ShiftedClock(tmp_path, program=Path(sys.executable))
    if clock.missing:
        pytest.skip(clock.missing)
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    async with process(node) as plugin:
        await lists.until_ill()
        first = await node.create("first", {"main": [Share(A, 40)]})
        await node.until_granted(first)
        clock.set(seconds=2 * DAYS)
        second = await node.create("second", {"main": [Share(A, 40)]})
        await node.until_granted(first, second)
        clock.set(seconds=-2 * DAYS)
        assert "has 0 of 4 seats free" in await refused(node, "too-many", seat_share(A, 1))
        await node.cluster.delete("pods", "first", namespace="team-a")
        await node.until_granted(second)
        third = await node.create("third", {"main": [Share(A, 40)]})
        await node.until_granted(second, third)
        change(node, B, ecc_uncorrected=1)
        await lists.until_ill(B)
        assert is_alive(node, second)
        lists.assert_only(set(), {B})
        assert await ended(plugin) == 0
    days = re.findall(r'"time":"\d+-\d+-(\d+)T', await log_of(plugin))
    assert len(set(days)) >= 3, "the clock did jump"


async def test_the_disk_of_the_journal_is_full(node: SimulatedNode) -> None:
    draft = node.kubelet.plugins_folder / f".{JOURNAL}"
    async with process(node) as first:
        await node.kubelet.until_heard()
        running = await node.create("running", {"main": [Share(A, 40)]})
        await node.until_granted(running)
        draft.symlink_to("/dev/full")
        message = await refused(node, "refused", Share(A, 8))
        assert "cannot write its grants" in message
        assert "No space left on device" in message
        await node.until_granted(running)
        first.kill()
    async with process(node) as second:
        await node.kubelet.until_heard()
        assert "No space left on device" in await refused(node, "again", Share(A, 8))
        draft.unlink()
        later = await node.create("later", {"main": [Share(A, 40)]})
        await node.until_phase("later", "Running")
        assert "has 0 of 4 seats free" in await refused(node, "too-many", seat_share(A, 1))
        await node.until_granted(running, later)
        assert is_alive(node, running)
        assert await ended(second) == 0
    assert "Traceback" not in await log_of(second)


IMPATIENT: Final = (
    "import sys\nfrom plugin import means\nassert means._PREPARE_SECONDS\nmeans._PREPARE_SECONDS = 0.2\n"
    "from plugin.__main__ import main\nsys.exit(main())"
)
"""The plugin, which looks again after 0.2 s instead of half a minute."""


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of which a file `filler` takes all that is left."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be made here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filler


async def test_the_disk_of_the_cdi_specification_is_full(node: SimulatedNode, library: Path, host: Host) -> None:
    host.add_driver(version="580.95.05")
    host.add_nodes("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", *(f"nvidia{gpu.minor}" for gpu in THREE))
    flags = ("--device-list-strategy", "cdi-cri", "--host-root", str(host.root), "--cdi-spec-dir", str(host.cdi))
    with small_disk(host.cdi):
        filler = fill(host.cdi)
        async with native(node, library, *flags, program=("-c", IMPATIENT)) as first:
            await allocatable(node, units=240, seats=12)
            message = await refused(node, "refused", Share(A, 8))
            assert OWN_FILE in message
            assert "cannot be written (No space left on device)" in message
            filler.unlink()
            await first.until_logged('"recovered"', "letting containers see GPUs")
            running = await node.create("running", {"main": [Share(A, 40)]})
            await node.until_phase("running", "Running")
            assert node.kubelet.container(running, "main").config.cdi_devices == (f"fracgpu.io/gpu={A}",)
            await node.until_granted(running)
        # It is full again, but the specification is there and says what has to be said.
        fill(host.cdi)
        async with native(node, library, *flags):
            await node.kubelet.until_heard()
            await allocatable(node, units=240, seats=12)
            assert "has 2 of 4 seats free" in await refused(node, "too-large", seat_share(A, 3))
            later = await node.create("later", {"main": [Share(A, 40)]})
            await node.until_phase("later", "Running")
            await node.until_granted(running, later)
            assert is_alive(node, running)


async def test_the_folder_of_the_cdi_specification_cannot_be_made(
    node: SimulatedNode, library: Path, host: Host
) -> None:
    host.add_driver(version="580.95.05")
    host.add_nodes("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", *(f"nvidia{gpu.minor}" for gpu in THREE))
    host.add("/run/cdi")
    flags = ("--device-list-strategy", "cdi-cri", "--host-root", str(host.root), "--cdi-spec-dir", str(host.cdi))
    async with native(node, library, *flags, program=("-c", IMPATIENT)) as plugin:
        await allocatable(node, units=240, seats=12)
        assert f"the CDI specification {host.cdi / OWN_FILE} cannot be written" in await refused(
            node, "refused", Share(A, 8)
        )
        host.cdi.unlink()
        await plugin.until_logged('"recovered"', "letting containers see GPUs")
        running = await node.create("running", {"main": [Share(A, 40)]})
        await node.until_phase("running", "Running")
        await node.until_granted(running)
