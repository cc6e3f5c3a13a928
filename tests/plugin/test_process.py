"""The plugin as the process that a node runs, on simulated GPUs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from fracgpu.kubelet import deviceplugin_pb2 as pb
from fracgpu.plans import Share
from playground.node.nvml import SimulatedGpu, install, write_state
from plugin.__main__ import main
from tests.plugin.builders import A, B
from tests.plugin.node import NODE, SimulatedNode

GPUS = [SimulatedGpu(uuid=uuid, product="NVIDIA A100", memory_mib=40960) for uuid in (A, B)]


@contextlib.asynccontextmanager
async def process(
    node: SimulatedNode, *more: str, gpus: Sequence[SimulatedGpu] | None = GPUS
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the plugin; it must have ended when this is left. Without `gpus` there is no driver."""
    state = node.folder / "nvml.json"
    if gpus is not None:
        write_state(state, gpus)
    kubeconfig = node.folder / "kubeconfig"
    kubeconfig.write_text(node.api.kubeconfig())
    arguments = {
        "--node-name": NODE,
        "--kubeconfig": kubeconfig,
        "--kubelet-socket": node.kubelet.plugins_folder / "kubelet.sock",
        "--port": 0,
        "--pod-resources-socket": node.kubelet.pod_resources_socket,
        "--cgroup-root": node.cgroup_root,
        "--ready-file": node.folder / "ready",
    }
    flat = [str(part) for pair in arguments.items() for part in pair]
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "playground.node.plugin_launcher", str(state), "--", *flat, *more),
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield running
        async with asyncio.timeout(20):
            await running.wait()
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def test_killed_with_pods_running_it_comes_back_and_gives_nothing_out_twice(node: SimulatedNode) -> None:
    async with process(node) as first:
        await node.kubelet.until_heard()
        assert (node.folder / "ready").exists()
        running = await node.create("running", {"main": [Share(A, 40)]})
        await node.until_phase("running", "Running")
        first.kill()
    async with process(node) as second:
        await node.kubelet.until_heard()
        await node.create("too-large", {"main": [Share(A, 41)]})
        await node.until_phase("too-large", "Failed")
        later = await node.create("later", {"main": [Share(A, 40)]})
        await node.until_phase("later", "Running")
        await node.until_granted(running, later)
        second.send_signal(signal.SIGTERM)
    assert second.returncode == 0
    assert second.stderr is not None
    assert b"Traceback" not in await second.stderr.read()


async def test_killed_between_the_answer_and_its_publication_it_forgets_nothing(
    node: SimulatedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pod is then force-deleted while its process lives: PodResources and the GPUNode do not know it."""
    async with process(node) as first:
        await node.kubelet.until_heard()
        await node.until_granted()
        allocate = node.kubelet._plugins.allocate

        async def allocate_and_kill(resource: str, ids: list[str]) -> pb.ContainerAllocateResponse:
            answer = await allocate(resource, ids)
            first.kill()
            return answer

        monkeypatch.setattr(node.kubelet._plugins, "allocate", allocate_and_kill)
        old = await node.create("old", {"main": [Share(A, 78)]})
        await node.until_phase("old", "Running")
    monkeypatch.undo()
    node.keep_processes_alive()
    await node.cluster.delete("pods", "old", namespace="team-a", grace_seconds=0)
    # The kill may have come too late for a plugin that publishes fast; no test can tell when.
    await node.cluster.patch("gpunodes", NODE, {"status": {"grants": []}}, subresource="status")
    async with process(node) as second:
        await node.kubelet.until_heard()
        await node.until_granted(old)
        await node.create("new", {"main": [Share(A, 78)]})
        pod = await node.until_phase("new", "Failed")
        assert "pod team-a/old was deleted or has ended" in pod["status"]["message"]
        node.let_processes_end()
        await node.until_granted()
        second.send_signal(signal.SIGTERM)
    assert second.returncode == 0


@pytest.mark.parametrize("has_gpunode", [True, False])
async def test_another_unit_waits_until_the_last_pod_has_ended(node: SimulatedNode, has_gpunode: bool) -> None:
    async with process(node) as first:
        await node.kubelet.until_heard()
        uid = await node.create("running", {"main": [Share(A, 40)]})
        await node.until_granted(uid)
        first.send_signal(signal.SIGTERM)
    if not has_gpunode:
        await node.cluster.delete("gpunodes", NODE)
    async with process(node, "--memory-unit-mib", "256") as second:
        waiting = await node.until("gpunodes", NODE, lambda found: "pendingMemoryUnitMiB" in found["spec"])
        assert (waiting["spec"]["memoryUnitMiB"], waiting["spec"]["pendingMemoryUnitMiB"]) == (512, 256)
        assert [gpu["units"] for gpu in waiting["spec"]["gpus"]] == [80, 80]
        assert [gpu["pending"] for gpu in waiting["spec"]["gpus"]] == [{"units": 160, "replicas": 4}] * 2
        await node.cluster.delete("pods", "running", namespace="team-a")
        changed = await node.until("gpunodes", NODE, lambda found: "pendingMemoryUnitMiB" not in found["spec"])
        assert changed["spec"]["memoryUnitMiB"] == 256
        assert [(gpu["units"], gpu.get("pending")) for gpu in changed["spec"]["gpus"]] == [(160, None)] * 2
        second.send_signal(signal.SIGTERM)
    assert second.returncode == 0


@pytest.mark.parametrize(
    ("flags", "code", "want"),
    [
        ([], 2, "--node-name (environment: FRACGPU_NODE_NAME) is missing"),
        (["--node-name", "n", "--replicas", "0"], 2, "--replicas (environment: FRACGPU_REPLICAS) is '0'"),
        (["--node-name", "n"], 1, "no NVIDIA driver on this node"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], code: int, want: str
) -> None:
    install(tmp_path / "missing.json")
    assert main(flags) == code
    assert want in capsys.readouterr().err


def test_gpus_that_cannot_be_divided_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_state(tmp_path / "nvml.json", [SimulatedGpu(uuid=A, product="NVIDIA", memory_mib=294912)])
    install(tmp_path / "nvml.json")
    assert main(["--node-name", "n", "--memory-unit-mib", "1"]) == 2
    assert "set --memory-unit-mib to 4 or more" in capsys.readouterr().err
    assert main(["--node-name", "n", "--cgroup-root", str(tmp_path / "none")]) == 2
    assert "mount the host's /sys/fs/cgroup" in capsys.readouterr().err
