"""StatefulSets, on plain data."""

from __future__ import annotations

from typing import Any

from playground.controllers.statefulsets import REVISION_LABEL, decide
from tests.playground.controllers.objects import make_pod, make_workload, names


def make_stateful_set(**spec: Any) -> dict[str, Any]:
    defaults = {
        "serviceName": "s",
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
    }
    return make_workload("StatefulSet", **{**defaults, **spec})


def revision_of(stateful_set: dict[str, Any]) -> str:
    status = decide(stateful_set, []).status
    assert status is not None
    return str(status["updateRevision"])


def pod(number: int, revision: str, **more: Any) -> dict[str, Any]:
    return make_pod(f"w-{number}", labels={REVISION_LABEL: revision}, **more)


def test_pods_are_made_one_after_the_other() -> None:
    stateful_set = make_stateful_set(replicas=3)
    plan = decide(stateful_set, [])
    assert names(plan.create) == ["w-0"]
    made = plan.create[0]
    assert made["spec"]["hostname"] == "w-0"
    assert made["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "0"
    assert made["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] == "w-0"
    revision = revision_of(stateful_set)
    assert decide(stateful_set, [pod(0, revision)]).create == ()
    assert names(decide(stateful_set, [pod(0, revision, ready=True)]).create) == ["w-1"]


def test_in_parallel_all_at_once() -> None:
    plan = decide(make_stateful_set(replicas=3, podManagementPolicy="Parallel"), [])
    assert names(plan.create) == ["w-0", "w-1", "w-2"]


def test_numbers_may_begin_higher() -> None:
    plan = decide(make_stateful_set(replicas=2, ordinals={"start": 5}, podManagementPolicy="Parallel"), [])
    assert names(plan.create) == ["w-5", "w-6"]


def test_the_highest_goes_first() -> None:
    stateful_set = make_stateful_set(replicas=1)
    pods = [pod(n, revision_of(stateful_set), ready=True) for n in range(3)]
    assert names(decide(stateful_set, pods).delete) == ["w-2"]
    pods[2]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert decide(stateful_set, pods).delete == ()


def test_a_changed_template_replaces_from_the_highest_down_to_the_partition() -> None:
    stateful_set = make_stateful_set(replicas=3)
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    stateful_set["spec"]["updateStrategy"] = rolling
    new = revision_of(stateful_set)
    pods = [pod(n, "old", ready=True) for n in range(3)]
    assert names(decide(stateful_set, pods).delete) == ["w-2"]
    pods[2] = pod(2, new)
    assert decide(stateful_set, pods).delete == ()  # the new one is not ready yet
    pods[2] = pod(2, new, ready=True)
    assert names(decide(stateful_set, pods).delete) == ["w-1"]
    pods[1] = pod(1, new, ready=True)
    assert decide(stateful_set, pods).delete == ()


def test_a_pod_that_cannot_get_ready_makes_way_for_a_changed_template() -> None:
    pods = [pod(0, "old", ready=True), pod(1, "old")]
    assert names(decide(make_stateful_set(replicas=2), pods).delete) == ["w-1"]
    on_delete = make_stateful_set(replicas=2, updateStrategy={"type": "OnDelete"})
    assert decide(on_delete, pods).delete == ()


def test_a_pod_that_ended_makes_way_for_its_successor() -> None:
    stateful_set = make_stateful_set(replicas=2)
    pods = [pod(0, revision_of(stateful_set), phase="Failed"), pod(1, revision_of(stateful_set), ready=True)]
    plan = decide(stateful_set, pods)
    assert (names(plan.delete), plan.create) == (["w-0"], ())


def test_the_status_counts() -> None:
    stateful_set = make_stateful_set(replicas=2)
    new = revision_of(stateful_set)
    status = decide(stateful_set, [pod(0, new, ready=True), pod(1, "old", ready=True)]).status
    assert status is not None
    assert (status["replicas"], status["readyReplicas"], status["updatedReplicas"]) == (2, 2, 1)
