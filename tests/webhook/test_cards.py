"""Pods that no GPU of the cluster could hold: told at once, refused only where no node will be added."""

from dataclasses import replace

import pytest

from fracgpu.quantities import Mib
from tests.webhook.builders import POLICY, container, decide, pod
from webhook.cards import Card, Cluster, cluster_of

A100 = Card("NVIDIA A100-SXM4-40GB", Mib(40960), 80, 4)
T4 = Card("Tesla T4", Mib(15360), 30, 2)
CLUSTER = cluster_of([(A100, A100), (T4,), ()])
FIXED = replace(POLICY, nodes_may_be_added=False)

TOO_LARGE = {
    "memory": ({"gpu-memory": "40.5Gi"}, "asks for 40.5 GiB on one GPU (fracgpu.io/memory: 81 units), and the largest"),
    "memory of a model": (
        {"gpu-memory": "16Gi", "gpu-model": "T4"},
        "the largest GPU of the cluster (model T4) has 15 GiB",
    ),
    "a model": ({"gpu-memory": "1Gi", "gpu-model": "H100"}, "asks for a GPU (model H100), and the cluster has none"),
    "a card's size": ({"gpu-memory": "1Gi", "min-gpu-memory": "80Gi"}, "(with at least 80 GiB in all)"),
    "GPUs of a node": ({"gpu-memory": "1Gi", "gpu-count": "3"}, "no node of the cluster has more than 2"),
    "seats of a model": (
        {"gpu-fraction": "0.25", "gpu-model": "T4"},
        "no GPU of the cluster has 4 seats; they have 2",
    ),
}
FITTING = {
    "the largest memory": {"gpu-memory": "40Gi"},
    "the largest memory of a model": {"gpu-memory": "15Gi", "gpu-model": "tesla*"},
    "all seats": {"gpu-fraction": "1"},
    "all GPUs of a node": {"gpu-memory": "40Gi", "gpu-count": "2"},
    "a GPU by its UUID, which is not looked for": {"gpu-memory": "1Gi", "gpu-uuid": "GPU-new"},
}


@pytest.mark.parametrize(("annotations", "want"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_too_large(annotations: dict[str, str], want: str) -> None:
    warned, refused = (decide(pod(annotations), policy=policy, cluster=CLUSTER) for policy in (POLICY, FIXED))

    assert warned.refusal == ""
    assert want in warned.warnings[0]
    assert warned.warnings[0].endswith("the pod waits until a node is added that can hold it")
    assert want in refused.refusal


@pytest.mark.parametrize("annotations", FITTING.values(), ids=FITTING)
def test_not_too_large(annotations: dict[str, str]) -> None:
    decided = decide(pod(annotations), policy=FIXED, cluster=CLUSTER)

    assert (decided.refusal, decided.warnings) == ("", ())


def test_seats_written_directly_go_to_a_gpu_of_any_number() -> None:
    manifest = pod(None, container("main", {"fracgpu.io/replica": "5"}))

    assert "no GPU of the cluster has more than 4 seats" in decide(manifest, policy=FIXED, cluster=CLUSTER).refusal


def test_where_no_gpu_is_known_nothing_is_too_large() -> None:
    decided = decide(pod({"gpu-memory": "16Ti"}), policy=FIXED, cluster=Cluster())

    assert (decided.refusal, decided.warnings) == ("", ())
