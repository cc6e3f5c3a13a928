"""How containers and kubelets end: restarts, completion, graceful and force deletion, and whose devices are free then.

One suite for the playground's kubelet and for a real one. What the real kubelet does is right; the stub follows.
"""

from __future__ import annotations

import asyncio

import pytest

from playground.cluster import JsonObject
from tests.conformance.lab import IDS, A, Lab
from tests.nodebench import PATIENCE_SECONDS, make_container

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_restarted_container_keeps_its_devices_without_a_new_allocate(lab: Lab) -> None:
    plugin = await lab.plug()
    pod = lab.pod("p", c={A: 2})
    pod["spec"]["restartPolicy"] = "Always"
    uid = await lab.run_pod(pod)
    lab.node.finish(uid, "c", 1)

    def restarted(pod: JsonObject) -> bool:
        return bool(pod["status"]["containerStatuses"][0]["restartCount"] == 1)

    await lab.until_pod("p", restarted)
    assert len(plugin.allocated()) == 1
    assert dict(lab.node.container(uid, "c").env)["CHOSEN"] == ",".join(sorted(plugin.allocated()[0]))


@pytest.mark.parametrize(("exit_code", "phase"), [(0, "Succeeded"), (3, "Failed")])
async def test_a_finished_pod_is_listed_no_more_and_its_devices_are_free(lab: Lab, exit_code: int, phase: str) -> None:
    await lab.plug()
    uid = await lab.run("p", c={A: 8})
    lab.node.finish(uid, "c", exit_code)
    await lab.until_phase("p", phase)
    await lab.until_listed({})
    await lab.run("next", c={A: 8})


async def test_a_gracefully_deleted_pod_is_listed_until_its_process_ends(lab: Lab) -> None:
    await lab.plug()
    uid = await lab.run("p", c={A: 8})
    let_end = lab.node.let_processes_live_on()
    try:
        await lab.delete("p")
        await lab.until_pod("p", lambda pod: "deletionTimestamp" in pod["metadata"])
        assert "p" in await lab.listing()
        await lab.create("next", c={A: 1})
        await lab.until_phase("next", "Failed")  # its devices are still taken
        assert lab.node.container(uid, "c").alive
    finally:
        let_end()
    await lab.until_gone("p")
    assert not lab.node.container(uid, "c").alive
    await lab.until_listed({})


async def test_a_force_deleted_pods_devices_are_given_out_while_its_process_lives(lab: Lab) -> None:
    plugin = await lab.plug()
    uid = await lab.run("old", c={A: 8})
    let_end = lab.node.let_processes_live_on()
    try:
        await lab.delete("old", grace_seconds=0)
        await lab.until_gone("old")
        await lab.until_listed({})
        await lab.create("new", c={A: 8})
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(plugin.allocated()) < 2:
                await plugin.next_call()
        assert plugin.allocated() == [frozenset(IDS)] * 2
        assert lab.node.container(uid, "c").alive
    finally:
        let_end()
    await lab.until_phase("new", "Running")


async def test_after_a_restart_running_pods_keep_running_and_nothing_is_allocated_again(lab: Lab) -> None:
    plugin = await lab.plug()
    uid = await lab.run("p", c={A: 3})
    before, (held,) = lab.node.container(uid, "c"), plugin.allocated()

    await lab.node.restart()
    await plugin.stream_ended.wait()
    assert not (lab.node.plugins_folder / plugin.socket).exists()  # the kubelet removed every socket
    await lab.until_listed({"p": {"c": {A: set(held)}}})
    await lab.until_allocatable(A, 0)  # until the plugin registers again
    await plugin.stop()
    await plugin.start()
    await lab.until_allocatable(A, 8)

    assert lab.node.container(uid, "c") == before
    assert (await lab.cluster.get("pods", "p", namespace="default"))["status"]["phase"] == "Running"
    await lab.run("next", c={A: 5})
    assert plugin.allocated() == [held, frozenset(IDS) - held]


async def test_after_a_restart_a_pod_with_a_finished_init_container_is_rejected_and_stopped(lab: Lab) -> None:
    await lab.plug()
    pod = lab.pod("p", c={A: 2})
    pod["spec"]["initContainers"] = [make_container("warm", {A: 2})]
    uid = await lab.run_pod(pod, init="warm")
    await lab.node.restart()
    assert "no healthy devices present" in await lab.rejection("p")
    await lab.until_ended(uid, "c")
    await lab.until_pod("p", has_terminated)


async def test_a_pod_that_somebody_marked_as_failed_is_stopped_and_stays_failed(lab: Lab) -> None:
    await lab.plug()
    pod = lab.pod("p", c={A: 2})
    pod["spec"]["restartPolicy"] = "Always"
    uid = await lab.run_pod(pod)
    failed = {"status": {"phase": "Failed"}}
    await lab.cluster.patch("pods", "p", failed, namespace="default", subresource="status")
    await lab.until_ended(uid, "c")
    await lab.until_pod("p", has_terminated)


def has_terminated(pod: JsonObject) -> bool:
    states = [status["state"] for status in pod["status"]["containerStatuses"]]
    return pod["status"]["phase"] == "Failed" and all("terminated" in state for state in states)
