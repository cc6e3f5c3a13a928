"""What `doctor` says of pods."""

from dataclasses import replace
from typing import Any

import pytest

from cli.kubectl.facts import Read
from tests.cli.kubectl.clusters import cluster, created, gpu, node, placed
from tests.cli.kubectl.installation import healthy, the_one_problem
from tests.extender.builders import pod

OFF_PLAN = (
    node("node-1", gpu("GPU-1"), gpu("GPU-2", index=1), held={"chat": ("GPU-2", 40)}),
    placed("chat", "node-1", "GPU-1", units=40),
)
UNREAD = created(pod("unread", annotations={"fracgpu.io/gpu-memory": "4Gi"}))


@pytest.mark.parametrize(
    ("objects", "want"),
    [
        (
            OFF_PLAN,
            (
                "fail",
                "plans and grants",
                "team-a/chat: it was to get 20 GiB on GPU 0 (NVIDIA A100-SXM4-40GB) of node-1, and the "
                "kubelet gave 20 GiB on GPU 1 (NVIDIA A100-SXM4-40GB) of node-1",
            ),
        ),
        (
            (node("node-1", gpu("GPU-1")), placed("chat", "node-1", "GPU-1", units=40)),
            ("fail", "plans and grants", "team-a/chat runs on node-1 without a grant"),
        ),
        (
            (node("node-1", gpu("GPU-1")), UNREAD),
            (
                "fail",
                "pods without limits",
                "team-a/unread asked by annotation, and the webhook was not asked: they have no GPU",
            ),
        ),
        (
            (
                node("node-1", gpu("GPU-1"), held={"chat": ("GPU-1", 4)}, used={"chat": 3000}),
                placed("chat", "node-1", "GPU-1", units=4),
            ),
            ("warn", "memory in use", "more than granted: team-a/chat on node-1 GPU 0: 2.93 GiB of 2 GiB"),
        ),
        (
            (
                node("node-1", gpu("GPU-1"), held={"a": ("GPU-1", 60), "b": ("GPU-1", 40)}),
                placed("a", "node-1", "GPU-1", units=60),
                placed("b", "node-1", "GPU-1", units=40),
            ),
            ("fail", "overdrawn GPUs", "more is given away than they have: node-1 GPU 0: 50 GiB of 40 GiB"),
        ),
    ],
)
def test_pods_that_are_not_as_they_should_be(objects: tuple[Any, ...], want: tuple[str, str, str]) -> None:
    assert the_one_problem(replace(healthy(), cluster=Read(cluster(*objects)))) == want
