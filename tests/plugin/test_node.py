"""The plugin on a simulated node: real sockets, a kubelet that behaves as Kubernetes 1.36, an API server over HTTP."""

from __future__ import annotations

import pytest

from fracgpu.device_ids import count_by_gpu
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA
from fracgpu.plans import Share
from plugin.granting.journal import JOURNAL
from plugin.kubelet.front import SOCKETS
from tests.plugin.builders import A, B, seat_share
from tests.plugin.node import NODE, SimulatedNode, granted


async def test_a_planned_pod_gets_its_gpu_and_its_grant_is_published(node: SimulatedNode) -> None:
    async with node.plugin():
        uid = await node.create("first", {"main": [Share(B, 8)]})
        await node.until_phase("first", "Running")
        held = node.kubelet.held_device_ids()[(uid, "main")]
        assert count_by_gpu(held[RESOURCE_MEMORY]) == {B: 8}
        config = node.kubelet.container(uid, "main").config
        assert ("NVIDIA_VISIBLE_DEVICES", B) in config.env
        assert config.cdi_devices == (), "only where a CDI strategy was chosen: else the runtime may not know them"
        published = await node.until_granted(uid)
        assert granted(published)[uid]["containers"] == {"main": [{"gpu": B, "units": 8, "seats": 0}]}
        assert [gpu["uuid"] for gpu in published["spec"]["gpus"]] == [A, B]
        owner = await node.cluster.get("nodes", "node-1")
        assert published["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]


async def test_containers_sidecars_and_both_resources_side_by_side(node: SimulatedNode) -> None:
    async with node.plugin():
        two = await node.create("two", {"left": [Share(A, 8)], "right": [Share(B, 4)]})
        wide = await node.create("wide", {"main": [Share(A, 2), Share(B, 2)]})
        car = await node.create("car", {"main": [seat_share(B, 1)], "helper": [seat_share(A, 2)]}, sidecars=["helper"])
        for name in ("two", "wide", "car"):
            await node.until_phase(name, "Running")
        held = node.kubelet.held_device_ids()
        counts = {key: {r: count_by_gpu(ids) for r, ids in value.items()} for key, value in held.items()}
        assert counts == {
            (two, "left"): {RESOURCE_MEMORY: {A: 8}},
            (two, "right"): {RESOURCE_MEMORY: {B: 4}},
            (wide, "main"): {RESOURCE_MEMORY: {A: 2, B: 2}},
            (car, "main"): {RESOURCE_REPLICA: {B: 1}},
            (car, "helper"): {RESOURCE_REPLICA: {A: 2}},
        }
        assert ("NVIDIA_VISIBLE_DEVICES", f"{A},{B}") in node.kubelet.container(wide, "main").config.env
        await node.until_granted(two, wide, car)


async def test_a_restarted_kubelet_finds_the_plugin_again(node: SimulatedNode) -> None:
    async with node.plugin():
        first = await node.create("first", {"main": [Share(A, 40)]})
        await node.until_phase("first", "Running")
        await node.kubelet.restart()
        await node.kubelet.until_heard()
        second = await node.create("second", {"main": [Share(A, 40)]})
        await node.until_phase("second", "Running")
        await node.until_granted(first, second)
        await node.create("third", {"main": [Share(A, 1)]})
        await node.until_phase("third", "Failed")
        assert node.kubelet.container(first, "main").exit_code is None


async def test_a_restarted_plugin_knows_what_is_held(node: SimulatedNode) -> None:
    async with node.plugin():
        running = await node.create("running", {"main": [Share(A, 40)]})
        ending = await node.create("ending", {"main": [Share(B, 40)]})
        await node.until_phase("running", "Running")
        await node.until_phase("ending", "Running")
        await node.until_granted(running, ending)
    node.keep_processes_alive()
    await node.cluster.delete("pods", "ending", namespace="team-a", grace_seconds=0)
    async with node.plugin():
        await node.until_granted(running, ending)
        refused = await node.create("refused", {"main": [Share(B, 41)]})
        pod = await node.until_phase("refused", "Failed")
        assert "has 40 of 80 units free" in pod["status"]["message"]
        assert (
            "pod team-a/ending was deleted or has ended, but its processes have not been seen to end yet"
            in pod["status"]["message"]
        )
        fits = await node.create("fits", {"main": [Share(B, 40)]})
        await node.until_phase("fits", "Running")
        assert refused not in {uid for uid, _ in node.kubelet.held_device_ids()}
        node.let_processes_end()
        await node.until_granted(running, fits)


async def test_a_force_deleted_pods_memory_is_free_only_when_its_process_has_ended(node: SimulatedNode) -> None:
    async with node.plugin():
        old = await node.create("db-0", {"main": [Share(A, 78)]})
        await node.until_phase("db-0", "Running")
        node.keep_processes_alive()
        await node.cluster.delete("pods", "db-0", namespace="team-a", grace_seconds=0)
        # The same name at once, as a StatefulSet does; the kubelet hands the same IDs out again.
        await node.create("db-0", {"main": [Share(A, 78)]})
        pod = await node.until_phase("db-0", "Failed")
        assert "has 2 of 80 units free, and container 'main' of pod team-a/db-0 needs 78" in pod["status"]["message"]
        assert {uid for uid, _ in node.kubelet.held_device_ids()} == {old}
        await node.until_granted(old)
        await node.cluster.delete("pods", "db-0", namespace="team-a")
        node.let_processes_end()
        await node.until_granted()
        new = await node.create("db-0", {"main": [Share(A, 78)]})
        await node.until_phase("db-0", "Running")
        await node.until_granted(new)


@pytest.mark.parametrize("loss", ["deleted", "edited"])
async def test_a_restart_without_the_gpunode_forgets_no_process(node: SimulatedNode, loss: str) -> None:
    async with node.plugin():
        old = await node.create("old", {"main": [Share(A, 40)]})
        await node.until_phase("old", "Running")
        await node.until_granted(old)
        node.keep_processes_alive()
        await node.cluster.delete("pods", "old", namespace="team-a", grace_seconds=0)
    if loss == "deleted":
        await node.cluster.delete("gpunodes", NODE)
    else:
        await node.cluster.patch("gpunodes", NODE, {"status": {"grants": []}}, subresource="status")
    async with node.plugin():
        await node.until_granted(old)
        await node.create("new", {"main": [Share(A, 41)]})
        pod = await node.until_phase("new", "Failed")
        assert "has 40 of 80 units free" in pod["status"]["message"]
        node.let_processes_end()
        await node.until_granted()


async def test_a_journal_that_cannot_be_read_is_moved_aside(node: SimulatedNode) -> None:
    async with node.plugin():
        running = await node.create("running", {"main": [Share(A, 40)]})
        await node.until_phase("running", "Running")
        await node.until_granted(running)
    (node.kubelet.plugins_folder / JOURNAL).write_text("{")
    async with node.plugin():
        await node.until_granted(running)
        assert (node.kubelet.plugins_folder / f"{JOURNAL}.unreadable").read_text() == "{"
        assert running in (node.kubelet.plugins_folder / JOURNAL).read_text()


async def test_a_pod_whose_grant_cannot_be_written_down_fails_with_a_sentence(node: SimulatedNode) -> None:
    async with node.plugin():
        draft = node.kubelet.plugins_folder / f".{JOURNAL}"
        draft.mkdir()  # not a mode: root writes everywhere
        await node.create("first", {"main": [Share(A, 8)]})
        pod = await node.until_phase("first", "Failed")
        assert "the device plugin cannot write its grants to" in pod["status"]["message"]
        draft.rmdir()
        second = await node.create("second", {"main": [Share(A, 8)]})
        await node.until_phase("second", "Running")
        await node.until_granted(second)


async def test_an_admission_that_fails_at_the_second_container_gives_the_first_ones_share_back(
    node: SimulatedNode,
) -> None:
    async with node.plugin():
        other = await node.create("other", {"main": [Share(B, 76)]})
        await node.until_phase("other", "Running")
        await node.create("pair", {"left": [Share(A, 40)], "right": [Share(B, 8)]})
        pod = await node.until_phase("pair", "Failed")
        assert f"planned on {B} with 8 units, and the kubelet has 4 units of it left" in pod["status"]["message"]
        await node.until_granted(other)
        await node.create("whole", {"main": [Share(A, 80)]})
        await node.until_phase("whole", "Running")


async def test_pods_that_bypassed_the_extender(node: SimulatedNode) -> None:
    async with node.plugin():
        await node.create("planned", {"main": [Share(B, 70)]})
        await node.until_phase("planned", "Running")
        fits = await node.create("fits", {"main": [Share(A, 10)]}, has_plan=False)
        await node.until_phase("fits", "Running")
        assert count_by_gpu(node.kubelet.held_device_ids()[(fits, "main")][RESOURCE_MEMORY]) == {B: 10}, "best fit"
        await node.create("large", {"main": [Share(A, 80)]}, has_plan=False)
        await node.until_phase("large", "Running")
        await node.create("none", {"main": [Share(A, 1)]}, has_plan=False)
        await node.until_phase("none", "Failed")


async def test_that_a_pod_ended_without_a_grant_is_published_soon(node: SimulatedNode) -> None:
    async with node.plugin():
        await node.until_granted()
        await node.kubelet.stop()
        await node.create("short", {"main": [Share(A, 8)]})
        await node.cluster.delete("pods", "short", namespace="team-a", grace_seconds=0)
        _, version = await node.cluster.list("pods")
        await node.until("gpunodes", NODE, lambda gpunode: int(gpunode["status"]["observedPods"]) >= int(version))
        await node.kubelet.start()


async def test_a_cut_and_compacted_watch_changes_nothing(node: SimulatedNode) -> None:
    async with node.plugin():
        first = await node.create("first", {"main": [Share(A, 8)]})
        await node.until_granted(first)
        node.api.compact()
        node.api.cut_watches()
        second = await node.create("second", {"main": [Share(B, 8)]})
        await node.until_phase("second", "Running")
        await node.until_granted(first, second)


async def test_sockets_that_somebody_removed_come_back(node: SimulatedNode) -> None:
    async with node.plugin():
        for name in SOCKETS.values():
            (node.kubelet.plugins_folder / name).unlink()
        await node.kubelet.until_heard()
        uid = await node.create("first", {"main": [Share(A, 8)]})
        await node.until_phase("first", "Running")
        await node.until_granted(uid)


async def test_a_kubelet_that_comes_later_is_waited_for(node: SimulatedNode) -> None:
    await node.kubelet.stop()
    async with node.plugin(has_kubelet=False):
        await node.until_granted()  # it has begun
        await node.kubelet.start()
        await node.kubelet.until_heard()
        uid = await node.create("first", {"main": [Share(A, 8)]})
        await node.until_granted(uid)
