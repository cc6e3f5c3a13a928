"""Whole scheduling cycles over HTTP, as kube-scheduler drives them, against one replica or several."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from extender.index import Index
from extender.ledger.connecting import connect
from extender.ledger.embedded import EmbeddedRedis
from extender.ledger.ledger import Ledger
from fracgpu.names import ANNOTATION_ALLOCATION
from playground.api.apiserver import ApiServer
from tests.extender.builders import gpu_node
from tests.extender.replica import JsonObject, Replica, announce, create_pod

NODES = [f"node-{n}" for n in range(4)]
Replicas = tuple[Replica, Replica]
LITTLE = {"limits": {"fracgpu.io/memory": "1"}}


async def announce_all(api: ApiServer, *replicas: Replica) -> None:
    for name in NODES:
        await announce(api, gpu_node(name, f"GPU-{name}-a", f"GPU-{name}-b"))
    for replica in replicas:
        await replica.knows(*NODES)


async def filtered(replica: Replica, pod: JsonObject, names: Sequence[str] = NODES) -> list[str]:
    answer = await replica.post("filter", {"Pod": pod, "Nodes": None, "NodeNames": list(names)})
    assert answer["Error"] == "", answer
    return list(answer["NodeNames"])


async def best_of(replica: Replica, pod: JsonObject, names: Sequence[str] = NODES) -> str:
    answer = await replica.post("prioritize", {"Pod": pod, "Nodes": None, "NodeNames": list(names)})
    (best,) = [found["Host"] for found in answer if found["Score"] == 10]
    return str(best)


async def choose(replicas: Iterator[Replica], pod: JsonObject) -> str:
    """What kube-scheduler chooses where nothing but the extender has an opinion."""
    fitting = await filtered(next(replicas), pod)
    return fitting[0] if len(fitting) == 1 else await best_of(next(replicas), pod, fitting)


async def test_the_next_pod_is_not_sent_to_the_slice_that_was_offered_to_the_last(
    api: ApiServer, replicas: Replicas
) -> None:
    """The next pod's filter arrives before the last pod's bind; either may reach another replica."""
    await announce_all(api, *replicas)
    turns = itertools.cycle(replicas)
    pods = [await create_pod(api, f"p{n}", units=60) for n in range(8)]  # one on each of the 8 GPUs
    nodes = [await choose(turns, pod) for pod in pods]
    errors = await asyncio.gather(*(next(turns).bind(pod, node) for pod, node in zip(pods, nodes, strict=True)))
    assert errors == [""] * 8
    assert {node: nodes.count(node) for node in NODES} == dict.fromkeys(NODES, 2)


async def test_filter_itself_holds_the_only_node(api: ApiServer, replicas: Replicas) -> None:
    await announce_all(api, *replicas)
    first, second = [await create_pod(api, name, units=80) for name in ("first", "second")]
    third = await create_pod(api, "third", units=80)
    assert await filtered(replicas[0], first, NODES[:1]) == NODES[:1]
    assert await filtered(replicas[1], second, NODES[:1]) == NODES[:1]
    answer = await replicas[1].post("filter", {"Pod": third, "NodeNames": NODES[:1]})
    assert "as soon as the shares of team-a/first, team-a/second are settled" in answer["Error"]
    assert await replicas[0].bind(first, NODES[0]) == ""


async def test_a_hold_moves_to_where_the_scheduler_binds(api: ApiServer, replicas: Replicas) -> None:
    await announce_all(api, *replicas)
    pod = await create_pod(api, "p", units=80)
    best = await best_of(replicas[0], pod)
    elsewhere = next(name for name in NODES if name != best)
    assert await replicas[1].bind(pod, elsewhere) == ""
    others = [await create_pod(api, f"other-{n}", units=80) for n in range(2)]
    assert [await replicas[0].bind(other, best) for other in others] == ["", ""]


async def test_a_hold_made_for_less_than_the_pod_asks_is_not_what_it_gets(api: ApiServer, replicas: Replicas) -> None:
    """Whoever may reach prioritize may say anything of a pod; bind reads the pod itself."""
    await announce_all(api, *replicas)
    pod = await create_pod(api, "victim", units=80)
    lie = {"metadata": pod["metadata"], "spec": {"containers": [{"name": "c0", "resources": LITTLE}]}}
    await best_of(replicas[0], lie, NODES[:1])
    await replicas[1].ledger.catch_up()
    assert await replicas[1].bind(pod, NODES[0]) == ""
    others = [await create_pod(api, f"other-{n}", units=80) for n in range(2)]
    errors = [await replicas[0].bind(other, NODES[0]) for other in others]
    assert errors[0] == ""
    assert "free piece is 0 MiB" in errors[1]


async def test_pods_of_many_containers_leave_time_for_others(api: ApiServer, replicas: Replicas) -> None:
    await announce_all(api, *replicas)
    containers = [{"name": f"c{n}", "resources": {"limits": {"fracgpu.io/memory": str(n + 20)}}} for n in range(16)]
    pod = {"metadata": {"name": "many", "namespace": "team-a", "uid": "u"}, "spec": {"containers": containers}}
    answer = await replicas[0].post("filter", {"Pod": pod, "NodeNames": NODES})
    assert answer["Error"] == ""
    assert len(answer["FailedAndUnresolvableNodes"]) == len(NODES)
    more = {**pod, "spec": {"containers": [*containers, {**containers[0], "name": "c16"}]}}
    answer = await replicas[0].post("filter", {"Pod": more, "NodeNames": NODES})
    assert "17 containers of the pod ask for GPUs, and at most 16 may" in answer["FailedAndUnresolvableNodes"]["node-0"]


async def test_asking_again_keeps_one_hold(api: ApiServer, replicas: Replicas) -> None:
    await announce_all(api, *replicas)
    pod = await create_pod(api, "p", units=60)
    for replica in (*replicas, *replicas):
        assert await filtered(replica, pod) == NODES
        await best_of(replica, pod)
    await replicas[0].ledger.catch_up()
    assert [entry.claim.state for entry in replicas[0].index.entries.values()] == ["held"]


async def test_the_hold_of_a_pod_that_is_deleted_goes_with_it(api: ApiServer, replicas: Replicas) -> None:
    await announce_all(api, *replicas)
    pod = await create_pod(api, "p", units=60)
    await best_of(replicas[0], pod)
    await api.cluster.delete("pods", "p", namespace="team-a", grace_seconds=0)
    async with asyncio.timeout(10):
        while replicas[1].index.entries:
            await replicas[1].ledger.catch_up()


async def play(api: ApiServer, turns: Iterator[Replica]) -> list[tuple[str, str]]:
    """Place pods of all kinds, two at a time; returns node and plan of each."""
    kinds: list[dict[str, Any]] = [{"units": n} for n in (60, 8, 24, 8, 80, 40, 16, 8, 8, 32, 30, 2, 70, 1, 20, 12)]
    pods = [await create_pod(api, f"p{n}", **kind) for n, kind in enumerate(kinds)]
    nodes = []
    for first, second in zip(pods[::2], pods[1::2], strict=True):
        chosen = [await choose(turns, first), await choose(turns, second)]
        for pod, node in zip((first, second), chosen, strict=True):
            assert await next(turns).bind(pod, node) == ""
        nodes += chosen
    found = {pod["metadata"]["name"]: pod for pod in (await api.cluster.list("pods"))[0]}
    return [(node, found[f"p{n}"]["metadata"]["annotations"][ANNOTATION_ALLOCATION]) for n, node in enumerate(nodes)]


def make_directory(parent: Path, count: int) -> Path:
    directory = parent / str(count)
    directory.mkdir()
    return directory


def write_kubeconfig(directory: Path, api: ApiServer) -> None:
    (directory / "kubeconfig").write_text(api.kubeconfig())


@contextlib.asynccontextmanager
async def cluster_of(count: int, directory: Path) -> AsyncIterator[tuple[ApiServer, list[Replica]]]:
    async with contextlib.AsyncExitStack() as stack:
        redis = EmbeddedRedis(directory / "redis")
        await redis.start()
        stack.push_async_callback(redis.stop)
        api = ApiServer()
        await api.start()
        stack.push_async_callback(api.stop)
        first_life = Ledger(connect(redis.url), reader=Index())
        token = await first_life.begin_rebuild(lifetime_seconds=5)
        assert token is not None
        assert await first_life.commit_rebuild(token, [])
        await first_life.close()
        write_kubeconfig(directory, api)
        running = [
            await stack.enter_async_context(Replica.running(redis_url=redis.url, kubeconfig=directory / "kubeconfig"))
            for _ in range(count)
        ]
        for replica in running:
            await replica.reconciler.ready.wait()
        await announce_all(api, *running)
        yield api, running


async def test_replicas_behind_a_round_robin_give_the_same_placements_as_one(tmp_path: Path) -> None:
    placements = []
    for count in (1, 2, 3):
        async with cluster_of(count, make_directory(tmp_path, count)) as (api, running):
            placements.append(await play(api, itertools.cycle(running)))
    assert placements[0] == placements[1] == placements[2]
    assert len({node for node, _ in placements[0]}) > 1


@pytest.mark.parametrize("how", ["names", "whole nodes", "lower-case keys", "nothing", "5 MB"])
async def test_filter_understands_every_way_of_asking(how: str, api: ApiServer, replicas: Replicas) -> None:
    await announce_all(api, *replicas)
    pod = await create_pod(api, "p", units=60)
    nodes = {"items": [{"metadata": {"name": name}} for name in NODES]}
    strangers = [f"stranger-{n:06}.example" for n in range(200_000)]
    bodies: dict[str, dict[str, Any]] = {
        "names": {"Pod": pod, "Nodes": None, "NodeNames": NODES},
        "whole nodes": {"Pod": pod, "Nodes": nodes, "NodeNames": None},
        "lower-case keys": {"pod": pod, "nodes": None, "nodenames": NODES},
        "nothing": {"Pod": pod, "Nodes": {"items": None}, "NodeNames": None},
        "5 MB": {"Pod": pod, "NodeNames": [*NODES, *strangers]},
    }
    answer = await replicas[0].post("filter", bodies[how])
    assert answer["Error"] == ""
    if how == "whole nodes":
        assert answer["Nodes"] == nodes
    elif how == "nothing":
        assert answer["Nodes"] == {"items": []}
    else:
        assert answer["NodeNames"] == NODES
    assert len(answer["FailedAndUnresolvableNodes"]) == (200_000 if how == "5 MB" else 0)


async def test_several_containers_sidecars_and_models_share_one_plan(api: ApiServer, replicas: Replicas) -> None:
    await announce_all(api, *replicas)

    def container(name: str, units: int, **more: str) -> JsonObject:
        limits = {"limits": {"fracgpu.io/memory": str(units)}} if units else {}
        return {"name": name, "image": "example", "resources": limits, **more}

    pod = await api.cluster.create(
        "pods",
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "many",
                "namespace": "team-a",
                "annotations": {
                    "fracgpu.io/gpu-count": "2",
                    "fracgpu.io/container": "main",
                    "fracgpu.io/gpu-uuid": "GPU-node-2-a, GPU-node-2-b",
                    "fracgpu.io/gpu-model": "test*",
                },
            },
            "spec": {
                "initContainers": [container("sidecar", 8, restartPolicy="Always"), container("setup", 0)],
                "containers": [container("logger", 0), container("main", 100), container("aux", 16)],
            },
        },
    )
    assert await filtered(replicas[0], pod) == ["node-2"]
    assert await replicas[1].bind(pod, "node-2") == ""
    bound = await api.cluster.get("pods", "many", namespace="team-a")
    assert '"main":[{"gpu":"GPU-node-2-a","units":50' in bound["metadata"]["annotations"][ANNOTATION_ALLOCATION]
    view = replicas[1].index.view(gpu_node("node-2").node)
    assert view is not None
    assert sum(view.pieces) == 160 - 124
    elsewhere = await create_pod(api, "picky", units=8, annotations={"fracgpu.io/exclude-gpu-model": "Test GPU"})
    answer = await replicas[0].post("filter", {"Pod": elsewhere, "NodeNames": NODES})
    assert "(not model Test GPU); its GPUs are Test GPU" in answer["FailedAndUnresolvableNodes"]["node-0"]
