"""The spans of a pod's way through the extender, as a receiver of OTLP gets them."""

from __future__ import annotations

from playground.api.apiserver import ApiServer
from tests.extender.builders import gpu_node
from tests.extender.replica import Replica, announce, create_pod
from tests.process.receiver import traced

Replicas = tuple[Replica, Replica]


async def test_a_pods_way_is_one_trace(api: ApiServer, replicas: Replicas) -> None:
    for name in ("node-1", "node-2"):
        await announce(api, gpu_node(name, f"GPU-{name}"))
    await replicas[0].knows("node-1", "node-2")
    pod = await create_pod(api, "p", units=16)
    args = {"Pod": pod, "NodeNames": ["node-1", "node-2"]}
    async with traced("extender") as receiver:
        await replicas[0].post("filter", args)
        await replicas[0].post("prioritize", args)
        assert await replicas[0].bind(pod, "node-2") == ""
    uid = pod["metadata"]["uid"]
    assert {found.trace for found in receiver.spans} == {uid.replace("-", "")}
    assert sorted(found.name for found in receiver.spans) == ["Binding", "bind", "filter", "prioritize", "reserve"]
    about = {"k8s.pod.uid": uid, "k8s.namespace.name": "team-a", "k8s.pod.name": "p"}
    assert receiver.named("filter").attributes == {**about, "fracgpu.nodes_in": 2, "fracgpu.nodes_ok": 2}
    assert receiver.named("prioritize").attributes.keys() == {*about, "fracgpu.nodes_in", "fracgpu.node"}
    bind = receiver.named("bind")
    assert bind.attributes == {**about, "fracgpu.node": "node-2", "fracgpu.gpus": ["GPU-node-2=16"]}
    for name in ("reserve", "Binding"):
        found = receiver.named(name)
        assert (found.parent, found.attributes) == (bind.id, {**about, "k8s.node.name": "node-2"})
        assert found.seconds < bind.seconds


async def test_a_refusal_is_in_the_trace(api: ApiServer, replicas: Replicas) -> None:
    await announce(api, gpu_node("node-1", "GPU-a", units=8))
    await replicas[0].knows("node-1")
    pod = await create_pod(api, "p", units=16)
    async with traced("extender") as receiver:
        assert await replicas[0].bind(pod, "node-1")
    for name in ("bind", "reserve"):
        found = receiver.named(name)
        assert found.attributes["error.type"] == "NoRoom"
        assert "largest free piece is 4 GiB" in found.error
