"""What kube-scheduler is told to evict: on a real index, and over HTTP on real Redis and the playground."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from extender.index import Index, Nomination
from extender.ledger.claims import Claim, ClaimState, Entry
from extender.ledger.embedded import EmbeddedRedis
from extender.preempting import preempt
from extender.wire import decode_preemption_args
from fracgpu.disruption import PodDisruptionBudget
from fracgpu.errors import InputError
from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.plans import Plan, Share
from fracgpu.pods import Pod
from playground.api.apiserver import ApiServer
from tests.extender.builders import UNIT, gpu_node, pod, request
from tests.extender.replica import JsonObject, Replica, announce

VIP = "vip"
Answer = dict[str, tuple[list[str], int]]
"""Node -> UIDs of the victims in order, and how many violate a disruption budget."""


class Cluster:
    """node-1 with the GPUs a and b of 80 units, and node-2 with c, each with what `run` puts there."""

    def __init__(self) -> None:
        self.index = Index(unit=UNIT)
        self.index.put_node(gpu_node("node-1", "a", "b"))
        self.index.put_node(gpu_node("node-2", "c"))
        self.pods: dict[str, Pod] = {}  # UID -> pod
        self.budgets: list[PodDisruptionBudget] = []

    def run(
        self,
        uid: str,
        gpu: str,
        *,
        units: int,
        priority: int | None = None,
        node: str = "node-1",
        state: ClaimState = ClaimState.BOUND,
        pod_node: str | None = None,
        **more: Any,
    ) -> None:
        """A pod with units of a GPU; `more` are fields of its metadata."""
        where = pod_node if pod_node is not None else node if state is ClaimState.BOUND else ""
        self.pods[uid] = with_fields(pod(uid, units=units, node=where), priority=priority, **more)
        plan = Plan(UNIT, {"main": (Share(GpuUuid(gpu), units),)})
        claim = Claim(PodUid(uid), "team-a", uid, NodeName(node), state, plan)
        self.index.change_claim(claim.uid, Entry(claim, 0))

    def end(self, uid: str) -> None:
        """The pod is being deleted, and its processes have not ended yet."""
        self.pods[uid] = with_fields(self.pods[uid], deletion_timestamp="2026-01-09T00:00:00Z")
        self.index.set_ending(PodUid(uid), ending=True)

    def protect(self, name: str, *, allowed: int, disrupted: tuple[str, ...] = (), **labels: str) -> None:
        """A PodDisruptionBudget for pods with these labels."""
        self.budgets.append(
            msgspec.convert(
                {
                    "metadata": {"name": name, "namespace": "team-a"},
                    "spec": {"selector": {"matchLabels": labels}},
                    "status": {"disruptionsAllowed": allowed, "disruptedPods": dict.fromkeys(disrupted, "")},
                },
                PodDisruptionBudget,
            )
        )

    def preempt(self, *, units: int = 40, priority: int | None = 100, **offered: Any) -> Answer:
        """Ask for a pod of a high priority; `offered` are nodes (with _ for -), each with the UIDs offered."""
        victims = {
            node.replace("_", "-"): {"Pods": [{"UID": uid} for uid in uids], "NumPDBViolations": 0}
            for node, uids in offered.items()
        }
        return self.ask(NodeNameToMetaVictims=victims, units=units, priority=priority)

    def ask(self, *, units: int = 40, priority: int | None = 100, gpus: str = "", **arguments: Any) -> Answer:
        preemptor = with_fields(
            pod(VIP, units=units, annotations={"fracgpu.io/gpu-count": gpus} if gpus else None), priority=priority
        )
        body = msgspec.json.encode({"Pod": preemptor, **arguments})
        answer = preempt(self.index, decode_preemption_args(body), pods=self.pods, budgets=self.budgets)
        return {
            node: ([victim.uid for victim in victims.pods or () if victim], victims.violations)
            for node, victims in answer
            if victims is not None
        }


def with_fields(found: Pod, *, priority: int | None = None, **metadata: Any) -> Pod:
    spec = found.spec if priority is None else msgspec.structs.replace(found.spec, priority=priority)
    changed = msgspec.structs.replace(found.metadata, **metadata)
    return msgspec.structs.replace(found, metadata=changed, spec=spec)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def full(cluster: Cluster) -> Cluster:
    """GPU a: two small pods of low priority; b: a large one of middle priority; c: two of middle priority."""
    cluster.run("a1", "a", units=40, priority=1, creation_timestamp="2026-01-01T00:00:00Z")
    cluster.run("a2", "a", units=40, priority=1, creation_timestamp="2026-01-02T00:00:00Z")
    cluster.run("b1", "b", units=80, priority=2)
    cluster.run("c1", "c", units=40, priority=2, node="node-2")
    cluster.run("c2", "c", units=40, priority=2, node="node-2")
    return cluster


def test_the_victims_free_one_gpu_whatever_was_offered(full: Cluster) -> None:
    full.index.change_claim(PodUid("a1"), None)
    full.run("a1", "a", units=20, priority=1)  # 20 units are free on a: for the sum, a1 or a2 alone would do
    answer = full.preempt(units=60, node_1=["a1"], node_2=["c1"])
    assert answer == {"node-1": (["a2"], 0), "node-2": (["c1", "c2"], 0)}


def test_an_offer_that_is_the_cheapest_stays_as_it_is(full: Cluster) -> None:
    assert full.preempt(units=80, node_1=["a2", "a1"]) == {"node-1": (["a2", "a1"], 0)}


def test_who_holds_no_gpu_of_ours_stays(full: Cluster) -> None:
    """They may be in the way for CPU; those with a GPU that is not needed are spared."""
    assert full.preempt(units=40, node_1=["cpu-hog", "b1"]) == {"node-1": (["a2", "cpu-hog"], 0)}


def test_where_the_gpu_is_free_the_offer_is_for_something_else(cluster: Cluster) -> None:
    """For CPU, say, of which fracgpu knows nothing: even a pod with a GPU may have to go for it."""
    cluster.run("a1", "a", units=10, priority=1)
    assert cluster.preempt(units=40, node_1=["a1", "cpu-hog"]) == {"node-1": (["a1", "cpu-hog"], 0)}


def test_no_victims_where_room_is_on_its_way(full: Cluster) -> None:
    """kube-scheduler's sum counts a pod until it is gone, and would evict another in its stead."""
    full.end("b1")
    assert full.preempt(units=40, node_1=["a1"]) == {}
    assert full.preempt(units=40, node_1=["a1", "cpu-hog"]) == {"node-1": (["cpu-hog"], 0)}


def test_nodes_that_eviction_does_not_help_are_left_out(full: Cluster) -> None:
    answer = full.preempt(units=81, node_1=["a1", "a2"], node_2=["c1"], node_9=["x"])
    assert answer == {}
    assert full.preempt(units=80, priority=2, node_1=["a1"], node_2=["c1"], node_9=["x"]) == {
        "node-1": (["a1", "a2"], 0)
    }


def test_several_gpus_are_freed_together(full: Cluster) -> None:
    assert full.ask(
        units=120, gpus="2", NodeNameToMetaVictims={"node-1": {"Pods": [{"UID": "b1"}]}, "node-2": {"Pods": []}}
    ) == {"node-1": (["b1", "a1", "a2"], 0)}


def test_only_pods_of_lower_priority_go(cluster: Cluster) -> None:
    cluster.run("a1", "a", units=80, priority=100)
    cluster.run("b1", "b", units=80, priority=99)
    assert cluster.preempt(node_1=["a1"]) == {"node-1": (["b1"], 0)}
    assert cluster.preempt(priority=99, node_1=["a1"]) == {}


def test_no_priority_is_zero(cluster: Cluster) -> None:
    cluster.run("a1", "a", units=80, priority=None)
    cluster.run("b1", "b", units=80, priority=-1)
    assert cluster.preempt(priority=1, node_1=["a1"]) == {"node-1": (["b1"], 0)}
    assert cluster.preempt(priority=None, node_1=["a1"]) == {"node-1": (["b1"], 0)}
    cluster.end("b1")
    cluster.run("b2", "b", units=80)
    assert cluster.preempt(priority=None, node_1=["b2"]) == {}


class TestOnlyWhomTheSchedulerKnows:
    """A victim that kube-scheduler does not find on the node makes its whole attempt fail."""

    def test_a_claim_without_a_pod(self, cluster: Cluster) -> None:
        cluster.run("a1", "a", units=80)
        cluster.run("b1", "b", units=80, priority=9)
        del cluster.pods["a1"]
        assert cluster.preempt(node_1=["x"]) == {"node-1": (["b1", "x"], 0)}

    def test_a_pod_that_is_bound_elsewhere(self, cluster: Cluster) -> None:
        cluster.run("a1", "a", units=80, pod_node="node-2")
        cluster.run("b1", "b", units=80, priority=9)
        assert cluster.preempt(node_1=["b1"]) == {"node-1": (["b1"], 0)}

    def test_a_pod_whose_phase_says_that_it_ended(self, cluster: Cluster) -> None:
        """Its containers may still run, so its share is not free; kube-scheduler has forgotten it."""
        cluster.run("a1", "a", units=80)
        cluster.run("b1", "b", units=80, priority=9)
        status = pod("a1", phase="Failed", running=True).status
        cluster.pods["a1"] = msgspec.structs.replace(cluster.pods["a1"], status=status)
        assert cluster.preempt(node_1=["b1"]) == {"node-1": (["b1"], 0)}

    def test_a_pod_that_is_being_deleted(self, cluster: Cluster) -> None:
        """Even where the index has not been told yet."""
        cluster.run("a1", "a", units=80, deletion_timestamp="2026-01-09T00:00:00Z")
        cluster.run("b1", "b", units=80, priority=9)
        assert cluster.preempt(node_1=["a1"]) == {"node-1": (["b1"], 0)}

    def test_a_pod_whose_memory_is_on_its_way(self, cluster: Cluster) -> None:
        """It frees nothing more by being evicted again."""
        cluster.run("a1", "a", units=40)
        cluster.run("a2", "a", units=40, priority=1)
        cluster.run("b1", "b", units=80, priority=9)
        cluster.index.set_ending(PodUid("a1"), ending=True)
        assert cluster.preempt(units=80, node_1=["a1"]) == {"node-1": (["a2"], 0)}

    @pytest.mark.parametrize("state", [ClaimState.HELD, ClaimState.BINDING])
    def test_a_pod_on_its_way_only_where_it_was_offered(self, cluster: Cluster, state: ClaimState) -> None:
        """kube-scheduler counts it from the moment it chose the node, and so its share is taken."""
        cluster.run("a1", "a", units=80, state=state)
        cluster.run("b1", "b", units=80, priority=9)
        assert cluster.preempt(node_1=["b1"]) == {"node-1": (["b1"], 0)}
        assert cluster.preempt(node_1=["a1"]) == {"node-1": (["a1"], 0)}
        assert cluster.preempt(node_1=["cpu-hog"]) == {"node-1": (["b1", "cpu-hog"], 0)}


def test_a_hold_of_its_own_is_not_in_the_way(cluster: Cluster) -> None:
    cluster.run(VIP, "a", units=80, state=ClaimState.HELD)
    cluster.run("b1", "b", units=80, priority=9)
    assert cluster.preempt(node_1=["cpu-hog"]) == {"node-1": (["cpu-hog"], 0)}


def test_a_gpu_that_was_freed_for_another_is_its_own(cluster: Cluster) -> None:
    """The pod for which others were evicted waits until their memory is free; one of lower priority yields to ours."""
    cluster.run("a1", "a", units=80, priority=1)
    cluster.run("b1", "b", units=80, priority=2)
    cluster.end("a1")
    for priority in (101, 100):
        cluster.index.set_nominated(PodUid("other"), Nomination(NodeName("node-1"), priority, request(80)))
        assert cluster.preempt(node_1=["b1"]) == {"node-1": (["b1"], 0)}
    cluster.index.set_nominated(PodUid("other"), Nomination(NodeName("node-1"), 99, request(80)))
    assert cluster.preempt(node_1=["b1"]) == {}, "there is room when a1 has ended"


class TestDisruptionBudgets:
    def test_a_pod_that_is_protected_is_spared_for_one_of_higher_priority(self, full: Cluster) -> None:
        full.run("a1", "a", units=40, priority=1, labels={"app": "web"})
        full.run("a2", "a", units=40, priority=1, labels={"app": "web"})
        full.protect("web", allowed=0, app="web")
        assert full.preempt(node_1=["a1"]) == {"node-1": (["b1"], 0)}

    def test_a_budget_that_allows_it_is_used(self, full: Cluster) -> None:
        full.run("a1", "a", units=40, priority=1, labels={"app": "web"})
        full.run("a2", "a", units=40, priority=2, labels={"app": "web"})
        full.protect("web", allowed=1, app="web")
        assert full.preempt(node_1=["b1"]) == {"node-1": (["a1"], 0)}
        assert full.preempt(units=80, node_1=["b1"]) == {"node-1": (["b1"], 0)}

    def test_violations_are_counted_where_there_is_no_other_way(self, full: Cluster) -> None:
        full.run("c1", "c", units=40, priority=2, node="node-2", labels={"app": "web"})
        full.run("c2", "c", units=40, priority=2, node="node-2", labels={"app": "web"})
        full.protect("web", allowed=1, app="web")
        assert full.preempt(units=80, node_2=["c1"]) == {"node-2": (["c1", "c2"], 1)}

    def test_an_eviction_under_way_is_not_counted_twice(self, full: Cluster) -> None:
        full.run("a1", "a", units=40, priority=1, labels={"app": "web"})
        full.run("a2", "a", units=40, priority=1, labels={"app": "web"})
        full.protect("web", allowed=0, disrupted=("a2",), app="web")
        assert full.preempt(node_1=["b1"]) == {"node-1": (["a2"], 0)}

    def test_what_was_counted_for_unknown_pods_still_counts(self, full: Cluster) -> None:
        """Of pods without a GPU only the UID comes: what was counted beyond the known ones is theirs."""
        full.run("b1", "b", units=80, priority=2, labels={"app": "web"})
        full.protect("web", allowed=0, app="web")
        offer = {"Pods": [{"UID": "b1"}, {"UID": "hog-1"}, {"UID": "hog-2"}], "NumPDBViolations": 2}
        answer = full.ask(NodeNameToMetaVictims={"node-1": offer})
        assert answer["node-1"][1] == 1, "b1 is spared, and with it one of the two"

    def test_of_whole_pods_it_is_counted_exactly(self, full: Cluster) -> None:
        hogs = [with_fields(pod(name), priority=50, labels={"app": "hog"}) for name in ("hog-1", "hog-2")]
        full.protect("hogs", allowed=1, app="hog")
        offer = {"Pods": [*hogs, full.pods["b1"]], "NumPDBViolations": 9}
        answer = full.ask(units=80, NodeNameToVictims={"node-1": offer}, NodeNameToMetaVictims=None)
        assert answer == {"node-1": (["hog-1", "hog-2", "a1", "a2"], 1)}


def test_the_most_important_victim_comes_first(cluster: Cluster) -> None:
    cluster.run("young", "a", units=20, priority=5, creation_timestamp="2026-01-02T00:00:00Z")
    cluster.run("old", "a", units=20, priority=5, creation_timestamp="2026-01-01T00:00:00Z")
    cluster.run("low", "a", units=20, priority=-5)
    cluster.run("high", "a", units=20, priority=7)
    cluster.run("b1", "b", units=80, priority=99)
    assert cluster.preempt(units=80, node_1=["cpu-hog"]) == {"node-1": (["high", "old", "young", "cpu-hog", "low"], 0)}


def test_both_forms_of_the_question_have_the_same_answer(full: Cluster) -> None:
    by_uid = full.preempt(units=60, node_1=["b1"], node_2=["c1"])
    whole = {
        node: {"Pods": [full.pods[uid]], "NumPDBViolations": 0} for node, uid in [("node-1", "b1"), ("node-2", "c1")]
    }
    assert full.ask(units=60, NodeNameToVictims=whole, NodeNameToMetaVictims=None) == by_uid
    assert full.ask(units=60, NodeNameToVictims=whole) == by_uid


def test_a_pod_that_asks_no_gpu_gets_what_was_offered(full: Cluster) -> None:
    offers = {
        "node-1": {"Pods": [{"UID": "a1"}, {"UID": "x"}], "NumPDBViolations": 3},
        "node-9": {"Pods": [{"UID": "y"}]},
    }
    assert full.ask(units=0, NodeNameToMetaVictims=offers) == {"node-1": (["a1", "x"], 3), "node-9": (["y"], 0)}


def test_a_request_that_can_never_be_met_evicts_nobody(full: Cluster) -> None:
    assert full.ask(units=3, gpus="2", NodeNameToMetaVictims={"node-1": {"Pods": [{"UID": "a1"}]}}) == {}


@pytest.mark.parametrize("units", [0, 40])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"NodeNameToMetaVictims": None, "NodeNameToVictims": None},
        {"NodeNameToMetaVictims": {}, "NodeNameToVictims": {}},
        {"NodeNameToMetaVictims": {"node-9": None}},
        {"NodeNameToMetaVictims": {"node-9": {}}},
        {"NodeNameToMetaVictims": {"node-9": {"Pods": None}}},
        {"NodeNameToMetaVictims": {"node-9": {"Pods": [None]}}},
        {"NodeNameToVictims": {"node-9": None}},
        {"NodeNameToVictims": {"node-9": {"Pods": None}}},
        {"NodeNameToVictims": {"node-9": {"Pods": [None]}}},
        {"Extra": 1},
    ],
)
def test_nothing_is_answered_with_nothing(full: Cluster, arguments: dict[str, Any], units: int) -> None:
    assert full.ask(units=units, **arguments) == {}


def test_a_node_without_an_offer_is_never_answered_without_victims(cluster: Cluster) -> None:
    assert cluster.ask(NodeNameToMetaVictims={"node-1": {"Pods": []}, "node-2": None}) == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"Pod": null}',
        b'{"Pod": {}, "NodeNameToMetaVictims": []}',
        b'{"Pod": {}, "NodeNameToMetaVictims": {"n": {"Pods": [{}]}}}',
        b'{"Pod": {}, "NodeNameToMetaVictims": {"n": {"NumPDBViolations": "1"}}}',
        b'{"Pod": ' * 5000 + b"1" + b"}" * 5000,
    ],
)
def test_garbage_is_refused_with_a_sentence(body: bytes) -> None:
    with pytest.raises(InputError, match="not what kube-scheduler sends an extender"):
        decode_preemption_args(body)


def test_the_recorded_question_is_answered_with_the_recorded_answer() -> None:
    """Where what was offered is right, the answer is what a real kube-scheduler has accepted."""
    vector = json.loads((Path(__file__).parents[1] / "wire" / "extender-preempt.json").read_text())
    cluster = Cluster()
    for node, victims in vector["request"]["NodeNameToMetaVictims"].items():
        cluster.index.put_node(gpu_node(node, f"GPU-{node}", units=320))
        cluster.run(victims["Pods"][0]["UID"], f"GPU-{node}", units=300, node=node, priority=10)
    args = decode_preemption_args(json.dumps(vector["request"]).encode())
    answer = dict(preempt(cluster.index, args, pods=cluster.pods, budgets=[]))
    assert json.loads(msgspec.json.encode({"NodeNameToMetaVictims": answer})) == vector["response"]


Replicas = tuple[Replica, Replica]


async def run(api: ApiServer, replicas: Replicas, name: str, *, units: int, priority: int, **labels: str) -> JsonObject:
    """Create a pod, bind it to node-1, and wait until both replicas have seen it there."""
    limits = {"limits": {"fracgpu.io/memory": str(units)}}
    created = await api.cluster.create(
        "pods",
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "team-a", "labels": labels},
            "spec": {"priority": priority, "containers": [{"name": "main", "image": "x", "resources": limits}]},
        },
    )
    assert await replicas[0].bind(created, "node-1") == ""
    uid = created["metadata"]["uid"]
    async with asyncio.timeout(10):
        while any(_node_of(replica, uid) != "node-1" for replica in replicas):
            await replicas[0].get("/livez")
    return created


def _node_of(replica: Replica, uid: str) -> str:
    found = replica.reconciler.pods_by_uid.get(uid)
    return found.spec.node_name if found else ""


async def ask(replica: Replica, body: object) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with aiohttp.ClientSession() as session, session.post(f"{replica.url}/preempt", data=data) as answer:
        return answer.status, await answer.json()


async def a_full_node(api: ApiServer, replicas: Replicas, **labels: str) -> tuple[dict[str, Any], dict[str, str]]:
    """One GPU with two pods of 30 units, another with one of 50 and a higher priority, and who asks for 60 units.

    Returns what kube-scheduler would ask, with the one pod whose end makes room in the sum; and the UIDs by name.
    """
    await announce(api, gpu_node("node-1", "GPU-a", "GPU-b"))
    for replica in replicas:
        await replica.knows("node-1")
    pods = [
        await run(api, replicas, "a1", units=30, priority=1, **labels),
        await run(api, replicas, "a2", units=30, priority=1, **labels),
        await run(api, replicas, "b", units=50, priority=2),
    ]
    uids = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods}
    preemptor = msgspec.to_builtins(with_fields(pod(VIP, units=60), priority=9))
    victims = {"Pods": [{"UID": uids["a2"]}], "NumPDBViolations": 0}
    return {"Pod": preemptor, "NodeNameToVictims": None, "NodeNameToMetaVictims": {"node-1": victims}}, uids


async def test_every_replica_names_the_same_victims(api: ApiServer, replicas: Replicas) -> None:
    question, uids = await a_full_node(api, replicas)
    for replica in replicas:
        status, answer = await ask(replica, question)
        (node, victims) = answer["NodeNameToMetaVictims"].popitem()
        assert (status, node, victims["NumPDBViolations"]) == (200, "node-1", 0)
        assert {victim["UID"] for victim in victims["Pods"]} == {uids["a1"], uids["a2"]}


async def test_disruption_budgets_are_followed(api: ApiServer, replicas: Replicas) -> None:
    """Until its status says otherwise, a budget allows nothing; when it does, that counts from then on."""
    question, uids = await a_full_node(api, replicas, app="web")
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web", "namespace": "team-a"},
        "spec": {"maxUnavailable": 2, "selector": {"matchLabels": {"app": "web"}}},
    }
    await api.cluster.create("poddisruptionbudgets", budget)
    await _until_victims(replicas[0], question, {uids["b"]})
    status = {"status": {"disruptionsAllowed": 2}}
    await api.cluster.patch("poddisruptionbudgets", "web", status, namespace="team-a", subresource="status")
    await _until_victims(replicas[0], question, {uids["a1"], uids["a2"]})
    await api.cluster.delete("poddisruptionbudgets", "web", namespace="team-a")


async def _until_victims(replica: Replica, question: object, want: set[str]) -> None:
    seen: set[str] = set()
    async with asyncio.timeout(10):
        while seen != want:
            _, answer = await ask(replica, question)
            victims = answer["NodeNameToMetaVictims"]["node-1"]
            assert victims["NumPDBViolations"] == 0
            seen = {victim["UID"] for victim in victims["Pods"]}


async def test_without_the_ledger_nobody_is_evicted(api: ApiServer, replicas: Replicas, redis: EmbeddedRedis) -> None:
    """The answer has no place for an error: its status is what makes kube-scheduler say that the call failed."""
    question, _ = await a_full_node(api, replicas)
    await redis.kill()
    status, answer = await ask(replicas[0], question)
    assert status == 503
    assert "NodeNameToMetaVictims" not in answer
    assert "Redis does not answer" in answer["Error"]


async def test_garbage_over_http_is_answered_with_a_sentence(replicas: Replicas) -> None:
    for body in (b"", b"{}", b"\xff", b'{"Pod": {"metadata": 7}}', b'{"Pod": {}, "NodeNameToVictims": [1]}'):
        status, answer = await ask(replicas[0], body)
        assert status == 503, body
        assert "not what kube-scheduler sends an extender" in answer["Error"], body
    assert await ask(replicas[0], {"Pod": {}}) == (200, {"NodeNameToMetaVictims": {}})


async def test_without_the_right_to_read_disruption_budgets_it_still_works(
    api: ApiServer, redis: EmbeddedRedis, tmp_path: Path
) -> None:
    """A cluster that was upgraded without the new role: ready, and victims are chosen as if there were no budgets."""
    async with _forbidding("poddisruptionbudgets", api.url) as url:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(api.kubeconfig().replace(api.url, url))
        async with Replica.running(redis_url=redis.url, kubeconfig=kubeconfig) as replica:
            async with asyncio.timeout(20):
                await replica.reconciler.ready.wait()
            question, uids = await a_full_node(api, (replica, replica))
            await _until_victims(replica, question, {uids["a1"], uids["a2"]})
            assert await replica.get("/readyz") == (200, "ok")


@contextlib.asynccontextmanager
async def _forbidding(plural: str, upstream: str) -> AsyncIterator[str]:
    """An API server that answers 403 for one kind of object, and for the rest passes on what another says."""

    async def pass_on(request: web.Request) -> web.StreamResponse:
        if plural in request.path:
            return web.json_response({"kind": "Status", "code": 403, "reason": "Forbidden"}, status=403)
        body, headers = await request.read(), {"Content-Type": request.content_type}
        async with session.request(request.method, upstream + request.path_qs, data=body, headers=headers) as answer:
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", pass_on)
    async with aiohttp.ClientSession() as session:
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        try:
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()
