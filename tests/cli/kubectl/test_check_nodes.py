"""What `doctor` says of GPU nodes, units and seats."""

from dataclasses import replace
from typing import Any

import pytest

from cli.kubectl.checks.finding import Status
from cli.kubectl.facts import Read
from tests.cli.kubectl.clusters import cluster, gpu, node
from tests.cli.kubectl.installation import assert_told, findings, healthy, host, workload

CASES: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "a RuntimeClass that nobody has made": (
        {"runtime_class": Read()},
        ("fail", "RuntimeClass", "nvidia does not exist, and fracgpu-plugin names it: none of its pods can be created"),
    ),
    "no right to see RuntimeClasses": (
        {"runtime_class": Read(unknown="needs get on runtimeclasses/nvidia")},
        ("unknown", "RuntimeClass", "needs get on runtimeclasses/nvidia"),
    ),
    "the plugin runs nowhere": (
        {"plugin": Read(workload("--memory-unit-mib=512", selector={"gpu": "yes"}))},
        ("fail", "plugin pods", "no node has its labels (gpu=yes), so it runs nowhere"),
    ),
    "the plugin runs not where it should": (
        {"plugin": Read(workload("--memory-unit-mib=512", selector={"nvidia.com/gpu.present": "true"}))},
        ("fail", "plugin pods", "there is none, though node-1 has its labels"),
    ),
    "a plugin is down": (
        {
            "plugin": Read(
                workload(
                    "--memory-unit-mib=512",
                    desiredNumberScheduled=3,
                    numberReady=2,
                    selector={"nvidia.com/gpu.present": "true"},
                )
            )
        },
        ("fail", "plugin pods", "2 of 3 are ready: the other nodes offer nothing new"),
    ),
    "a GPU node without a GPUNode": (
        {"hosts": Read([host("node-1"), host("node-2")])},
        ("fail", "GPU nodes", "node-2 has the labels of GPU nodes (nvidia.com/gpu.present=true), and no GPUNode"),
    ),
    "a GPUNode without a Node": (
        {"hosts": Read([host("cpu-1", labels={})])},
        ("warn", "GPU nodes", "node-1 has a GPUNode, and no Node"),
    ),
    "a kubelet offers nothing": (
        {"hosts": Read([host("node-1", offers={"fracgpu.io/memory": "0"})])},
        ("fail", "offered by kubelets", "node-1 has GPUs, and its kubelet offers no fracgpu.io/memory"),
    ),
    "another device plugin": (
        {"hosts": Read([host("node-1", offers={"nvidia.com/gpu": "1"})])},
        ("fail", "other device plugins", "node-1 offers nvidia.com/gpu too: GPUs may be given twice"),
    ),
    "another unit": (
        {"extender": Read(workload("--memory-unit-mib", "256"))},
        (
            "fail",
            "memory unit",
            "not all count in the same: 256 MiB: the extender; 512 MiB: the webhook, the plugin and",
        ),
    ),
    "other seats": (
        {"webhook": Read(workload("--scheduler-name=fracgpu-scheduler", "--replicas=8"))},
        ("warn", "seats", "the webhook counts fractions in 8 seats, and the GPUs have 4: pods that ask for a fraction"),
    ),
    "a GPU that is ill": (
        {"cluster": Read(cluster(node("node-1", gpu("GPU-1", problem="Xid 79"))))},
        ("warn", "GPU health", "not healthy: node-1 GPU 0 (Xid 79)"),
    ),
    "a plugin that has not said what is granted": (
        {"cluster": Read(cluster(node("node-1", gpu("GPU-1"), observed="")))},
        ("fail", "GPU nodes", "node-1 has not said yet what is granted there"),
    ),
}


@pytest.mark.parametrize(("changes", "want"), CASES.values(), ids=CASES)
def test_each_problem_is_found_and_told(changes: dict[str, Any], want: tuple[str, str, str]) -> None:
    assert_told(changes, want)


def test_a_cluster_that_may_not_be_listed_is_no_problem() -> None:
    found = findings(replace(healthy(), cluster=Read(unknown="you may not list GPUNodes")))

    problems = [each for each in found if each.status is not Status.OK]
    assert {(each.status, each.found) for each in problems} == {(Status.UNKNOWN, "you may not list GPUNodes")}
    assert problems[0].check == "GPU nodes"
