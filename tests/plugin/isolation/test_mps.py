"""MPS: what a container is told, and the life of the daemon, with a stand-in for it as a real child process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fracgpu.errors import NoRoomError, UnavailableError
from fracgpu.trouble import Backoff
from plugin.handout import Mount
from plugin.isolation.mps import CONTROL, Mps, find_control, most_clients
from plugin.isolation.mps_daemon import PROBE, MpsDaemon
from tests.plugin.isolation.builders import A, B, RecordedModes, share

STAND_IN = Path(__file__).with_name("mps_stand_in.py")
DEADLINE_SECONDS = 20


class Node:
    """A node's folder for MPS, and what plugins on it have said."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modes = RecordedModes()
        self.shared_memory = root / "shm"
        self.problems: list[str] = []

    def daemon(self) -> MpsDaemon:
        """What a plugin that starts on this node makes."""
        daemon = MpsDaemon(
            STAND_IN,
            root=self.root,
            gpus=[A, B],
            modes=self.modes,
            on_change=lambda: self.problems.append(daemon.problem),
            shared_memory=self.shared_memory,
            check_seconds=0.05,
            backoff=Backoff(initial_seconds=0.01, max_seconds=0.01, rng=random.Random(1)),
        )
        return daemon

    @property
    def pid(self) -> int:
        """The process that says it is the daemon; 0 for none."""
        try:
            return int((self.root / "pipe/nvidia-cuda-mps-control.pid").read_text() or 0)
        except OSError:
            return 0


@pytest.fixture
def node() -> Iterator[Node]:
    # Not tmp_path: the path of a Unix socket ends at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mps") as folder:
        node = Node(Path(folder))
        yield node
        if node.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(node.pid, signal.SIGKILL)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not true():  # noqa: ASYNC110 (another process has no event)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(daemon: MpsDaemon) -> AsyncIterator[MpsDaemon]:
    task = asyncio.create_task(daemon.run())
    try:
        yield daemon
    finally:
        task.cancel()
        await asyncio.wait([task])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_the_daemon_gets_its_folders_and_the_gpus_exclusively(node: Node) -> None:
    async with running(node.daemon()) as daemon:
        assert daemon.problem
        await until(lambda: not daemon.problem)
        assert json.loads((node.root / "log/control.log").read_text()) == {
            "CUDA_MPS_PIPE_DIRECTORY": str(node.root / "pipe"),
            "CUDA_MPS_LOG_DIRECTORY": str(node.root / "log"),
            "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b",
        }
        assert node.modes.exclusive == {A: True, B: True}
        assert os.getsid(node.pid) == node.pid  # a signal to the plugin's group is not meant for it


async def test_a_killed_daemon_is_said_and_started_again(node: Node) -> None:
    async with running(node.daemon()) as daemon:
        await until(lambda: not daemon.problem)
        first = node.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: node.pid != first and not daemon.problem)
        assert daemon.losses == 1
        assert node.problems == [
            "",
            "the MPS daemon has ended; containers that used the GPU through it have to be started again",
            "",
        ]


async def test_a_daemon_that_does_not_answer_is_replaced(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugin.isolation.mps_daemon._ASK_SECONDS", 0.5)
    async with running(node.daemon()) as daemon:
        await until(lambda: not daemon.problem)
        first = node.pid
        (node.root / "pipe/deaf").touch()
        await until(lambda: bool(daemon.problem))
        (node.root / "pipe/deaf").unlink()
        await until(lambda: node.pid != first and not daemon.problem)
        assert not is_alive(first)


async def test_a_plugin_that_starts_again_takes_over_the_daemon_that_containers_use(node: Node) -> None:
    async with running(node.daemon()) as before:
        await until(lambda: not before.problem)
    pid = node.pid
    assert is_alive(pid)  # the plugin has ended, and its daemon serves on
    async with running(node.daemon()) as after:
        await until(lambda: not after.problem)
        assert node.pid == pid
        assert (node.root / "log/control.log").read_text().count("\n") == 1  # no second one was tried
        # Not after's child, so it learns of its end by asking.
        os.kill(pid, signal.SIGKILL)
        await until(lambda: node.pid != pid and not after.problem)


async def test_a_daemon_that_does_not_start_says_why(node: Node) -> None:
    (node.root / "pipe").mkdir()
    (node.root / "pipe/refuse").touch()
    async with running(node.daemon()) as daemon:
        await until(lambda: "Failed to start: no GPU is visible" in daemon.problem)
        (node.root / "pipe/refuse").unlink()
        await until(lambda: not daemon.problem)


async def test_other_shared_memory_than_the_containers_is_said_not_served(node: Node, tmp_path: Path) -> None:
    node.shared_memory = tmp_path / "absent"
    async with running(node.daemon()) as daemon:
        await until(lambda: str(node.shared_memory) in daemon.problem)
    assert not node.pid


async def test_the_daemons_shared_memory_is_bound_for_the_containers(node: Node, tmp_path: Path) -> None:
    """With the right to mount; without it, that is what is said."""
    node.shared_memory = tmp_path
    (tmp_path / "of the daemon").touch()
    async with running(node.daemon()) as daemon:
        await until(lambda: not daemon.problem or "give this plugin the right to mount" in daemon.problem)
        if daemon.problem:
            pytest.skip("needs the right to mount")
        try:
            assert (node.root / "shm/of the daemon").exists()
        finally:
            subprocess.run(["umount", node.root / "shm"], check=True)  # noqa: ASYNC221 (the end of the test)


async def test_a_compute_mode_that_cannot_be_set_is_said_not_served(node: Node) -> None:
    async def refuse(uuid: str, *, exclusive: bool) -> None:
        raise UnavailableError(f"NVML does not let us set the compute mode of {uuid}")

    node.modes.set = refuse  # type: ignore[method-assign]
    async with running(node.daemon()) as daemon:
        await until(lambda: "NVML does not let us set the compute mode of GPU-a" in daemon.problem)
    assert not node.pid


async def test_ending_it_opens_the_gpus_again_also_after_another_plugin(node: Node) -> None:
    async with running(node.daemon()) as before:
        await until(lambda: not before.problem)
    pid = node.pid
    after = node.daemon()
    await after.end()
    await before.end()  # its child has ended; this takes the exit status
    assert node.modes.exclusive == {A: False, B: False}
    assert not is_alive(pid)
    with pytest.raises(UnavailableError, match="Cannot find MPS control daemon process"):
        await after.ask(PROBE)


async def test_nothing_is_opened_that_was_not_closed(node: Node) -> None:
    await node.daemon().end()
    assert node.modes.exclusive == {}


async def test_without_the_program_nothing_is_served(node: Node) -> None:
    daemon = MpsDaemon(
        node.root / "absent",
        root=node.root,
        gpus=[A],
        modes=node.modes,
        on_change=lambda: None,
        shared_memory=node.shared_memory,
    )
    async with running(daemon):
        await until(lambda: "cannot be started: No such file or directory" in daemon.problem)


async def test_a_container_becomes_a_client_with_limits(node: Node) -> None:
    async with running(node.daemon()) as daemon:
        await until(lambda: not daemon.problem)
        mps = Mps(daemon, most_clients=48)
        two = [share(B, memory=8192, index=1), share(A, memory=4096, index=0)]
        pipe, shm = str(node.root / "pipe"), str(node.root / "shm")
        assert mps.edits(two, neighbours={}).env == {
            "CUDA_MPS_PIPE_DIRECTORY": pipe,
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=4096M,1=8192M",
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        }
        seats = mps.edits([share(memory=10240, seats=1, of_seats=3)], neighbours={A: 47})
        assert seats.env == {
            "CUDA_MPS_PIPE_DIRECTORY": pipe,
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=10240M",
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "33",
        }
        assert seats.mounts == (Mount(pipe, pipe, read_only=False), Mount(shm, "/dev/shm", read_only=False))
        with pytest.raises(NoRoomError, match="GPU GPU-a is lent to 48 containers, and MPS serves at most 48"):
            mps.edits(two, neighbours={A: 48})


def test_without_a_daemon_containers_are_refused_and_the_status_says_so(node: Node) -> None:
    mps = Mps(node.daemon(), most_clients=48, why_not_more="not driver-limit: it needs another driver")
    with pytest.raises(UnavailableError, match="through MPS, and the MPS daemon has not answered yet"):
        mps.edits([share()], neighbours={})
    assert mps.status.message.startswith("no GPU is handed out here now, because the MPS daemon has not answered yet; ")
    assert mps.status.message.endswith("; not driver-limit: it needs another driver")
    assert not mps.status.enforced


def test_the_program_is_found_on_the_path_and_below_the_drivers_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_control(tmp_path / "driver") is None
    below = tmp_path / "driver/usr/bin" / CONTROL
    on_path = tmp_path / "bin" / CONTROL
    for program, want in [(below, below), (on_path, on_path)]:
        program.parent.mkdir(parents=True)
        program.touch(mode=0o755)
        assert find_control(tmp_path / "driver") == want


def test_newer_drivers_serve_more_clients() -> None:
    assert [most_clients(version) for version in ("580.65.06", "590.44.01", "615.65.06")] == [48, 60, 60]
