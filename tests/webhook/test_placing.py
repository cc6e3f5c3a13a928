"""What an administrator wants GPU pods to have: written where a pod says nothing itself, and nowhere else."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from tests.webhook.builders import POLICY, container, decide, pod
from webhook.pods import Toleration
from webhook.policy import NamespaceRules, Rules

PLACED = replace(
    POLICY,
    scheduler_name="fracgpu-scheduler",
    runtime_class_name="nvidia",
    node_selector={"nvidia.com/gpu.present": "true", "pool": "gpu"},
    tolerations=(Toleration("nvidia.com/gpu", "Exists", "", "NoSchedule"),),
)
TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def spec_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = decide(manifest, policy=PLACED).manifest["spec"]
    return spec


def test_a_pod_that_says_nothing_gets_all_of_it() -> None:
    spec = spec_of(pod({"gpu-memory": "4Gi"}))

    assert spec["schedulerName"] == "fracgpu-scheduler"
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true", "pool": "gpu"}
    assert spec["tolerations"] == [TAINT]


def test_what_a_pod_says_itself_stands() -> None:
    own = {
        "schedulerName": "mine",
        "runtimeClassName": "kata",
        "nodeSelector": {"pool": "mine"},
        "tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 5}, TAINT],
    }
    manifest = pod({"gpu-memory": "4Gi"})
    manifest["spec"] |= own

    spec = spec_of(manifest)

    assert {key: spec[key] for key in own} == own | {"nodeSelector": {"pool": "mine", "nvidia.com/gpu.present": "true"}}


def test_the_default_scheduler_is_nobodys_choice() -> None:
    """kube-apiserver writes its name into every pod before a webhook sees it."""
    manifest = pod({"gpu-memory": "4Gi"})
    manifest["spec"]["schedulerName"] = "default-scheduler"

    assert spec_of(manifest)["schedulerName"] == "fracgpu-scheduler"


def test_pods_without_a_gpu_get_nothing() -> None:
    assert decide(pod(), policy=PLACED).operations == []


# --- what holds in some namespaces

SIZED = replace(
    POLICY,
    rules=Rules(default_gpu_memory="2Gi"),
    namespaces=(NamespaceRules(("batch-*",), {"default_gpu_memory": "", "default_gpu_fraction": "0.5"}),),
)


@pytest.mark.parametrize(
    ("annotations", "namespace", "want"),
    [
        ({"gpu-count": "2"}, "team-a", {"fracgpu.io/memory": "8"}),
        ({"gpu-model": "A100"}, "team-a", {"fracgpu.io/memory": "4"}),
        ({"policy": "spread"}, "batch-1", {"fracgpu.io/replica": "2"}),
        ({"gpu-model.main": "A100"}, "team-a", {"fracgpu.io/memory": "4"}),
        ({"gpu-memory": "1Gi", "gpu-count": "2"}, "team-a", {"fracgpu.io/memory": "4"}),
        ({}, "team-a", {}),
    ],
)
def test_a_pod_without_a_size_gets_the_namespaces(
    annotations: dict[str, str], namespace: str, want: dict[str, str]
) -> None:
    decided = decide(pod(annotations), policy=SIZED, namespace=namespace)

    assert decided.refusal == ""
    assert decided.limits() == want


def test_a_limit_is_a_size() -> None:
    decided = decide(pod({"gpu-count": "2"}, container("main", {"fracgpu.io/memory": "6"})), policy=SIZED)

    assert (decided.refusal, decided.limits()) == ("", {"fracgpu.io/memory": "6"})


BOUNDED = replace(
    POLICY,
    namespaces=(
        NamespaceRules(
            ("team-a",),
            {"max_gpu_memory": Fraction(4 * 2**30), "max_gpu_fraction": Fraction(1, 2), "max_gpu_count": 2},
        ),
        NamespaceRules(("*",), {"max_gpu_count": 4}),
    ),
)


@pytest.mark.parametrize(
    ("annotations", "want"),
    [
        ({"gpu-memory": "4Gi"}, ""),
        ({"gpu-memory": "4.1Gi"}, "asks for 4.5 GiB on one GPU (fracgpu.io/memory: 9 units), and in this namespace"),
        ({"gpu-fraction": "0.5"}, ""),
        (
            {"gpu-fraction": "0.75"},
            "asks for 3 of the 4 seats of a GPU (fracgpu.io/replica), and in this namespace at most 2 are allowed",
        ),
        ({"gpu-memory": "1Gi", "gpu-count": "2"}, ""),
        ({"gpu-memory": "1Gi", "gpu-count": "3"}, "asks for 3 GPUs, and in this namespace a pod may have at most 2"),
    ],
)
def test_a_namespaces_maximum(annotations: dict[str, str], want: str) -> None:
    refusal = decide(pod(annotations), policy=BOUNDED).refusal

    assert want in refusal
    assert bool(refusal) is bool(want)


def test_elsewhere_only_what_holds_there_counts() -> None:
    assert decide(pod({"gpu-memory": "40Gi", "gpu-count": "4"}), policy=BOUNDED, namespace="team-b").refusal == ""
    assert "at most 4" in decide(pod({"gpu-memory": "1Gi", "gpu-count": "5"}), policy=BOUNDED, namespace="b").refusal


def test_the_containers_of_a_pod_count_together() -> None:
    manifest = pod({"gpu-memory.a": "1Gi", "gpu-memory.b": "1Gi", "gpu-count.b": "2"}, container("a"), container("b"))

    assert "asks for 3 GPUs" in decide(manifest, policy=BOUNDED).refusal
