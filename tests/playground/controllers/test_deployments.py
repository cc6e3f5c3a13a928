"""Deployments, on plain data: the plans are carried out on a cluster of dictionaries until there is nothing to do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playground.controllers import replicasets
from playground.controllers.deployments import HASH_LABEL, REVISION, decide
from tests.playground.controllers.objects import NOW, make_pod, make_workload, names


def make_deployment(**spec: Any) -> dict[str, Any]:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    return make_workload("Deployment", **{"strategy": rolling, "revisionHistoryLimit": 10, **spec})


class Cluster:
    """A Deployment, its ReplicaSets and their pods; pods get ready when told."""

    def __init__(self, deployment: dict[str, Any]) -> None:
        self.deployment = deployment
        self.replica_sets: list[dict[str, Any]] = []
        self.pods: dict[str, list[dict[str, Any]]] = {}  # ReplicaSet -> its pods
        self.lingers = False  # whether deleted pods stay for a while

    def set_image(self, image: str) -> None:
        template = self.deployment["spec"]["template"]
        self.deployment["spec"]["template"] = {**template, "spec": {"containers": [{"name": "c", "image": image}]}}

    def step(self) -> bool:
        """Carry out one plan of the Deployment, and then those of all ReplicaSets; whether anything changed."""
        every = [pod for pods in self.pods.values() for pod in pods]
        plan = decide(self.deployment, self.replica_sets, every, now=NOW)
        for made in plan.create:
            made["metadata"]["generation"] = 1
            made["metadata"]["uid"] = made["metadata"]["name"]
            self.replica_sets.append(made)
            self.pods[made["metadata"]["name"]] = []
        for change in plan.change:
            change.obj["spec"].update(change.patch.get("spec", {}))
            annotations = change.patch.get("metadata", {}).get("annotations", {})
            change.obj["metadata"].setdefault("annotations", {}).update(annotations)
        for gone in plan.delete:
            self.replica_sets.remove(gone)
        moved = [self._step_of(replica_set) for replica_set in self.replica_sets]
        self.deployment["status"] = dict(plan.status or {})
        return bool(plan.create or plan.change or plan.delete or any(moved))

    def _step_of(self, replica_set: dict[str, Any]) -> bool:
        pods = self.pods[replica_set["metadata"]["name"]]
        plan = replicasets.decide(replica_set, pods, refusal="", now=NOW)
        for gone in plan.delete:
            if self.lingers:
                gone["metadata"]["deletionTimestamp"] = NOW
            else:
                pods.remove(gone)
        pods += [make_pod(f"{replica_set['metadata']['name']}-{len(pods)}") for _ in plan.create]
        after = replicasets.decide(replica_set, pods, refusal="", now=NOW).status
        changed = replica_set.get("status") != after
        replica_set["status"] = after
        return bool(plan.create or plan.delete or changed)

    def get_one_ready(self) -> bool:
        for pods in self.pods.values():
            for pod in pods:
                if pod["status"]["phase"] == "Pending":
                    pod.update(make_pod(pod["metadata"]["name"], ready=True))
                    return True
        return False

    def settle(self, check: Any = lambda: None, *, get_ready: bool = True) -> None:
        """Until nothing happens any more: steps, and between them pods that get ready one at a time, if they do."""
        for _ in range(500):
            check()
            if not self.step() and not (get_ready and self.get_one_ready()):
                return
        raise AssertionError("it does not settle")

    def count(self, image: str, *, ready: bool = False) -> int:
        found = [rs for rs in self.replica_sets if rs["spec"]["template"]["spec"]["containers"][0]["image"] == image]
        pods = [pod for rs in found for pod in self.pods[rs["metadata"]["name"]]]
        return sum(not ready or pod["status"]["phase"] == "Running" for pod in pods)

    @property
    def total(self) -> int:
        return sum(map(len, self.pods.values()))


def test_a_new_deployment_gets_a_replica_set_of_its_template() -> None:
    cluster = Cluster(make_deployment(replicas=3))
    cluster.settle()
    (replica_set,) = cluster.replica_sets
    digest = replica_set["metadata"]["labels"][HASH_LABEL]
    assert replica_set["metadata"]["name"] == f"w-{digest}"
    assert replica_set["spec"]["selector"]["matchLabels"] == {"app": "w", HASH_LABEL: digest}
    assert replica_set["spec"]["template"]["metadata"]["labels"] == {"app": "w", HASH_LABEL: digest}
    assert cluster.count("x", ready=True) == 3
    status = cluster.deployment["status"]
    assert (status["replicas"], status["updatedReplicas"], status["availableReplicas"]) == (3, 3, 3)
    assert {entry["type"]: entry["reason"] for entry in status["conditions"]} == {
        "Available": "MinimumReplicasAvailable",
        "Progressing": "NewReplicaSetAvailable",
    }


@settings(max_examples=60, deadline=None)
@given(replicas=st.integers(1, 8), surge=st.integers(0, 4), missing=st.integers(0, 4), before=st.integers(0, 8))
def test_a_rolling_update_keeps_within_its_bounds(replicas: int, surge: int, missing: int, before: int) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": missing}}
    cluster = Cluster(make_deployment(replicas=before, strategy=rolling))
    cluster.settle()
    cluster.deployment["spec"]["replicas"] = replicas
    cluster.set_image("y")
    most = max(replicas + surge, before)
    allowed_missing = missing or (0 if surge else 1)
    least = min(before, replicas - allowed_missing)

    def check() -> None:
        assert cluster.total <= most
        assert cluster.count("x", ready=True) + cluster.count("y", ready=True) >= least

    cluster.settle(check)
    assert (cluster.count("x"), cluster.count("y", ready=True)) == (0, replicas)


def test_pods_that_never_get_ready_hold_an_update_up() -> None:
    cluster = Cluster(make_deployment(replicas=4))
    cluster.settle()
    cluster.set_image("y")
    cluster.settle(get_ready=False)
    assert cluster.count("x", ready=True) == 3
    assert cluster.count("y") == 2
    conditions = {entry["type"]: entry["reason"] for entry in cluster.deployment["status"]["conditions"]}
    assert conditions["Progressing"] == "ReplicaSetUpdated"


def test_recreate_waits_until_the_old_pods_are_gone() -> None:
    cluster = Cluster(make_deployment(replicas=2, strategy={"type": "Recreate"}))
    cluster.settle()
    cluster.set_image("y")
    cluster.lingers = True

    def check() -> None:
        assert cluster.count("y") == 0

    cluster.settle(check, get_ready=False)
    check()
    old = next(iter(cluster.pods.values()))
    assert all(pod["metadata"].get("deletionTimestamp") for pod in old)
    old.clear()
    cluster.settle()
    assert cluster.count("y", ready=True) == 2


@pytest.mark.parametrize("limit", [0, 1, 10])
def test_so_many_old_replica_sets_are_kept(limit: int) -> None:
    cluster = Cluster(make_deployment(revisionHistoryLimit=limit))
    for image in ("x", "y", "z"):
        cluster.set_image(image)
        cluster.settle()
    assert len(cluster.replica_sets) == min(limit, 2) + 1
    assert cluster.count("z") == 1


def test_going_back_takes_the_old_replica_set_with_a_new_revision() -> None:
    cluster = Cluster(make_deployment())
    for image in ("x", "y", "x"):
        cluster.set_image(image)
        cluster.settle()
    revisions = {
        rs["spec"]["template"]["spec"]["containers"][0]["image"]: rs["metadata"]["annotations"][REVISION]
        for rs in cluster.replica_sets
    }
    assert revisions == {"x": "3", "y": "2"}


@pytest.mark.parametrize("revision", ["abc", "", "-5", "1e3", "9" * 5000])
def test_a_revision_that_is_no_number_counts_for_nothing(revision: str) -> None:
    cluster = Cluster(make_deployment())
    cluster.settle()
    cluster.replica_sets[0]["metadata"]["annotations"][REVISION] = revision
    cluster.set_image("y")
    cluster.settle()
    assert cluster.replica_sets[1]["metadata"]["annotations"][REVISION] == "1"


def test_a_paused_deployment_is_left_alone() -> None:
    cluster = Cluster(make_deployment())
    cluster.settle()
    cluster.deployment["spec"]["paused"] = True
    cluster.set_image("y")
    cluster.settle()
    assert (cluster.count("x"), cluster.count("y")) == (1, 0)
    assert len(names(cluster.replica_sets)) == 1
