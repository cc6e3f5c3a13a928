"""One life of the plugin follows another, and what must not be lost between them."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fracgpu.kube.client import KubeClient
from fracgpu.plans import Share
from fracgpu.sharing import SharingSpec
from playground.node.nvml import (
    SimulatedDriver,
    SimulatedGpu,
    SimulatedMig,
    SimulatedXid,
    compute_mode,
    install,
    read_state,
    write_state,
)
from plugin.cluster.policies import PolicyWatch
from plugin.gpus.session import GpuSession
from plugin.settings import PluginSettings
from tests.plugin.builders import B, seat_share
from tests.plugin.node import NODE, SimulatedNode
from tests.plugin.test_process import process

UUIDS = [f"GPU-fef8089b-4820-abfc-e83e-94318197570{number}" for number in range(8)]
GPUS = [SimulatedGpu(uuid=uuid, product="NVIDIA A100", memory_mib=81920, minor=n) for n, uuid in enumerate(UUIDS)]
DIVIDED = dataclasses.replace(
    GPUS[0], mig=[SimulatedMig(uuid="MIG-1", memory_mib=10240, profile="1g.10gb", gpu_instance=1)]
)
STAND_IN = Path(__file__).parent / "isolation" / "mps_stand_in.py"


@asynccontextmanager
async def plugin_with_file(
    node: SimulatedNode, *flags: str, content: str = "", gpus: list[SimulatedGpu]
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    file = node.folder / "config.yaml"
    file.write_text(f"version: v1alpha1\n{content}")
    async with process(node, "--config-file", str(file), *flags, gpus=gpus) as running:
        assert running.stderr is not None
        draining = asyncio.create_task(running.stderr.read())
        await node.kubelet.until_heard()
        try:
            yield running, file
        finally:
            if running.returncode is None:
                running.send_signal(signal.SIGTERM)
            await running.wait()
            await draining


@pytest.mark.parametrize(
    ("content", "gpus"),
    [
        ("memoryUnitMiB: 1\n", GPUS),
        ("migStrategy: single\n", [DIVIDED, GPUS[1]]),
        ("preloadLibrary: /x.so\npreloadEnv: ['X={foo}']\n", GPUS[:1]),
        ("host: 203.0.113.7\n", GPUS[:1]),
        ("nvidiaDriverRoot: relative\n", GPUS[:1]),
    ],
)
async def test_a_file_that_cannot_work_on_this_node_changes_nothing(
    node: SimulatedNode, content: str, gpus: list[SimulatedGpu]
) -> None:
    async with plugin_with_file(node, content="migStrategy: mixed\n", gpus=gpus) as (running, file):
        file.write_text(f"version: v1alpha1\n{content}")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4):
                await running.wait()


async def test_a_change_of_settings_while_the_driver_is_away_waits_for_it(node: SimulatedNode) -> None:
    state = node.folder / "nvml.json"
    async with plugin_with_file(node, "--no-fail-on-init-error", gpus=GPUS[:1]) as (running, file):
        write_state(state, read_state(state), driver=SimulatedDriver(generation=1, loaded=False))
        await node.until("gpunodes", NODE, lambda found: not found["spec"]["gpus"][0].get("healthy", True))
        file.write_text("version: v1alpha1\nusageSeconds: 20\n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4):
                await running.wait()


@pytest.mark.parametrize("replicas", [2, 8])
async def test_seats_planned_in_another_division_are_not_given_in_this_one(node: SimulatedNode, replicas: int) -> None:
    async with node.plugin() as plugin:
        plugin.follow_rules([SharingSpec(replicas=replicas)])
        await node.until("gpunodes", NODE, lambda found: found["spec"]["gpus"][1]["replicas"] == replicas)
        await node.create("late", {"main": [seat_share(B, 1)]})  # planned as 1 of 4 seats: 20 units
        await node.until_phase("late", "Failed")


async def test_policies_that_change_before_the_first_list_are_heard_of(node: SimulatedNode) -> None:
    kubeconfig = node.folder / "kubeconfig"
    kubeconfig.write_text(node.api.kubeconfig())
    client = await KubeClient.connect(kubeconfig=kubeconfig)
    head = {"apiVersion": "fracgpu.io/v1alpha1", "kind": "SharingPolicy"}
    await node.cluster.create("sharingpolicies", {**head, "metadata": {"name": "old"}, "spec": {"replicas": 8}})
    told: list[list[str]] = []
    heard = asyncio.Event()

    def note() -> None:
        told.append([one.metadata.name for one in watch.policies()])
        heard.set()

    watch = PolicyWatch(client, on_change=note)
    await watch.first()
    await node.cluster.delete("sharingpolicies", "old")
    await node.cluster.create("sharingpolicies", {**head, "metadata": {"name": "new"}, "spec": {"replicas": 2}})
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(10):
        await heard.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await client.close()
    assert told[-1:] == [["new"]]


async def test_mps_leaves_excluded_gpus_alone(node: SimulatedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    tools, root = node.folder / "bin", node.folder / "mps"
    tools.mkdir()
    root.mkdir()
    (root / "shm").symlink_to("/dev/shm")
    control = tools / "nvidia-cuda-mps-control"
    control.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n')
    control.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    rules = f"sharing: [{{isolation: mps, gpus: [{{uuid: {UUIDS[1]}, excluded: true}}]}}]\n"
    async with plugin_with_file(node, "--mps-root", str(root), content=rules, gpus=GPUS[:2]):
        await node.until(
            "gpunodes", NODE, lambda found: found.get("status", {}).get("isolation", {}).get("message", "")[:3] == "the"
        )
        modes = [compute_mode(node.folder / "nvml.json", uuid) for uuid in UUIDS[:2]]
    asking = await asyncio.create_subprocess_exec(
        control, stdin=asyncio.subprocess.PIPE, env={**os.environ, "CUDA_MPS_PIPE_DIRECTORY": str(root / "pipe")}
    )
    await asking.communicate(b"quit\n")
    assert modes == [3, 0]


async def test_an_ill_gpu_stays_ill_when_other_xids_are_ignored(node: SimulatedNode) -> None:
    state = node.folder / "nvml.json"
    silent = dataclasses.replace(GPUS[0], recovery_action=None)
    async with plugin_with_file(node, gpus=[silent]) as (_, file):
        write_state(state, [dataclasses.replace(silent, xids=[SimulatedXid(number=1, xid=79)])])
        await node.until("gpunodes", NODE, lambda found: not found["spec"]["gpus"][0].get("healthy", True))
        file.write_text("version: v1alpha1\nignoredXids: [13, 31]\n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(6):
                await node.until("gpunodes", NODE, lambda found: found["spec"]["gpus"][0].get("healthy", True))


async def test_a_newer_driver_is_noticed(node: SimulatedNode) -> None:
    state = node.folder / "nvml.json"
    async with plugin_with_file(node, gpus=GPUS[:1]):
        write_state(state, read_state(state), driver=SimulatedDriver(version="615.10", generation=1))
        await node.until("gpunodes", NODE, lambda found: not found["spec"]["gpus"][0].get("healthy", True))
        await node.until("gpunodes", NODE, lambda found: "580.95" not in found["status"]["isolation"]["message"])


async def test_a_pod_that_arrives_during_a_change_of_settings_is_admitted(node: SimulatedNode) -> None:
    async with plugin_with_file(node, gpus=GPUS[:1]) as (_, file):
        for round_ in range(4):
            file.write_text(f"version: v1alpha1\nusageSeconds: {20 + round_}\n")
            for number in range(5):  # over a second and more, in which the change is noticed
                name = f"pod-{round_}-{number}"
                await node.create(name, {"main": [Share(UUIDS[0], 4)]})  # type: ignore[arg-type]
                await node.until_phase(name, "Running")
        assert node.kubelet.heard.empty(), "the kubelet was told nothing new: the streams stayed open"


async def test_a_watch_that_ends_by_a_defect_is_noticed(tmp_path: Path) -> None:
    state = tmp_path / "nvml.json"
    write_state(state, GPUS[:1])
    install(state)
    session, settings = GpuSession(), PluginSettings(node_name="n")
    session.follow(await session.find(settings, is_first=True), settings)

    def defect() -> None:
        raise ValueError("a defect in whoever is told")

    session.on_problems = defect
    write_state(state, [dataclasses.replace(GPUS[0], lost=True)])
    async with asyncio.timeout(15):
        await session.broken.wait()
    assert isinstance(session.defect, ValueError)
    await session.close()


async def test_a_life_that_cannot_begin_takes_nothing_from_the_one_that_goes_on(node: SimulatedNode) -> None:
    elsewhere = node.folder / "elsewhere"
    elsewhere.mkdir()
    async with plugin_with_file(node, gpus=GPUS[:1]) as (running, file):
        await node.cluster.patch("nodes", NODE, {"status": {"capacity": {"nvidia.com/gpu": "1"}}}, subresource="status")
        file.write_text(f"version: v1alpha1\nkubeletSocket: {elsewhere / 'kubelet.sock'}\n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4):
                await running.wait()
        await node.create("later", {"main": [Share(UUIDS[0], 4)]})  # type: ignore[arg-type]
        await node.until_phase("later", "Running")
        assert node.kubelet.heard.empty(), "the streams stayed open"


async def test_what_fell_ill_while_a_life_was_prepared_is_known_to_it(node: SimulatedNode) -> None:
    async with node.plugin(problems={B: "it has fallen off the bus"}) as plugin:
        await node.until("gpunodes", NODE, lambda found: not found["spec"]["gpus"][1].get("healthy", True))
        plugin.report({})
        await node.until("gpunodes", NODE, lambda found: found["spec"]["gpus"][1].get("healthy", True))
