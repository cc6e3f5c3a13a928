"""ReplicaSets, on plain data."""

from __future__ import annotations

from playground.controllers.replicasets import decide
from tests.playground.controllers.objects import NOW, make_pod, make_workload, names


def test_what_is_missing_is_made_and_what_ended_is_not_counted() -> None:
    pods = [make_pod("a", ready=True), make_pod("b", phase="Failed"), make_pod("c", ready=True, ending=True)]
    replica_set = make_workload("ReplicaSet", replicas=3)
    plan = decide(replica_set, pods, refusal="", now=NOW)
    assert len(plan.create) == 2
    made = plan.create[0]
    assert (made["metadata"]["generateName"], made["metadata"]["labels"]) == ("w-", {"app": "w"})
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("ReplicaSet", replica_set["metadata"]["uid"], True)
    assert plan.status is not None
    assert (plan.status["replicas"], plan.status["readyReplicas"]) == (1, 1)


def test_too_many_go_in_the_order_of_their_worth() -> None:
    pods = [
        make_pod("old", ready=True, creationTimestamp="2026-01-01T00:00:00Z"),
        make_pod("new", ready=True, creationTimestamp="2026-01-01T00:00:09Z"),
        make_pod("waiting"),
        make_pod("older", ready=True, creationTimestamp="2025-01-01T00:00:00Z"),
    ]
    plan = decide(make_workload("ReplicaSet", replicas=2), pods, refusal="", now=NOW)
    assert names(plan.delete) == ["waiting", "new"]


def test_a_refusal_is_told_until_nothing_is_missing() -> None:
    replica_set = make_workload("ReplicaSet", replicas=1)
    plan = decide(replica_set, [], refusal="no room", now=NOW)
    assert plan.status is not None
    (failure,) = plan.status["conditions"]
    assert (failure["type"], failure["reason"], failure["message"]) == ("ReplicaFailure", "FailedCreate", "no room")
    plan = decide(replica_set, [make_pod("a")], refusal="no room", now=NOW)
    assert plan.status is not None
    assert plan.status["conditions"] == []
