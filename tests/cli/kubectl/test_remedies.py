"""What would let a waiting pod run, the nearest first."""

import msgspec
import pytest

from cli.kubectl.cluster import Cluster
from cli.kubectl.remedies import remedies
from fracgpu.pods import Container, Pod, Resources
from fracgpu.requests import request_of
from tests.cli.kubectl.clusters import cluster, deleted, gpu, node, placed, waiting


def remedies_for(found: Cluster, pod: Pod) -> list[tuple[str, str]]:
    request = request_of(pod)
    assert request is not None
    views = [view for view in found.index.views() if view.unit == found.index.unit]
    return [(remedy.kind, remedy.sentence) for remedy in remedies(found.index, pod, request, views=views)]


TWO_NODES = (
    node("node-1", gpu("GPU-1"), held={"big": ("GPU-1", 60), "small": ("GPU-1", 10)}),
    node("node-2", gpu("GPU-2", units=30, product="NVIDIA L4"), held={"other": ("GPU-2", 4)}),
    placed("big", "node-1", "GPU-1", units=60),
    placed("small", "node-1", "GPU-1", units=10),
    placed("other", "node-2", "GPU-2", units=4),
)


def test_ending_a_small_pod_is_nearer_than_asking_much_less() -> None:
    """28 units fit on node-2 once 2 more are free there: the pod there has 4."""
    found = remedies_for(cluster(*TWO_NODES), waiting("w", units=28))

    assert found == [
        ("ask-less", "asking 1 GiB less (13 GiB instead of 14 GiB) would fit now, on node-2"),
        ("end-pods", "the end of team-a/other (2 GiB of GPU 0) on node-2 would make room; 1 GiB more would do"),
        ("add-node", "another node like node-2 (1 × NVIDIA L4 with 15 GiB) would have room"),
    ]


def test_asking_much_less_is_further_than_ending_a_pod() -> None:
    found = remedies_for(cluster(*TWO_NODES), waiting("w", units=60))

    assert [kind for kind, _ in found] == ["ask-less", "end-pods", "add-node"]
    assert found[1][1] == ("the end of team-a/big (30 GiB of GPU 0) on node-1 would make room; 25 GiB more would do")
    tight = (node("node-1", gpu("GPU-1"), held={"a": ("GPU-1", 30), "b": ("GPU-1", 50)}),)
    pods = (placed("a", "node-1", "GPU-1", units=30), placed("b", "node-1", "GPU-1", units=50))
    assert remedies_for(cluster(*tight, *pods), waiting("w", units=20))[0] == (
        "end-pods",
        "the end of team-a/a (15 GiB of GPU 0) on node-1 would make room; 10 GiB more would do",
    )


def test_what_is_ending_already_comes_first() -> None:
    objects = (
        node("node-1", gpu("GPU-1"), held={"going": ("GPU-1", 60)}),
        deleted(placed("going", "node-1", "GPU-1", units=60)),
    )

    found = remedies_for(cluster(*objects), waiting("w", units=40))

    assert found[0] == (
        "wait",
        "nothing: there is room on node-1 as soon as the processes of team-a/going have ended",
    )


def test_no_node_could_ever_hold_it() -> None:
    found = remedies_for(cluster(*TWO_NODES), waiting("w", units=96))

    assert found == [
        ("ask-less", "asking 35 GiB less (13 GiB instead of 48 GiB) would fit now, on node-2"),
        (
            "larger-gpu",
            "no node of this cluster could hold it, even when empty (the largest GPU has 40 GiB, and the most GPUs on "
            "one node are 1); add one that can",
        ),
    ]


def test_a_cluster_without_gpus_needs_a_node() -> None:
    assert remedies_for(cluster(), waiting("w", units=8)) == [
        ("larger-gpu", "a node with GPUs that can hold it (4 GiB on one GPU): the cluster has none")
    ]


def test_an_ill_gpu_that_would_do_is_named() -> None:
    found = remedies_for(
        cluster(node("node-1", gpu("GPU-1", problem="Xid 79: it has fallen off the bus"))), waiting("w", units=8)
    )

    assert found == [
        (
            "heal",
            "there would be room on node-1 if all its GPUs were healthy; not healthy: GPU 0 (Xid 79: it has fallen off "
            "the bus)",
        ),
        ("add-node", "another node like node-1 (1 × NVIDIA A100-SXM4-40GB with 40 GiB) would have room"),
    ]


def test_a_choice_of_gpus_that_keeps_it_away_is_told() -> None:
    objects = (
        node("node-1", gpu("GPU-1"), held={"big": ("GPU-1", 80)}),
        node("node-2", gpu("GPU-2", units=30, product="NVIDIA L4")),
        placed("big", "node-1", "GPU-1", units=80),
    )

    found = remedies_for(cluster(*objects), waiting("w", units=20, annotations={"fracgpu.io/gpu-model": "A100"}))

    assert ("other-gpus", "without the choice of GPUs (model A100) it would fit now, on node-2 (NVIDIA L4)") in found


def test_fewer_gpus_may_do() -> None:
    found = remedies_for(
        cluster(node("node-1", gpu("GPU-1"), gpu("GPU-2", index=1))),
        waiting("w", units=60, annotations={"fracgpu.io/gpu-count": "3"}),
    )

    assert found[0] == ("fewer-gpus", "asking for 2 GPUs instead of 3 would fit now, on node-1")
    assert found[-1][0] == "larger-gpu"


def test_seats_are_counted_in_seats() -> None:
    objects = (
        node("node-1", gpu("GPU-1"), held={"a": ("GPU-1", 30)}),
        placed("a", "node-1", "GPU-1", units=30),
    )

    found = remedies_for(cluster(*objects), waiting("w", seats=4))

    assert found == [
        ("end-pods", "the end of team-a/a (15 GiB of GPU 0) on node-1 would make room"),
        ("ask-less", "asking 2 seats less (2 instead of 4) would fit now, on node-1"),
        ("add-node", "another node like node-1 (1 × NVIDIA A100-SXM4-40GB with 40 GiB) would have room"),
    ]


def test_of_several_containers_the_least_reduction_is_named() -> None:
    two = (
        Container("model", Resources(limits={"fracgpu.io/memory": "50"})),
        Container("reranker", Resources(limits={"fracgpu.io/memory": "40"})),
    )
    pod = waiting("w")
    pod = msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, containers=two))

    found = remedies_for(cluster(node("node-1", gpu("GPU-1"))), pod)

    assert found[0] == (
        "ask-less",
        "asking 5 GiB less for 'model' (20 GiB instead of 25 GiB) would fit now, on node-1",
    )


@pytest.mark.parametrize(
    ("units", "want"), [(27, "512 MiB less (13 GiB"), (60, "17 GiB less (13 GiB"), (81, "27.5 GiB")]
)
def test_what_is_asked_less_is_as_little_as_it_can_be(units: int, want: str) -> None:
    """26 units are free in one piece."""
    told = dict(remedies_for(cluster(*TWO_NODES), waiting("w", units=units)))

    assert told["ask-less"].startswith(f"asking {want}")
