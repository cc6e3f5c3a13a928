"""Questions about a cluster: where pods would go as it is, with other seats, with more nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from extender.placement.policies import Policies
from fracgpu.errors import SettingError
from fracgpu.gpunodes import GpuNode
from fracgpu.names import ANNOTATION_GPU_COUNT, ANNOTATION_GPU_FRACTION, ANNOTATION_GPU_MEMORY
from fracgpu.nodes import Node, NodeStatus
from fracgpu.plans import Plan, Share
from fracgpu.pods import ObjectMeta, Pod
from playground.manifests import Manifests, expand
from replay.manifests import wanted_pods
from replay.snapshots import Snapshot
from replay.whatif import Answer, answer
from tests.extender.builders import UNIT, gpu_node, grant
from tests.extender.builders import pod as cluster_pod
from webhook.policy import Policy


def manifest(name: str, *, cpu: str = "", **annotations: str) -> dict[str, Any]:
    container = {"name": "main", "image": "example", "resources": {"requests": {"cpu": cpu} if cpu else {}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "team-a", "annotations": annotations},
        "spec": {"containers": [container]},
    }


def memory(name: str, size: str, *, cpu: str = "", count: str = "1") -> dict[str, Any]:
    return manifest(name, cpu=cpu, **{ANNOTATION_GPU_MEMORY: size, ANNOTATION_GPU_COUNT: count})


def fraction(name: str, part: str) -> dict[str, Any]:
    return manifest(name, **{ANNOTATION_GPU_FRACTION: part})


def host(name: str, *, cpu: str) -> Node:
    return Node(ObjectMeta(name=name), NodeStatus(allocatable={"cpu": cpu, "memory": "64Gi"}))


def snapshot(*nodes: GpuNode, hosts: Sequence[Node] = (), pods: Sequence[Pod] = ()) -> Snapshot:
    return Snapshot.of(nodes=nodes, hosts=hosts, pods=pods)


def ask(cluster: Snapshot, *manifests: dict[str, Any]) -> list[Answer]:
    index = cluster.index(Policies("binpack"))
    policy = Policy(unit=cluster.unit, replicas=cluster.replicas)
    return [answer(index, wanted) for wanted in wanted_pods(Manifests(manifests, ()), policy=policy)]


def plan(gpu: str, *, units: int, seats: int = 0) -> Plan:
    return Plan(UNIT, {"main": (Share(gpu, units, seats),)})  # type: ignore[arg-type] # a GPU's name


def test_each_pod_takes_what_the_next_one_does_not_find() -> None:
    cluster = snapshot(gpu_node("node-1", "GPU-a", "GPU-b"))
    first, second, third, fourth = ask(
        cluster, memory("a", "30Gi"), memory("b", "30Gi"), memory("c", "30Gi"), memory("d", "10Gi")
    )
    assert (first.fits, first.node, first.gpus) == (True, "node-1", [0])
    assert first.sentence == "needs 30 GiB on one GPU; goes to node-1, GPU 0 (Test GPU)"
    assert (second.fits, second.gpus) == (True, [1])
    assert (third.fits, third.node, third.gpus) == (False, "", [])
    assert "the largest free piece is 10 GiB, on node-1" in third.sentence
    assert fourth.fits


def test_what_pods_and_grants_hold_is_taken() -> None:
    bound = cluster_pod("bound", units=40, node="node-1", plan=plan("GPU-a", units=40), phase="Running", running=True)
    ghost = grant("ghost", "GPU-b", units=70)
    cluster = snapshot(gpu_node("node-1", "GPU-a", "GPU-b", grants=(ghost,)), pods=[bound])
    (found,) = ask(cluster, memory("a", "20500Mi"))
    assert not found.fits
    assert "the largest free piece is 20 GiB" in found.sentence


def test_a_pod_without_a_gpu_is_kube_schedulers_and_a_mistake_is_refused() -> None:
    plain, wrong = ask(snapshot(gpu_node("node-1", "GPU-a")), manifest("plain"), memory("wrong", "4GB"))
    assert plain.fits is None
    assert wrong.fits is False
    assert wrong.sentence.startswith("refused: annotation fracgpu.io/gpu-memory is '4GB'")


def test_a_gpu_without_the_cpu_is_not_enough() -> None:
    cluster = snapshot(gpu_node("node-1", "GPU-a"), hosts=[host("node-1", cpu="4")])
    first, second = ask(cluster, memory("a", "1Gi", cpu="3"), memory("b", "1Gi", cpu="2"))
    assert first.fits
    assert not second.fits
    assert second.sentence == ("needs 1 GiB on one GPU; there is room on node-1, but not with 2 CPUs free")


def test_nodes_are_added_like_the_largest_or_a_named_one() -> None:
    small, large = gpu_node("small", "GPU-s", units=20), gpu_node("large", "GPU-l", "GPU-m")
    cluster = snapshot(small, large, hosts=[host("large", cpu="8"), host("small", cpu="2"), host("added-1", cpu="1")])
    wanted = [memory(str(number), "40Gi", count="2", cpu="8") for number in range(3)]
    assert [found.fits for found in ask(cluster, *wanted)] == [True, False, False]
    more = ask(cluster.with_nodes(2), *wanted)
    assert [found.node for found in more] == ["added-2", "added-3", "large"]
    assert [found.fits for found in ask(cluster.with_nodes(2, like="small"), *wanted)] == [True, False, False]
    tiny = memory("tiny", "10Gi", cpu="2")
    assert [found.fits for found in ask(cluster.with_nodes(2, like="small"), *wanted, tiny, tiny, tiny)][3:] == [
        True
    ] * 3


def test_an_added_node_is_empty_and_well() -> None:
    full = gpu_node("node-1", "GPU-a", grants=(grant("ghost", "GPU-a", units=80),))
    (found,) = ask(snapshot(full).with_nodes(1), memory("a", "40Gi"))
    assert found.node == "added-1"


def test_other_seats_let_smaller_parts_in() -> None:
    cluster = snapshot(gpu_node("node-1", "GPU-a", replicas=4))
    eighths = [fraction(str(number), "0.125") for number in range(9)]
    assert all(found.fits is False and "refused" in found.sentence for found in ask(cluster, *eighths))
    assert [found.fits for found in ask(cluster.with_replicas(8), *eighths)] == [True] * 8 + [False]


def test_who_holds_seats_keeps_its_part_in_the_new_ones() -> None:
    quarter = cluster_pod(
        "quarter", seats=1, node="node-1", plan=plan("GPU-a", units=20, seats=1), phase="Running", running=True
    )
    cluster = snapshot(gpu_node("node-1", "GPU-a", replicas=4), pods=[quarter]).with_replicas(8)
    assert [found.fits for found in ask(cluster, *[fraction(str(n), "0.125") for n in range(7)])] == [True] * 6 + [
        False
    ]
    fewer = snapshot(gpu_node("node-1", "GPU-a", replicas=4), pods=[quarter]).with_replicas(2)
    assert [found.fits for found in ask(fewer, fraction("a", "0.5"), fraction("b", "0.5"))] == [True, False]


@pytest.mark.parametrize(
    ("change", "want"),
    [
        (lambda found: found.with_replicas(0), "--what-if-replicas is 0; a GPU has from 1 to 1024 seats"),
        (lambda found: found.with_replicas(81), "has only 80 units of memory"),
        (lambda found: found.with_nodes(-1), "--add-nodes is -1"),
        (lambda found: found.with_nodes(1001), "from 0 to 1000"),
        (lambda found: found.with_nodes(1, like="nowhere"), "--like is 'nowhere'; the nodes with GPUs are node-1"),
    ],
)
def test_what_cannot_be_is_told(change: Any, want: str) -> None:
    with pytest.raises(SettingError) as caught:
        change(snapshot(gpu_node("node-1", "GPU-a")))
    assert want in str(caught.value)


def test_the_cluster_counts_as_most_of_it_does() -> None:
    odd = gpu_node("odd", "GPU-o", unit=1024, replicas=10)
    cluster = snapshot(odd, gpu_node("a", "GPU-a", replicas=8), gpu_node("b", "GPU-b", replicas=8))
    assert (cluster.unit, cluster.replicas) == (UNIT, 8)


def test_what_waits_in_the_cluster_already_is_named() -> None:
    waiting, bound = cluster_pod("waits", units=1), cluster_pod("bound", units=1, node="node-1")
    assert snapshot(gpu_node("node-1", "GPU-a"), pods=[waiting, bound]).waiting == ["team-a/waits"]


def test_manifests_that_are_none_are_told_after_the_pods() -> None:
    text = """
kind: Service
apiVersion: v1
metadata: {name: web}
---
apiVersion: v1
kind: Pod
metadata: {name: odd}
spec: {containers: 7}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  template:
    metadata: {annotations: {fracgpu.io/gpu-memory: 4Gi}}
    spec: {containers: [{name: main}]}
"""
    odd, first, second, service = wanted_pods(expand([("web.yaml", text)]), policy=Policy())
    assert odd.pod is None
    assert "containers" in odd.refusal
    assert first.pod is not None
    assert first.pod.metadata.namespace == "shop"
    assert second.pod is not None
    assert second.pod.uid != first.pod.uid
    assert service.pod is None
    assert "kind Service is not supported" in service.refusal
    index = snapshot(gpu_node("node-1", "GPU-a")).index(Policies("binpack"))
    assert [answer(index, each).fits for each in (odd, first, second, service)] == [False, True, True, None]
