"""What only a real GPU can tell: whether MPS and the driver refuse memory, and what NVML says of processes.

What was seen is recorded in docs/isolation.md, dated.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fracgpu.names import GpuUuid
from plugin.handout import LentShare
from plugin.isolation.driver_limit import FIRST_DRIVER, driver_major
from plugin.isolation.mps import Mps, find_control
from plugin.isolation.mps_daemon import MpsDaemon
from tests.plugin.isolation.builders import RecordedModes, card, share

PROBE = Path(__file__).with_name("cuda_probe.py")
OUT_OF_MEMORY = 2
LIMIT_MIB = 2048  # a CUDA context takes some hundred MiB of it
WITHIN_MIB, BEYOND_MIB = 512, 4096


def _query(field: str) -> str:
    """A field of the first GPU, or nothing where there is none."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--id=0", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return asked.stdout.strip() if asked.returncode == 0 else ""


UUID = GpuUuid(_query("uuid"))
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not UUID, reason="needs a real NVIDIA GPU: nvidia-smi does not answer on this machine"),
]


@contextmanager
def probing(*mib: int, env: Mapping[str, str] | None = None, cgroup: Path | None = None) -> Iterator[dict[str, Any]]:
    """Run the probe, in a cgroup if one is given; it holds its memory until the end of the block."""

    def enter() -> None:
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))

    with subprocess.Popen(
        [sys.executable, str(PROBE), *map(str, mib)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": UUID, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=enter,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the probe has failed; its standard error says why"
        yield {**json.loads(line), "pid": process.pid}
        process.stdin.close()


def lent() -> LentShare:
    return share(lent=card(UUID), memory=LIMIT_MIB)


def test_without_isolation_nothing_is_refused() -> None:
    with probing(WITHIN_MIB, BEYOND_MIB) as seen:
        assert seen["results"] == [0, 0]


async def test_mps_refuses_a_process_more_than_its_share() -> None:
    control = find_control(Path("/"))
    if control is None:
        pytest.skip("needs nvidia-cuda-mps-control")
    with tempfile.TemporaryDirectory(prefix="mps") as folder:
        root = Path(folder)
        (root / "shm").symlink_to("/dev/shm")
        # The compute mode is left alone: it is the machine's.
        daemon = MpsDaemon(control, root=root, gpus=[UUID], modes=RecordedModes(), on_change=lambda: None)
        running = asyncio.create_task(daemon.run())
        try:
            async with asyncio.timeout(60):
                while daemon.problem:  # noqa: ASYNC110 (another process has no event)
                    await asyncio.sleep(0.1)
            edits = Mps(daemon, most_clients=48).edits([lent()], neighbours={})
            with probing(WITHIN_MIB, BEYOND_MIB, env=edits.env) as seen:
                assert seen["results"] == [0, OUT_OF_MEMORY]
                assert (await daemon.ask("get_server_list")).split(), "the probe has not used MPS"
        finally:
            running.cancel()
            await asyncio.wait([running])
            await daemon.end()


@pytest.fixture
def limited_cgroup() -> Iterator[Path]:
    """A cgroup with the driver's limit of LIMIT_MIB on the first GPU, as the toolkit's hook sets it."""
    version = _query("driver_version")
    if driver_major(version) < FIRST_DRIVER:
        pytest.skip(f"needs the driver R{FIRST_DRIVER} or newer, and this is {version}")
    root = Path("/sys/fs/cgroup")
    if not (root / "cgroup.controllers").exists() or not os.access(root, os.W_OK):
        pytest.skip("needs a cgroup v2 hierarchy that may be written")
    cgroup = root / f"fracgpu-test-{os.getpid()}"
    cgroup.mkdir()
    limits = ["nvidia-smi", "memory-limits", "--set", "--namespace", str(cgroup), "-i", "0", "--soft-limit"]
    try:
        subprocess.run([*limits, str(LIMIT_MIB), "--hard-limit", str(LIMIT_MIB)], check=True, timeout=60)
        yield cgroup
    finally:
        # The driver keeps a guarantee that is not taken back before its cgroup goes.
        subprocess.run([*limits, "0", "--hard-limit", str(LIMIT_MIB)], check=False, timeout=60)
        cgroup.rmdir()


def test_the_driver_refuses_a_cgroup_more_than_its_limit(limited_cgroup: Path) -> None:
    with probing(WITHIN_MIB, BEYOND_MIB, cgroup=limited_cgroup) as seen:
        assert seen["results"] == [0, OUT_OF_MEMORY]
        assert seen["total_mib"] <= LIMIT_MIB


def test_the_driver_counts_all_processes_of_a_cgroup_together(limited_cgroup: Path) -> None:
    part = LIMIT_MIB * 2 // 3
    with probing(part, cgroup=limited_cgroup) as first, probing(part, cgroup=limited_cgroup) as second:
        assert (first["results"], second["results"]) == ([0], [OUT_OF_MEMORY])


def test_nvml_says_what_a_process_uses() -> None:
    with probing(WITHIN_MIB) as seen:
        command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        used = dict(line.split(", ") for line in listed.splitlines())
        if str(seen["pid"]) not in used:
            pytest.skip(f"NVML lists the PIDs of another PID namespace here: {sorted(used)}")
        assert int(used[str(seen["pid"])]) >= WITHIN_MIB
