"""A pod of high priority on a full node: real kube-scheduler evicts whom the extender names; the nodes are paper."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import pytest_asyncio

from fracgpu.names import GpuUuid
from playground.cluster import JsonObject
from tests.conformance.lab import poll
from tests.deploy.conftest import Api
from tests.e2e.cluster import NAMESPACE, Cluster, planned, pod

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]

PRIORITIES: Final = {"low": 10, "middle": 20, "high": 1000}
BUDGETS: Final = f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets"


class Node:
    """A node with two GPUs of 80 GiB: two pods of 30 GiB and low priority on one, one of 50 GiB on the other.

    50 GiB are free in sum, and so for a pod of 60 GiB kube-scheduler by itself evicts only one of the small ones,
    whose end leaves the largest piece 50 GiB.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.name = name
        self.uids: dict[str, str] = {}  # pod -> UID
        self.gpus: dict[str, GpuUuid] = {}  # pod -> its GPU
        self._cluster = cluster

    async def fill(self, **labels_of_the_small: str) -> None:
        for name, memory, priority, labels in (
            ("small-1", "30Gi", "low", labels_of_the_small),
            ("small-2", "30Gi", "low", labels_of_the_small),
            ("large", "50Gi", "middle", {}),
        ):
            await self.create(name, memory, priority, **labels)
            (self.gpus[name],) = planned(await self._cluster.bound(name))
        assert self.gpus["small-1"] == self.gpus["small-2"] != self.gpus["large"]

    async def create(self, name: str, memory: str, priority: str, **labels: str) -> None:
        manifest = pod(name, memory, on=self.name)
        manifest["metadata"]["labels"] = labels
        manifest["spec"]["priorityClassName"] = priority
        self.uids[name] = await self._cluster.create(manifest)

    async def victims(self, preemptor: str) -> tuple[set[str], set[str]]:
        """Wait until pods are evicted for this one; who kube-scheduler would have chosen, and who it was told."""

        async def asked() -> bool:
            return any(call.verb == "preempt" and call.answer for call in self._cluster.recorder.of(preemptor))

        await poll(asked)
        call = next(call for call in self._cluster.recorder.of(preemptor) if call.verb == "preempt")
        await self._cluster.until(preemptor, lambda found: found["status"].get("nominatedNodeName") == self.name)
        return self._names(call.arguments), self._names(call.answer)

    def _names(self, message: dict[str, Any]) -> set[str]:
        names = {uid: name for name, uid in self.uids.items()}
        victims = message["NodeNameToMetaVictims"]
        assert list(victims) == [self.name]
        return {names[victim["UID"]] for victim in victims[self.name]["Pods"]}

    async def end(self, *names: str) -> None:
        """See these pods being deleted, and end them as their kubelet and the plugin would."""
        for name in names:
            await self._cluster.until(name, _is_being_deleted)
        await self._cluster.delete(*names, force=True)
        await self._cluster.gone(*names)
        await self._cluster.observe_pods(self.name)

    async def assert_spared(self, *names: str) -> None:
        for name in names:
            assert not _is_being_deleted(await self._cluster.get(name))


def _is_being_deleted(found: JsonObject) -> bool:
    return "deletionTimestamp" in found["metadata"]


@pytest_asyncio.fixture(loop_scope="package")
async def here(cluster: Cluster, paper: list[str]) -> AsyncIterator[Node]:
    api = Api(cluster.plane)
    for name, value in PRIORITIES.items():
        head = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}}
        path = "/apis/scheduling.k8s.io/v1/priorityclasses"
        code, answer = await asyncio.to_thread(api.call, "POST", path, {**head, "value": value})
        assert code in (201, 409), answer
    yield Node(cluster, paper[0])
    await asyncio.to_thread(api.call, "DELETE", BUDGETS)


async def protect(cluster: Cluster, *, allowed: int, **labels: str) -> None:
    """A PodDisruptionBudget whose status is as the controller, which does not run here, would have computed it."""
    api = Api(cluster.plane)
    head = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "protect"}}
    spec = {"minAvailable": 1, "selector": {"matchLabels": labels}}
    code, made = await asyncio.to_thread(api.call, "POST", BUDGETS, {**head, "spec": spec})
    assert code == 201, made
    made["status"] |= {"observedGeneration": 1, "disruptionsAllowed": allowed}
    code, answer = await asyncio.to_thread(api.call, "PUT", f"{BUDGETS}/protect/status", made)
    assert code == 200, answer


async def test_the_pods_that_free_one_gpu_are_evicted(cluster: Cluster, here: Node) -> None:
    await here.fill()
    await here.create("vip", "60Gi", "high")
    offered, chosen = await here.victims("vip")
    assert len(offered) == 1, "kube-scheduler goes by the sum"
    assert offered < chosen == {"small-1", "small-2"}
    await here.end("small-1", "small-2")
    assert list(planned(await cluster.bound("vip"))) == [here.gpus["small-1"]]
    await here.assert_spared("large")
    assert {call.verb for call in cluster.recorder.of("vip")} >= {"preempt", "filter", "bind"}


async def test_a_pod_in_a_disruption_budget_is_spared_for_a_dearer_one(cluster: Cluster, here: Node) -> None:
    """The budget allows the one eviction that kube-scheduler chose by the sum, but not the two that it takes."""
    await protect(cluster, allowed=1, app="web")
    await here.fill(app="web")
    await here.create("vip", "60Gi", "high")
    offered, chosen = await here.victims("vip")
    assert offered < {"small-1", "small-2"}
    assert chosen == {"large"}
    await here.end("large")
    assert list(planned(await cluster.bound("vip"))) == [here.gpus["large"]]
    await here.assert_spared("small-1", "small-2")


async def test_a_gpu_that_was_freed_for_one_is_not_counted_on_by_the_next(cluster: Cluster, here: Node) -> None:
    """Two pods of the same priority: the second finds victims of its own while the first waits for its GPU."""
    await here.fill()
    await here.create("vip", "60Gi", "high")
    await here.victims("vip")
    await here.create("next", "60Gi", "high")
    _, chosen = await here.victims("next")
    assert chosen == {"large"}
    await here.end("small-1", "small-2", "large")
    gpus = [next(iter(planned(await cluster.bound(name)))) for name in ("vip", "next")]
    assert sorted(gpus) == sorted({here.gpus["small-1"], here.gpus["large"]})


async def test_a_node_that_no_eviction_helps_keeps_its_pods(cluster: Cluster, here: Node) -> None:
    """The sum of what could be freed is enough, and no GPU is large enough."""
    await here.fill()
    await here.create("vip", "100Gi", "high")
    await cluster.waiting("vip", because="no candidate node for preemption")
    answers = [call.answer for call in cluster.recorder.of("vip") if call.verb == "preempt"]
    assert answers
    assert all(answer == {"NodeNameToMetaVictims": {}} for answer in answers)
    await here.assert_spared("small-1", "small-2", "large")


async def test_without_the_ledger_nobody_is_evicted_and_the_pod_says_why(
    cluster: Cluster, here: Node, paper: list[str]
) -> None:
    """The next event in the cluster after that has kube-scheduler ask again."""
    await here.fill()
    await cluster.create(pod("elsewhere", "10Gi", on=paper[1]))
    await cluster.bound("elsewhere")
    await cluster.redis.kill()
    await here.create("vip", "60Gi", "high")
    await cluster.waiting("vip", because="preemption: failed preempt with extender at URL")
    await here.assert_spared("small-1", "small-2", "large")
    await cluster.redis.start()
    await cluster.extender_ready()
    cluster.recorder.calls.clear()
    await cluster.delete("elsewhere", force=True)
    _, chosen = await here.victims("vip")
    assert chosen == {"small-1", "small-2"}
