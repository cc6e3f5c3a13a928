"""On a real kubelet: a container gets the GPU that its pod's annotation names, and nothing is given twice."""

from __future__ import annotations

import asyncio

import pytest

from fracgpu.device_ids import count_by_gpu
from fracgpu.names import RESOURCE_MEMORY, PodUid
from fracgpu.plans import Share
from playground.cluster import JsonObject
from tests.conformance.lab import poll
from tests.e2e.cluster import NAMESPACE, Cluster, node_of, planned, pod
from tests.e2e.node import UNITS, RealNode
from tests.recordingplugin import list_pod_resources

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]


def assert_has_what_is_planned(node: RealNode, found: JsonObject) -> None:
    """Annotation, device IDs and environment name the same GPUs."""
    container = node.container(PodUid(found["metadata"]["uid"]))
    plan = planned(found)
    assert count_by_gpu(node.runtime.ids_of(container)) == {
        gpu: share.seats or share.units for gpu, share in plan.items()
    }
    env = {entry.key: entry.value.decode() for entry in container.config.envs}
    in_order = [gpu for gpu in node.gpus if gpu in plan]
    assert env["NVIDIA_VISIBLE_DEVICES"] == ",".join(in_order)
    assert not container.config.CDI_devices, "no CDI strategy was chosen"


async def test_a_pod_gets_exactly_the_gpu_of_its_annotation(cluster: Cluster, node: RealNode) -> None:
    uids = {}
    for name, manifest in {
        "memory": pod("memory", "6Gi"),
        "fraction": pod("fraction", gpu_fraction="0.25"),
        "second": pod("second", "5.5Gi"),
    }.items():
        uids[name] = await cluster.create(manifest)
        found = await cluster.running(name)
        assert node_of(found) == node.name
        assert_has_what_is_planned(node, found)
    published = await cluster.grants(node.name, lambda names: names == set(uids))
    first, second = node.gpus
    grants = {grant.name: (grant.pod_uid, grant.containers) for grant in published.status.grants}
    assert grants == {
        "memory": (uids["memory"], {"main": (Share(first, 12),)}),
        "fraction": (uids["fraction"], {"main": (Share(first, 5, 1),)}),
        "second": (uids["second"], {"main": (Share(second, 11),)}),
    }
    assert node.runtime.used_units() == {first: 17, second: 11}


async def test_a_pod_gets_two_gpus(cluster: Cluster, node: RealNode) -> None:
    await cluster.create(pod("pair", "7Gi", gpu_count="2"))
    found = await cluster.running("pair")
    assert_has_what_is_planned(node, found)
    assert node.runtime.used_units() == dict.fromkeys(node.gpus, 14)


async def test_a_gpu_that_is_only_free_in_pieces_is_waited_for(cluster: Cluster, node: RealNode) -> None:
    for name in ("a", "b"):
        await cluster.create(pod(name, "6Gi"))
        await cluster.running(name)
    await cluster.create(pod("c", "8Gi"))
    reason = "needs 8 GiB on one GPU; the largest free piece is 4 GiB"
    await cluster.waiting("c", because=f"1 {reason}.")
    assert await cluster.explain("c") == f"{reason}, on {node.name}"

    await cluster.delete("a")
    assert_has_what_is_planned(node, await cluster.running("c"))
    assert sorted(node.runtime.used_units().values()) == [12, 16]


async def test_a_burst_fills_both_gpus_to_the_last_unit(cluster: Cluster, node: RealNode) -> None:
    names = [f"p{number}" for number in range(12)]
    await asyncio.gather(*(cluster.create(pod(name, "2Gi")) for name in names))
    placed = await cluster.bound_pods(10)
    for found in placed:
        assert_has_what_is_planned(node, await cluster.running(found["metadata"]["name"]))
    assert node.runtime.used_units() == dict.fromkeys(node.gpus, UNITS)
    assert len(set(node.runtime.held())) == 2 * UNITS
    waiting = set(names) - {found["metadata"]["name"] for found in placed}
    for name in waiting:
        await cluster.waiting(name, because="Insufficient fracgpu.io/memory")
        assert await cluster.explain(name) == (
            f"needs 2 GiB on one GPU; the largest free piece is 0 MiB, on {node.name}"
        )
    await cluster.delete(*(found["metadata"]["name"] for found in placed[:2]))
    for name in waiting:
        await cluster.running(name)
    assert node.runtime.used_units() == dict.fromkeys(node.gpus, UNITS)


async def test_the_extender_packs_the_node_that_has_pods(cluster: Cluster, node: RealNode, paper: list[str]) -> None:
    await cluster.create(pod("first", "1Gi", on=node.name))
    await cluster.running("first")
    await cluster.create(pod("second", "1Gi"))
    found = await cluster.running("second")
    assert_has_what_is_planned(node, found)
    (scored,) = (call for call in cluster.recorder.of("second") if call.verb == "prioritize")
    assert {entry["Host"] for entry in scored.answer} == {node.name, *paper}


async def test_a_pods_successor_of_the_same_name_gets_its_place(cluster: Cluster, node: RealNode) -> None:
    for _ in range(3):
        await cluster.create(pod("web-0", "10Gi", gpu_count="2"))
        assert_has_what_is_planned(node, await cluster.running("web-0"))
        await cluster.delete("web-0")
        await cluster.gone("web-0")


async def test_a_pod_that_completes_frees_its_gpu(cluster: Cluster, node: RealNode) -> None:
    uid = await cluster.create(pod("job", "10Gi", gpu_count="2"))
    await cluster.running("job")
    await cluster.create(pod("next", "10Gi"))
    await cluster.waiting("next")
    node.runtime.finish(node.container(uid), 0)
    assert_has_what_is_planned(node, await cluster.running("next"))


# --- ends that are no ends


async def test_memory_of_a_force_deleted_pod_is_kept_while_its_process_lives(cluster: Cluster, node: RealNode) -> None:
    may_end = node.let_processes_live_on()
    await cluster.create(pod("other", "10Gi"))
    await cluster.running("other")
    uid = await cluster.create(pod("old", "8Gi"))
    await cluster.running("old")
    await cluster.delete("old", force=True)
    await cluster.gone("old")
    await cluster.create(pod("new", "8Gi"))
    await cluster.waiting("new", because=f"as soon as the shares of {NAMESPACE}/old are settled or known to be free")
    await poll(lambda: _is_dropped(node, "old"))  # the kubelet would give its devices out again
    await cluster.create(pod("small", "2Gi"))  # what is really free is given out
    await cluster.running("small")
    assert node.container(uid).is_running
    assert not node_of(await cluster.get("new"))
    await cluster.grants(node.name, lambda names: names == {"other", "old", "small"})

    await cluster.delete("small")
    may_end()
    assert_has_what_is_planned(node, await cluster.running("new"))
    assert not node.container(uid).is_running


async def test_the_plugin_refuses_a_share_whose_process_lives(cluster: Cluster, node: RealNode) -> None:
    """A pod that bypasses the scheduler meets the last line of defence, and is told why."""
    may_end = node.let_processes_live_on()
    await cluster.create(pod("old", "8Gi", gpu_count="2"))
    await cluster.running("old")
    await cluster.delete("old", force=True)
    await cluster.gone("old")
    await poll(lambda: _is_dropped(node, "old"))
    bypassing = pod("bypassing")
    bypassing["spec"]["nodeName"] = node.name
    bypassing["spec"]["containers"][0]["resources"] = {"limits": {RESOURCE_MEMORY: "16"}}
    await cluster.create(bypassing)
    failed = await cluster.until("bypassing", lambda found: found.get("status", {}).get("phase") == "Failed")
    assert failed["status"]["reason"] == "UnexpectedAdmissionError"
    assert f"{NAMESPACE}/old" in failed["status"]["message"]

    async def is_told() -> bool:
        """The kubelet writes our sentence into an event too, so that the plugin need not."""
        selector = f"involvedObject.uid={failed['metadata']['uid']},reason=UnexpectedAdmissionError"
        told, _ = await cluster.api.list("events", field_selector=selector)
        return any(f"{NAMESPACE}/old" in event["message"] for event in told)

    await poll(is_told)
    may_end()


async def _is_dropped(node: RealNode, name: str) -> bool:
    return name not in await list_pod_resources(node.kubelet.pod_resources_socket)


# --- restarts


async def test_the_kubelet_restarts_and_pods_go_on(cluster: Cluster, node: RealNode) -> None:
    uid = await cluster.create(pod("a", "6Gi"))
    before = await cluster.running("a")
    container = node.container(uid)
    await node.restart_kubelet()
    await cluster.create(pod("b", "10Gi"))
    assert_has_what_is_planned(node, await cluster.running("b"))
    assert node.container(uid) is container
    assert container.is_running
    after = await cluster.get("a")
    assert after["status"]["phase"] == "Running"
    assert_has_what_is_planned(node, before)
    listing = await list_pod_resources(node.kubelet.pod_resources_socket)
    assert listing["a"] == {"main": {RESOURCE_MEMORY: set(node.runtime.ids_of(container))}}
    await cluster.grants(node.name, lambda names: names == {"a", "b"})


async def test_the_plugin_is_killed_while_pods_run_and_end(cluster: Cluster, node: RealNode) -> None:
    uid = await cluster.create(pod("a", "6Gi", gpu_count="2"))
    await cluster.running("a")
    await cluster.create(pod("stays", "4Gi"))
    await cluster.running("stays")
    await node.plugin.kill()
    node.runtime.finish(node.container(uid), 0)
    await cluster.until("a", lambda found: found["status"]["phase"] == "Succeeded")
    await cluster.create(pod("b", "10Gi"))
    await node.plugin.start()
    assert_has_what_is_planned(node, await cluster.running("b"))
    await cluster.grants(node.name, lambda names: names == {"stays", "b"})


async def test_a_restarted_plugin_forgets_no_lingering_process(cluster: Cluster, node: RealNode) -> None:
    may_end = node.let_processes_live_on()
    await cluster.create(pod("old", "8Gi", gpu_count="2"))
    await cluster.running("old")
    await cluster.grants(node.name, lambda names: names == {"old"})
    await cluster.delete("old", force=True)
    await cluster.gone("old")
    await node.plugin.kill()
    await node.plugin.start()
    await node.plugin.ready()
    await cluster.create(pod("new", "8Gi"))
    await cluster.waiting("new", because=f"{NAMESPACE}/old")
    may_end()
    await cluster.running("new")


async def test_what_ended_while_the_extender_was_away_is_free(cluster: Cluster, node: RealNode) -> None:
    for name in ("stays", "goes"):
        await cluster.create(pod(name, "10Gi"))
        await cluster.running(name)
    await cluster.extender.kill()
    await cluster.delete("goes")
    await cluster.gone("goes")
    await cluster.extender.start()
    await cluster.extender_ready()
    await cluster.create(pod("new", "10Gi"))
    assert_has_what_is_planned(node, await cluster.running("new"))
