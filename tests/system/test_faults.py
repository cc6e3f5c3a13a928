"""What may go wrong in a cluster, done to real processes: nobody is over-committed, and every pod gets there."""

import asyncio

from fracgpu.device_ids import parse_device_id
from fracgpu.names import RESOURCE_MEMORY, NodeName
from playground.node.containers import Container
from playground.node.kubelet import Kubelet
from tests.system.cluster import Cluster, planned_gpus, pod


def let_processes_linger(kubelet: Kubelet) -> asyncio.Event:
    """From now on processes ignore SIGTERM until the event is set."""
    may_end = asyncio.Event()

    async def linger(_: Container) -> None:
        await may_end.wait()

    kubelet.runtime.on_sigterm = linger
    return may_end


async def test_two_pods_race_for_the_last_slice_and_one_waits_with_numbers(one_gpu: Cluster) -> None:
    await asyncio.gather(one_gpu.create(pod("a", "6Gi")), one_gpu.create(pod("b", "6Gi")))
    assert await one_gpu.settled(timeout_seconds=30)

    ((loser, reason),) = (await one_gpu.reasons()).items()
    assert reason == "needs 6 GiB on one GPU; the largest free piece is 4 GiB, on node-1"
    assert one_gpu.used_units() == 12

    await one_gpu.delete("a" if loser == "b" else "b")
    await one_gpu.running(loser)


async def test_the_next_filter_comes_before_the_last_bind_and_the_reservation_decides(two_nodes: Cluster) -> None:
    names = [f"p{n}" for n in range(6)]
    await asyncio.gather(*(two_nodes.create(pod(name, "3Gi")) for name in names))
    for name in names:
        await two_nodes.running(name)
    assert {two_nodes.used_units("node-1"), two_nodes.used_units("node-2")} == {18}
    assert two_nodes.scheduler is not None
    log = list(two_nodes.scheduler.log)
    first_bind = next(position for position, (verb, _) in enumerate(log) if verb == "bind")
    assert len({name for verb, name in log[:first_bind] if verb == "filter"}) > 1


async def test_a_pod_holds_exactly_the_gpu_that_its_annotation_names(two_nodes: Cluster) -> None:
    for name, manifest in {
        "memory": pod("memory", "1.5Gi"),
        "fraction": pod("fraction", gpu_fraction="0.25"),
        "tight": pod("tight", "9Gi"),
    }.items():
        uid = await two_nodes.create(manifest)
        found = await two_nodes.running(name)
        held = two_nodes.kubelets[NodeName(found["spec"]["nodeName"])].held_device_ids()[uid, "main"]
        assert {parse_device_id(text).gpu for ids in held.values() for text in ids} == planned_gpus(found)


async def test_a_force_deleted_pods_memory_is_not_given_out_while_its_process_lives(one_gpu: Cluster) -> None:
    kubelet = one_gpu.kubelets[NodeName("node-1")]
    may_end = let_processes_linger(kubelet)
    old = await one_gpu.create(pod("old", "8Gi"))
    await one_gpu.running("old")
    await one_gpu.delete("old", force=True)
    await one_gpu.gone("old")
    assert kubelet.runtime.alive(old)

    await one_gpu.create(pod("new", "8Gi"))
    await one_gpu.waiting("new", because="team-a/old")
    await one_gpu.create(pod("small", "2Gi"))  # what is really free is still given out
    await one_gpu.running("small")
    assert one_gpu.used_units() == 16 + 4

    await one_gpu.delete("small")
    may_end.set()
    await one_gpu.running("new")


async def test_the_plugin_itself_refuses_memory_that_a_lingering_process_holds(one_gpu: Cluster) -> None:
    """A pod that bypasses the extender meets the last line of defence, and is told why."""
    kubelet = one_gpu.kubelets[NodeName("node-1")]
    may_end = let_processes_linger(kubelet)
    await one_gpu.create(pod("old", "8Gi"))
    await one_gpu.running("old")
    await one_gpu.delete("old", force=True)
    await one_gpu.gone("old")

    bypassing = pod("bypassing")
    bypassing["spec"]["nodeName"] = "node-1"
    bypassing["spec"]["containers"][0]["resources"] = {"limits": {RESOURCE_MEMORY: "16"}}
    await one_gpu.create(bypassing)
    failed = await one_gpu.until("bypassing", lambda found: found.get("status", {}).get("phase") == "Failed")
    assert failed["status"]["reason"] == "UnexpectedAdmissionError"
    assert "old" in failed["status"]["message"]
    may_end.set()


async def test_the_extender_is_killed_between_reserve_and_bind(two_nodes: Cluster) -> None:
    two_nodes.api.bindings.hang()
    await two_nodes.create(pod("a", "6Gi"))
    await two_nodes.api.bindings.wait_hanging()
    await two_nodes.extender.kill()
    await two_nodes.extender.start()
    found = await two_nodes.running("a")  # tried again once the reservation was settled
    two_nodes.api.bindings.release()  # and the old Binding arrives, much too late

    await two_nodes.create(pod("b", "10Gi"))
    await two_nodes.running("b")
    again = await two_nodes.running("a")
    assert again["spec"]["nodeName"] == found["spec"]["nodeName"]
    assert two_nodes.used_units("node-1") + two_nodes.used_units("node-2") == 12 + 20


async def test_a_binding_whose_answer_is_lost_happened_once(one_gpu: Cluster) -> None:
    one_gpu.api.bindings.lose_answer()
    await one_gpu.create(pod("a", "6Gi"))
    await one_gpu.running("a")
    await one_gpu.create(pod("b", "6Gi"))
    assert await one_gpu.settled(timeout_seconds=30)
    assert await one_gpu.reasons() == {"b": "needs 6 GiB on one GPU; the largest free piece is 4 GiB, on node-1"}
    assert one_gpu.used_units() == 12


async def test_a_refused_binding_leaves_nothing_reserved(one_gpu: Cluster) -> None:
    one_gpu.api.bindings.fail(count=2)
    await one_gpu.create(pod("a", "10Gi"))
    await one_gpu.running("a")
    await one_gpu.delete("a")
    await one_gpu.create(pod("b", "10Gi"))
    await one_gpu.running("b")


async def test_redis_is_killed_and_replaced_by_an_empty_one(one_gpu: Cluster) -> None:
    await one_gpu.create(pod("a", "6Gi"))
    await one_gpu.running("a")
    redis = one_gpu.redis
    assert redis is not None
    await redis.kill()
    await one_gpu.create(pod("b", "3Gi"))
    await one_gpu.waiting("b", because="Redis does not answer")
    await redis.erase()
    await redis.start()
    await one_gpu.running("b")
    await one_gpu.create(pod("c", "2Gi"))
    assert await one_gpu.settled(timeout_seconds=30)
    assert await one_gpu.reasons() == {"c": "needs 2 GiB on one GPU; the largest free piece is 1 GiB, on node-1"}
    assert one_gpu.used_units() == 18


async def test_the_kubelet_restarts_and_pods_go_on(one_gpu: Cluster) -> None:
    uid = await one_gpu.create(pod("a", "6Gi"))
    await one_gpu.running("a")
    kubelet = one_gpu.kubelets[NodeName("node-1")]
    before = kubelet.container(uid, "main")
    await kubelet.restart()
    await one_gpu.create(pod("b", "4Gi"))
    await one_gpu.running("b")
    assert kubelet.container(uid, "main") is before
    assert before.exit_code is None
    assert one_gpu.used_units() == 20


async def test_the_plugin_is_killed_and_started_again_with_pods_running(one_gpu: Cluster) -> None:
    kubelet = one_gpu.kubelets[NodeName("node-1")]
    uid = await one_gpu.create(pod("a", "6Gi"))
    await one_gpu.running("a")
    plugin = one_gpu.plugins[NodeName("node-1")]
    await plugin.kill()
    kubelet.finish(uid, "main", 0)  # meanwhile one ends ...
    await one_gpu.until("a", lambda found: found["status"]["phase"] == "Succeeded")
    await one_gpu.create(pod("b", "10Gi"))
    await plugin.start()
    await one_gpu.running("b")  # ... and its memory comes free through the plugin that was started again
    await one_gpu.grants("node-1", lambda names: names == {"b"})
    assert one_gpu.used_units() == 20


async def test_a_plugin_restart_forgets_no_lingering_process(one_gpu: Cluster) -> None:
    kubelet = one_gpu.kubelets[NodeName("node-1")]
    may_end = let_processes_linger(kubelet)
    await one_gpu.create(pod("old", "8Gi"))
    await one_gpu.running("old")
    await one_gpu.grants("node-1", lambda names: names == {"old"})
    await one_gpu.delete("old", force=True)
    await one_gpu.gone("old")
    plugin = one_gpu.plugins[NodeName("node-1")]
    await plugin.kill()
    await plugin.start()
    await plugin.ready()
    await one_gpu.create(pod("new", "8Gi"))
    await one_gpu.waiting("new", because="team-a/old")
    may_end.set()
    await one_gpu.running("new")


async def test_watches_are_cut_and_resume_after_410(one_gpu: Cluster) -> None:
    await one_gpu.create(pod("a", "6Gi"))
    await one_gpu.running("a")
    one_gpu.api.cut_watches()
    await one_gpu.delete("a", force=True)
    one_gpu.api.compact()
    await one_gpu.create(pod("b", "10Gi"))
    await one_gpu.running("b")


async def test_a_pod_is_recreated_under_its_old_name(one_gpu: Cluster) -> None:
    for _ in range(3):
        uid = await one_gpu.create(pod("web-0", "10Gi"))
        await one_gpu.running("web-0")
        assert one_gpu.kubelets[NodeName("node-1")].held_device_ids()[uid, "main"]
        await one_gpu.delete("web-0")
        await one_gpu.gone("web-0")
