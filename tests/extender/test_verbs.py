"""The verbs over HTTP: recorded requests of a real kube-scheduler, two replicas, failing Bindings, garbage."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from extender.ledger.claims import ClaimState
from fracgpu.names import ANNOTATION_ALLOCATION, PodUid
from fracgpu.plans import decode_plan
from playground.api.apiserver import ApiServer
from tests.extender.builders import gpu_node
from tests.extender.replica import Replica, announce, create_pod

WIRE = Path(__file__).parents[1] / "wire"
Replicas = tuple[Replica, Replica]


def recorded(verb: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((WIRE / f"extender-{verb}.json").read_text())
    return found


async def one_node(api: ApiServer, *replicas: Replica, units: int = 80) -> None:
    await announce(api, gpu_node("node-1", "GPU-a", units=units))
    for replica in replicas:
        await replica.knows("node-1")


async def allocation(api: ApiServer, name: str) -> set[str]:
    pod = await api.cluster.get("pods", name, namespace="team-a")
    return set(decode_plan(pod["metadata"]["annotations"][ANNOTATION_ALLOCATION]).per_gpu())


async def test_recorded_filter_is_answered_in_the_recorded_shape(api: ApiServer, replicas: Replicas) -> None:
    vector = recorded("filter")
    for name in ("n1", "n2"):
        await announce(api, gpu_node(name, f"GPU-{name}"))
    await replicas[0].knows("n1", "n2")

    answer = await replicas[0].post("filter", vector["request"])
    assert vector["response"].keys() <= answer.keys()
    assert answer["Error"] == ""
    assert answer["NodeNames"] == []
    assert "init container 'warm'" in answer["FailedAndUnresolvableNodes"]["n1"]

    sound = json.loads(json.dumps(vector["request"]))
    del sound["Pod"]["spec"]["initContainers"]
    answer = await replicas[0].post("filter", sound)
    assert answer["NodeNames"] == ["n1", "n2"]
    assert list(answer["FailedAndUnresolvableNodes"]) == ["n3"]


async def test_recorded_prioritize_is_answered_in_the_recorded_shape(api: ApiServer, replicas: Replicas) -> None:
    vector = recorded("prioritize")
    del vector["request"]["Pod"]["spec"]["initContainers"]
    await announce(api, gpu_node("n1", "GPU-n1"))
    await announce(api, gpu_node("n3", "GPU-n3", units=40))
    await replicas[0].knows("n1", "n3")

    answer = await replicas[0].post("prioritize", vector["request"])
    assert [entry.keys() for entry in answer] == [entry.keys() for entry in vector["response"]]
    scores = {entry["Host"]: entry["Score"] for entry in answer}
    assert scores["n3"] == 10 > scores["n1"] >= 0


async def test_recorded_bind_is_answered_in_the_recorded_shape(api: ApiServer, replicas: Replicas) -> None:
    vector = recorded("bind")
    await announce(api, gpu_node("n1", "GPU-n1"))
    await replicas[0].knows("n1")
    answer = await replicas[0].post("bind", vector["request"])
    assert answer.keys() == vector["response"].keys()
    assert "not found" in answer["Error"]  # that pod does not live here

    pod = await create_pod(api, vector["request"]["PodName"], units=8)
    answer = await replicas[0].post("bind", vector["request"] | {"PodUID": pod["metadata"]["uid"]})
    assert answer == vector["response"]
    assert await allocation(api, "infer-0") == {"GPU-n1"}


async def test_the_pod_of_the_recorded_preemption_is_understood(api: ApiServer, replicas: Replicas) -> None:
    """Where there is room, the pod that it speaks of takes the ordinary way."""
    vector = recorded("preempt")
    names = list(vector["request"]["NodeNameToMetaVictims"])
    for name in names:
        await announce(api, gpu_node(name, f"GPU-{name}", units=320))
    await replicas[0].knows(*names)
    answer = await replicas[0].post("filter", {"Pod": vector["request"]["Pod"], "Nodes": None, "NodeNames": names})
    assert answer["NodeNames"] == names


async def test_whole_nodes_are_answered_with_whole_nodes(api: ApiServer, replicas: Replicas) -> None:
    await one_node(api, replicas[0])
    request = recorded("filter")["request"]
    del request["Pod"]["spec"]["initContainers"]
    nodes = [{"metadata": {"name": name}, "spec": {"x": 1}} for name in ("node-1", "other")]
    answer = await replicas[0].post("filter", request | {"NodeNames": None, "Nodes": {"items": nodes}})
    assert answer["Nodes"] == {"items": [nodes[0]]}
    assert answer["NodeNames"] is None


GARBAGE = {
    "nothing": b"",
    "not UTF-8": b"\xff\xfe",
    "a list": b"[]",
    "an empty object": b"{}",
    "null": b'{"Pod": null}',
    "wrong types": b'{"Pod": {"spec": {"containers": 7}}, "NodeNames": ["n1"]}',
    "a number for a name": b'{"Pod": {}, "NodeNames": [1]}',
    "a node without a name": b'{"Pod": {}, "Nodes": {"items": [{}]}}',
    "nested deeply": b'{"Pod": ' * 5000 + b"1" + b"}" * 5000,
}


@pytest.mark.parametrize("verb", ["filter", "prioritize", "bind"])
async def test_garbage_is_answered_with_a_sentence(verb: str, replicas: Replicas) -> None:
    for case, body in GARBAGE.items():
        answer = await replicas[0].post(verb, body)
        assert "not what kube-scheduler sends" in answer["Error"] or "no metadata.name" in answer["Error"], case


async def test_two_replicas_never_give_the_same_memory_twice(api: ApiServer, replicas: Replicas) -> None:
    await one_node(api, *replicas)
    pods = [await create_pod(api, f"p{n}", units=16) for n in range(10)]
    errors = await asyncio.gather(*(replicas[n % 2].bind(pod, "node-1") for n, pod in enumerate(pods)))
    assert errors.count("") == 5
    assert all("largest free piece is 0 MiB" in error for error in errors if error)


async def test_the_same_bind_at_both_replicas_binds_once(api: ApiServer, replicas: Replicas) -> None:
    await one_node(api, *replicas)
    pod = await create_pod(api, "p", units=16)
    errors = await asyncio.gather(*(replicas[n % 2].bind(pod, "node-1") for n in range(6)))
    assert errors == [""] * 6
    await replicas[0].ledger.catch_up()
    assert [entry.claim.state for entry in replicas[0].index.entries.values()] == [ClaimState.BOUND]
    view = replicas[0].index.view(gpu_node("node-1").node)
    assert view is not None
    assert view.pieces == (64,)


async def test_a_bound_pod_cannot_be_bound_elsewhere(api: ApiServer, replicas: Replicas) -> None:
    await one_node(api, *replicas)
    await announce(api, gpu_node("node-2", "GPU-b"))
    await replicas[0].knows("node-2")
    pod = await create_pod(api, "p", units=16)
    assert await replicas[0].bind(pod, "node-1") == ""
    assert "bound to node-1 already" in await replicas[0].bind(pod, "node-2")


async def test_an_unknown_outcome_keeps_the_share_until_it_is_known(api: ApiServer, replicas: Replicas) -> None:
    await one_node(api, *replicas, units=16)
    pod = await create_pod(api, "p", units=16)
    other = await create_pod(api, "other", units=16)
    api.bindings.hang()
    assert "not known whether the pod was bound" in await replicas[0].bind(pod, "node-1")
    assert "free piece is 0 MiB" in await replicas[1].bind(other, "node-1")
    async with asyncio.timeout(10):
        while "is 0 MiB" in (error := await replicas[1].bind(other, "node-1")):
            pass  # the deadline passes, the pod is read again and found unbound
    assert error == ""
    api.bindings.release()


async def test_a_deleted_pod_leaves_nothing_behind(api: ApiServer, replicas: Replicas) -> None:
    await one_node(api, *replicas)
    pod = await create_pod(api, "p", units=16)
    await api.cluster.delete("pods", "p", namespace="team-a", grace_seconds=0)
    assert "not found" in await replicas[0].bind(pod, "node-1")
    again = await create_pod(api, "p", units=16)
    assert again["metadata"]["uid"] != pod["metadata"]["uid"]
    assert "replaced by another of the same name" in await replicas[0].bind(pod, "node-1")
    await replicas[0].ledger.catch_up()
    assert not replicas[0].index.entries


async def test_release_waits_for_the_plugins_word(api: ApiServer, replicas: Replicas) -> None:
    await one_node(api, *replicas, units=16)
    pod = await create_pod(api, "p", units=16)
    assert await replicas[0].bind(pod, "node-1") == ""
    await api.cluster.delete("pods", "p", namespace="team-a", grace_seconds=0)
    other = await create_pod(api, "other", units=16)
    assert "free piece is 0 MiB" in await replicas[0].bind(other, "node-1")

    _, version = await api.cluster.list("pods")
    await announce(api, gpu_node("node-1", "GPU-a", units=16, observed=version))
    async with asyncio.timeout(10):
        while PodUid(pod["metadata"]["uid"]) in replicas[1].index.entries:
            await replicas[1].ledger.catch_up()
    assert await replicas[1].bind(other, "node-1") == ""


async def test_probes_and_explanations(api: ApiServer, replicas: Replicas) -> None:
    await one_node(api, *replicas)
    await create_pod(api, "big", units=81)
    assert await replicas[0].get("/healthz") == (200, "ok")
    assert await replicas[0].get("/readyz") == (200, "ok")
    async with asyncio.timeout(10):
        while (found := await replicas[0].get("/v1/explain/team-a/big"))[0] == 404:
            pass
    assert "the largest free piece is 40 GiB, on node-1" in found[1]
    assert (await replicas[0].get("/v1/explain/team-a/nobody"))[0] == 404


async def test_an_unreadable_allocation_is_no_plan(api: ApiServer, replicas: Replicas) -> None:
    await one_node(api, *replicas)
    await create_pod(api, "odd", units=8, annotations={ANNOTATION_ALLOCATION: "[" * 100_000})
    pod = await create_pod(api, "p", units=16)
    assert await replicas[0].bind(pod, "node-1") == ""


@pytest.mark.parametrize("units", [2**63, 20])
async def test_a_forged_allocation_stops_nobody(api: ApiServer, replicas: Replicas, units: int) -> None:
    await one_node(api, *replicas)
    pod = await create_pod(api, "forger", units=16)
    assert await replicas[0].bind(pod, "node-1") == ""
    bound = await api.cluster.get("pods", "forger", namespace="team-a")
    plan = json.loads(bound["metadata"]["annotations"][ANNOTATION_ALLOCATION])
    plan["containers"]["x"] = [{"gpu": "GPU-a", "units": units, "seats": 0}]
    forged = {"metadata": {"annotations": {ANNOTATION_ALLOCATION: json.dumps(plan)}}}
    await api.cluster.patch("pods", "forger", forged, namespace="team-a")

    others = [await create_pod(api, f"p{n}", units=16) for n in range(5)]
    errors = [await replicas[n % 2].bind(other, "node-1") for n, other in enumerate(others)]
    assert errors.count("") == 4  # with the forger's own 16 of 80 units
    assert "free piece is 0 MiB" in errors[4]


async def test_bind_without_a_name_is_answered(replicas: Replicas) -> None:
    whole = {"PodName": "p", "PodNamespace": "n", "PodUID": "u", "Node": "node-1"}
    for missing in whole:
        answer = await replicas[0].post("bind", whole | {missing: ""})
        assert "must all be given" in answer["Error"]
