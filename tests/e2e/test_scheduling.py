"""From kubectl to the Binding, on real kube-apiserver and kube-scheduler; the nodes are paper."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from fracgpu.names import ANNOTATION_ALLOCATION, RESOURCE_MEMORY
from playground.cluster import ApiStatusError, JsonObject
from tests.conformance.lab import poll
from tests.e2e.cluster import NAMESPACE, Cluster, node_of, planned, planned_units, pod

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]


async def test_a_malformed_pod_is_refused_with_our_sentence(cluster: Cluster) -> None:
    with pytest.raises(ApiStatusError) as caught:
        await cluster.create(pod("a", "4GB"))
    assert caught.value.code == 403
    assert caught.value.message.startswith(
        "admission webhook \"pods.fracgpu.io\" denied the request: annotation fracgpu.io/gpu-memory is '4GB'; "
    )


async def test_the_plan_comes_with_the_binding(cluster: Cluster, paper: list[str]) -> None:
    """One write makes the pod bound and names its GPU: nobody ever sees the one without the other."""
    _, version = await cluster.api.list("pods")
    await cluster.create(pod("a", "40Gi"))
    await cluster.bound("a")
    seen = []
    async for event in cluster.api.watch("pods", resource_version=version):
        seen.append(event.object)
        if node_of(event.object):
            break
    created, bound = seen[0], seen[-1]
    assert created["spec"]["containers"][0]["resources"] == {
        "limits": {RESOURCE_MEMORY: "80"},
        "requests": {RESOURCE_MEMORY: "80"},
    }
    assert all(ANNOTATION_ALLOCATION not in found["metadata"]["annotations"] for found in seen[:-1])
    ((gpu, share),) = planned(bound).items()
    assert (gpu.rpartition("-")[0], share.units) == (f"GPU-{node_of(bound)}", 80)
    assert [call.verb for call in cluster.recorder.of("a")] == ["filter", "prioritize", "bind"]
    assert await cluster.explain("a") == f"bound to {node_of(bound)}"


async def test_a_bound_pod_says_which_gpu_it_was_assigned(cluster: Cluster, paper: list[str]) -> None:
    uid = await cluster.create(pod("a", "8Gi", on=paper[0]))
    await cluster.bound("a")

    async def holds() -> bool:
        about = f"involvedObject.uid={uid},reason=GpuAssigned"
        found, _ = await cluster.api.list("events", field_selector=about)
        told.extend(found)
        return bool(found)

    told: list[JsonObject] = []
    await poll(holds)
    assert told[0]["message"].startswith("8 GiB on GPU ")
    assert told[0]["message"].endswith(f" of {paper[0]}")
    assert (told[0]["type"], told[0]["source"]["component"]) == ("Normal", "fracgpu-extender")


async def test_the_extenders_scores_decide_between_nodes(cluster: Cluster, paper: list[str]) -> None:
    """The fullest GPU that still fits gets the pod, where kube-scheduler alone would spread."""
    first = paper[1]
    await cluster.create(pod("first", "15Gi", on=first))
    await cluster.bound("first")
    assert [call.verb for call in cluster.recorder.of("first")] == ["filter", "bind"], "one node is not scored"
    for number in range(4):
        await cluster.create(pod(f"next-{number}", "15Gi"))
        assert node_of(await cluster.bound(f"next-{number}")) == first
    (scored,) = (call for call in cluster.recorder.of("next-0") if call.verb == "prioritize")
    scores = {entry["Host"]: entry["Score"] for entry in scored.answer}
    assert set(paper) <= set(scores)
    assert scores.pop(first) == 10
    assert max(scores.values()) < 10


async def test_a_pod_that_only_sums_would_fit_waits_with_numbers(cluster: Cluster, paper: list[str]) -> None:
    here = paper[0]
    for number in range(2):
        await cluster.create(pod(f"filler-{number}", "50Gi", on=here))
        await cluster.bound(f"filler-{number}")
    await cluster.create(pod("a", "40Gi", on=here))
    reason = "needs 40 GiB on one GPU; the largest free piece is 30 GiB"
    assert f"1 {reason}" in await cluster.waiting("a", because=reason)
    assert {call.verb for call in cluster.recorder.of("a")} == {"filter"}
    assert (await cluster.explain("a")).startswith("needs 40 GiB on one GPU; there is room on ")  # on the other nodes


async def test_a_pod_too_large_for_every_gpu_is_told_so(cluster: Cluster, paper: list[str]) -> None:
    await cluster.create(pod("a", "100Gi"))
    message = await cluster.waiting("a", because="needs 100 GiB on one GPU; the largest free piece is 80 GiB")
    assert "Preemption is not helpful" in message
    assert await cluster.explain("a") in {
        f"needs 100 GiB on one GPU; the largest free piece is 80 GiB, on {name}; "
        "no node could hold it even when empty: the largest GPU has 80 GiB"
        for name in paper
    }


async def test_a_burst_never_promises_more_than_there_is(cluster: Cluster, paper: list[str]) -> None:
    """14 pods of 30 GiB, and six GPUs of 80 GiB: the sum of what stays free would take them all."""
    names = [f"p{number}" for number in range(14)]
    await asyncio.gather(*(cluster.create(pod(name, "30Gi")) for name in names))
    pods = await cluster.bound_pods(12)
    assert planned_units(pods) == {f"GPU-{name}-{index}": 120 for name in paper for index in range(2)}
    for name in set(names) - {found["metadata"]["name"] for found in pods}:
        await cluster.waiting(name, because="3 needs 30 GiB on one GPU; the largest free piece is 20 GiB")


async def test_a_pod_on_its_way_keeps_the_last_piece_from_the_next(cluster: Cluster, paper: list[str]) -> None:
    """The next is filtered before the first is bound, and kube-scheduler's sums leave room for both."""
    here = paper[0]
    await cluster.create(pod("filler", "50Gi", on=here))
    await cluster.bound("filler")
    release = cluster.recorder.hold_binds()
    await cluster.create(pod("a", "40Gi", on=here))
    await poll(partial(_is_binding, cluster, "a"))
    await cluster.create(pod("b", "60Gi", on=here))
    await cluster.waiting("b", because=f"there is room on {here} as soon as the shares of {NAMESPACE}/a are settled")
    release()
    await cluster.bound("a")
    await cluster.waiting("b", because="needs 60 GiB on one GPU; the largest free piece is 40 GiB")


async def test_memory_is_free_when_the_nodes_plugin_has_seen_the_end(cluster: Cluster, paper: list[str]) -> None:
    """Not when the pod is gone from the API server; and then without any event that kube-scheduler would wake for."""
    here = paper[0]
    await cluster.create(pod("old", "80Gi", on=here))
    await cluster.bound("old")
    await cluster.create(pod("other", "80Gi", on=here))
    await cluster.bound("other")
    await cluster.delete("old", force=True)
    await cluster.create(pod("new", "80Gi", on=here))
    await cluster.waiting("new", because=f"there is room on {here} as soon as the shares of {NAMESPACE}/old are")
    await cluster.observe_pods(here)
    await cluster.bound("new")
    assert planned_units(await cluster.bound_pods(2)) == {f"GPU-{here}-{index}": 160 for index in range(2)}


async def test_an_extender_that_was_killed_knows_what_is_taken(cluster: Cluster, paper: list[str]) -> None:
    here = paper[0]
    await cluster.create(pod("a", "50Gi", on=here))
    await cluster.bound("a")
    await cluster.extender.kill()
    await cluster.create(pod("b", "50Gi", on=here))
    await cluster.waiting("b", because='/filter":')
    await cluster.extender.start()
    await cluster.bound("b")
    await cluster.create(pod("c", "50Gi", on=here))
    await cluster.waiting("c", because="needs 50 GiB on one GPU; the largest free piece is 30 GiB")
    assert planned_units(await cluster.bound_pods(2)) == {f"GPU-{here}-{index}": 100 for index in range(2)}


async def test_a_lost_ledger_is_rebuilt_from_the_api_server(cluster: Cluster, paper: list[str]) -> None:
    here = paper[0]
    await cluster.create(pod("a", "50Gi", on=here))
    await cluster.bound("a")
    await cluster.redis.kill()
    await cluster.create(pod("b", "50Gi", on=here))
    await cluster.waiting("b", because="Redis does not answer")
    await cluster.redis.erase()
    await cluster.redis.start()
    await cluster.bound("b")
    assert planned_units(await cluster.bound_pods(2)) == {f"GPU-{here}-{index}": 100 for index in range(2)}


async def _is_binding(cluster: Cluster, name: str) -> bool:
    return [call.verb for call in cluster.recorder.of(name)] == ["filter", "bind"]
