"""The plugin's process follows what changes while it runs: what is declared, its file, the GPUs, its neighbours."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import pytest

from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA
from fracgpu.plans import Share
from playground.node.nvml import SimulatedMig, read_state, restart_driver, unload_driver, write_state
from tests.plugin.builders import A, B, seat_share
from tests.plugin.node import NODE, SimulatedNode
from tests.plugin.test_process import GPUS, process

Object = dict[str, Any]


async def allocatable(node: SimulatedNode, *, units: int | None = None, seats: int | None = None) -> Object:
    """Wait until the kubelet offers so many."""

    def holds(found: Object) -> bool:
        offered = found.get("status", {}).get("allocatable", {})
        return all(
            want is None or offered.get(resource) == str(want)
            for resource, want in ((RESOURCE_MEMORY, units), (RESOURCE_REPLICA, seats))
        )

    return await node.until("nodes", NODE, holds)


def gpu_of(gpunode: Object, uuid: str) -> Object:
    (gpu,) = [gpu for gpu in gpunode["spec"]["gpus"] if gpu["uuid"] == uuid]
    return dict(gpu)


def policy(name: str, **spec: Any) -> Object:
    return {"apiVersion": "fracgpu.io/v1alpha1", "kind": "SharingPolicy", "metadata": {"name": name}, "spec": spec}


async def test_a_policy_is_followed_at_once_but_never_takes_what_a_pod_holds(node: SimulatedNode) -> None:
    async with process(node, "--replicas", "2") as plugin:
        await allocatable(node, units=160, seats=4)
        await node.create("running", {"main": [seat_share(A, 1, replicas=2)]})
        await node.until_phase("running", "Running")
        await node.cluster.create("sharingpolicies", policy("all", replicas=8, reservedMiB=1024))
        shown = await node.until("gpunodes", NODE, lambda found: bool(gpu_of(found, A).get("pending")))
        assert (gpu_of(shown, A)["replicas"], gpu_of(shown, A)["units"]) == (2, 80)
        assert gpu_of(shown, A)["pending"] == {"units": 78, "replicas": 8}
        assert (gpu_of(shown, B)["replicas"], gpu_of(shown, B)["units"]) == (8, 78)
        await allocatable(node, units=158, seats=10)
        shown = await node.until(
            "gpunodes", NODE, lambda found: bool(found["status"].get("sharing", {}).get("policies"))
        )
        assert shown["status"]["sharing"] == {"policies": ["all"], "problems": []}
        await node.cluster.delete("pods", "running", namespace="team-a")
        await allocatable(node, units=156, seats=16)
        await node.cluster.delete("sharingpolicies", "all")
        await allocatable(node, units=160, seats=4)
        plugin.send_signal(signal.SIGTERM)
    assert plugin.returncode == 0


async def test_a_policy_for_labels_that_the_node_gets_and_one_that_contradicts_it(node: SimulatedNode) -> None:
    selector = {"matchLabels": {"pool": "small"}}
    await node.cluster.create("sharingpolicies", policy("first", nodeSelector=selector, replicas=8))
    async with process(node) as plugin:
        await allocatable(node, seats=8)
        await node.cluster.patch("nodes", NODE, {"metadata": {"labels": {"pool": "small"}}})
        await allocatable(node, seats=16)
        await node.cluster.create("sharingpolicies", policy("second", nodeSelector=selector, replicas=5))
        shown = await node.until(
            "gpunodes", NODE, lambda found: bool(found.get("status", {}).get("sharing", {}).get("problems"))
        )
        (problem, *_) = shown["status"]["sharing"]["problems"]
        assert (problem["policy"], problem["reason"]) == ("second", "Conflict")
        assert "first" in problem["message"]
        plugin.send_signal(signal.SIGTERM)


async def test_the_file_is_followed_and_a_bad_one_changes_nothing(node: SimulatedNode) -> None:
    file = node.folder / "plugin.yaml"
    file.write_text("version: v1alpha1\nsharing: [{replicas: 2}]\n")
    async with process(node, "--config-file", str(file)) as plugin:
        await allocatable(node, seats=4)
        old = await node.create("old", {"main": [Share(A, 8)]})
        await node.until_phase("old", "Running")
        file.write_text("version: v1alpha1\nsharing: [{replicas: 2}, {gpus: [{uuid: GPU-b, replicas: 6}]}]\n")
        await allocatable(node, seats=8)
        file.write_text("version: v1alpha1\nsharing: [{replicas: 0}]\n")
        await _until_logged(plugin, b"the configuration file cannot be used")
        # Another setting is another life of the plugin, and pods go on.
        file.write_text("version: v1alpha1\ndeviceListStrategy: [volume-mounts]\nsharing: [{replicas: 2}]\n")
        await allocatable(node, seats=4)
        new = await node.create("new", {"main": [Share(A, 8)]})
        await node.until_phase("new", "Running")
        seen = node.kubelet.container(new, "main").environment["NVIDIA_VISIBLE_DEVICES"]
        assert seen == "/var/run/nvidia-container-devices"
        assert node.kubelet.container(old, "main").exit_code is None
        await node.until_granted(old, new)
        plugin.send_signal(signal.SIGTERM)
    assert plugin.returncode == 0


async def test_a_lost_gpu_takes_only_its_own_shares_and_they_come_back(node: SimulatedNode) -> None:
    state = node.folder / "nvml.json"
    async with process(node) as plugin:
        await allocatable(node, units=160, seats=8)
        running = await node.create("running", {"main": [Share(A, 8)]})
        await node.until_phase("running", "Running")
        write_state(state, [dataclasses.replace(gpu, lost=gpu.uuid == A) for gpu in read_state(state)])
        await allocatable(node, units=80, seats=4)
        shown = await node.until("gpunodes", NODE, lambda found: gpu_of(found, A).get("healthy") is False)
        assert A in gpu_of(shown, A)["problem"]
        assert "healthy" not in gpu_of(shown, B)
        refused = await node.create("refused", {"main": [Share(A, 8)]})
        await node.until_phase("refused", "Failed")
        await node.create("beside", {"main": [Share(B, 8)]})
        await node.until_phase("beside", "Running")
        assert node.kubelet.container(running, "main").exit_code is None
        assert refused not in {uid for uid, _ in node.kubelet.held_device_ids()}
        plugin.send_signal(signal.SIGTERM)
    assert plugin.returncode == 0


async def test_a_driver_that_is_exchanged_under_running_pods(node: SimulatedNode) -> None:
    state = node.folder / "nvml.json"
    async with process(node) as plugin:
        await allocatable(node, units=160)
        running = await node.create("running", {"main": [Share(A, 8)]})
        await node.until_phase("running", "Running")
        unload_driver(state)
        await allocatable(node, units=0)
        assert node.kubelet.container(running, "main").exit_code is None
        restart_driver(state, version="590.44.01")
        await _until_logged(plugin, b"GPU is well again", times=2)
        await allocatable(node, units=160)
        await node.until_granted(running)
        plugin.send_signal(signal.SIGTERM)
    assert plugin.returncode == 0


async def test_a_node_that_offers_nvidia_gpus_too_is_refused(node: SimulatedNode) -> None:
    await node.cluster.patch("nodes", NODE, {"status": {"capacity": {"nvidia.com/gpu": "2"}}}, subresource="status")
    async with process(node) as plugin:
        assert plugin.stderr is not None
        complaint = (await plugin.stderr.read()).decode()
    assert plugin.returncode == 2
    assert "advertises nvidia.com/gpu: 2 too" in complaint
    assert "--allow-nvidia-device-plugin" in complaint
    async with process(node, "--allow-nvidia-device-plugin") as plugin:
        await node.kubelet.until_heard()
        plugin.send_signal(signal.SIGTERM)


async def test_mig_instances_are_gpus_of_their_own(node: SimulatedNode) -> None:
    instances = [
        SimulatedMig(uuid=f"MIG-{n}", profile="1g.5gb", memory_mib=4864, gpu_instance=7 + n, compute_instance=0)
        for n in range(2)
    ]
    gpus = [GPUS[0], dataclasses.replace(GPUS[1], mig=instances)]
    async with process(node, "--mig-strategy", "mixed", gpus=gpus) as plugin:
        await allocatable(node, units=80 + 2 * 9, seats=12)
        uid = await node.create("small", {"main": [Share("MIG-1", 9)]})  # type: ignore[arg-type]
        await node.until_phase("small", "Running")
        assert node.kubelet.container(uid, "main").environment["NVIDIA_VISIBLE_DEVICES"] == "MIG-1"
        shown = await node.until_granted(uid)
        assert gpu_of(shown, "MIG-1")["parent"] == B
        # One instance is taken away, another is made.
        remade = [instances[1], dataclasses.replace(instances[0], uuid="MIG-2", gpu_instance=9)]
        write_state(node.folder / "nvml.json", [gpus[0], dataclasses.replace(gpus[1], mig=remade)])
        plugin.send_signal(signal.SIGTERM)
    assert plugin.returncode == 0


async def test_a_node_whose_driver_comes_later(node: SimulatedNode, tmp_path: Path) -> None:
    async with process(node, "--no-fail-on-init-error", gpus=None) as plugin:
        await _until_logged(plugin, b"finding GPUs")
        write_state(node.folder / "nvml.json", GPUS)
        await allocatable(node, units=160)
        plugin.send_signal(signal.SIGTERM)
    assert plugin.returncode == 0


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
async def test_a_plugin_without_a_driver_can_still_be_ended(node: SimulatedNode, signal_number: int) -> None:
    async with process(node, "--no-fail-on-init-error", gpus=None) as plugin:
        await _until_logged(plugin, b"finding GPUs")
        plugin.send_signal(signal_number)
    assert plugin.returncode == 0


async def _until_logged(plugin: Any, text: bytes, *, times: int = 1) -> None:
    """Read the log up to a line that contains the text; it has to be read anyway, or the pipe fills."""
    async for line in plugin.stderr:
        if text in line:
            times -= 1
        if not times:
            return
    raise AssertionError(f"the plugin ended before it logged {text!r}")
