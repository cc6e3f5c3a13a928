"""Which nodes a pod fits by sums, and what is said of the others."""

from __future__ import annotations

from typing import Any

import pytest

from playground.scheduling.node_fit import pod_requests, rejections, unschedulable_message
from tests.playground.builders import MEMORY, make_node, make_pod


def container(units: int, *, sidecar: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = {"name": "c", "resources": {"requests": {MEMORY: str(units), "cpu": "1"}}}
    return {**made, "restartPolicy": "Always"} if sidecar else made


REQUESTS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], int]] = {
    "containers add up": ([], [container(3), container(4)], 7),
    "an init container runs alone": ([container(9)], [container(3), container(4)], 9),
    "a small init container does not matter": ([container(2)], [container(7)], 7),
    "a sidecar adds up with the app": ([container(2, sidecar=True)], [container(3)], 5),
    "an init container runs beside earlier sidecars": (
        [container(2, sidecar=True), container(9), container(1, sidecar=True)],
        [container(3)],
        11,
    ),
    "an init container does not run beside later sidecars": (
        [container(4), container(2, sidecar=True)],
        [container(1)],
        4,
    ),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_requests_of_a_pod(case: str) -> None:
    init, app, want = REQUESTS[case]
    pod = {"spec": {"initContainers": init, "containers": app}}
    assert pod_requests(pod) == {MEMORY: want}


def test_why_a_node_is_dropped() -> None:
    pod = make_pod("a", nodeSelector={"gpu": "a100"})
    fitting = make_node("n1", units=8)
    fitting["metadata"]["labels"] = {"gpu": "a100"}
    for node, requests, used, want in [
        (fitting, {MEMORY: 8}, {}, []),
        (fitting, {MEMORY: 8}, {MEMORY: 1}, ["Insufficient fracgpu.io/memory"]),
        (
            fitting,
            {MEMORY: 9, "x.io/y": 1},
            {},
            ["Insufficient fracgpu.io/memory", "Insufficient x.io/y"],
        ),
        (make_node("n2", units=8), {MEMORY: 8}, {}, ["node(s) didn't match Pod's node affinity/selector"]),
        (make_node("n3", units=8, unschedulable=True), {MEMORY: 8}, {}, ["node(s) were unschedulable"]),
    ]:
        assert rejections(pod, requests, node=node, used=used) == want


def test_the_message_counts_and_sorts_reasons_as_kube_scheduler_does() -> None:
    reasons = {"n1": ["b"], "n2": ["a"], "n3": ["b"], "n4": []}
    assert unschedulable_message(reasons, nodes=4) == "0/4 nodes are available: 1 a, 2 b."
    assert unschedulable_message({}, nodes=4) == "0/4 nodes are available:"
