"""Pods as Kubernetes sends them, read by the slim types."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fracgpu.pods import Container, Pod, Resources

WIRE = Path(__file__).parents[1] / "wire"


def decode(document: object) -> Pod:
    return msgspec.json.decode(json.dumps(document).encode(), type=Pod)


def recorded(name: str, *path: str) -> Pod:
    value: Any = json.loads((WIRE / name).read_text())
    for key in path:
        value = value[key]
    return decode(value)


def test_a_pod_that_the_scheduler_sent() -> None:
    pod = recorded("extender-filter.json", "request", "Pod")

    assert (pod.metadata.name, pod.metadata.generate_name, pod.key) == ("job-rqn7g", "job-", "team-a/job-rqn7g")
    assert pod.uid == "378b8f2b-4a28-47b4-aad4-3f503067a284"
    assert (pod.spec.node_name, pod.spec.scheduler_name, pod.spec.priority) == ("", "default-scheduler", 0)
    assert [container.limit("fracgpu.io/memory") for container in pod.containers] == ["4"]
    assert [(warm.name, warm.is_sidecar) for warm in pod.init_containers] == [("warm", False)]
    assert not pod.is_terminal


def test_a_pod_at_admission_has_no_uid_yet() -> None:
    pod = recorded("admission-create-pod.json", "request", "request", "object")

    assert pod.uid == ""
    assert pod.annotations == {"fracgpu.io/gpu-memory": "4Gi"}
    assert pod.allocation is None
    assert pod.init_containers == ()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"metadata": {}, "spec": {}, "status": {}},
        {"metadata": {"annotations": None, "labels": None}, "spec": {"containers": None, "initContainers": None}},
        {"status": None},
        {"status": {"containerStatuses": None, "initContainerStatuses": None}},
    ],
)
def test_whatever_is_absent_or_null_is_empty(document: object) -> None:
    pod = decode(document)

    assert (pod.annotations, pod.containers, pod.init_containers, pod.uid) == ({}, (), (), "")
    assert not pod.is_terminal


def test_the_plan_of_a_bound_pod() -> None:
    assert decode({"metadata": {"annotations": {"fracgpu.io/allocation": "{}"}}}).allocation == "{}"


def test_a_limit_goes_before_a_request() -> None:
    container = Container("main", Resources(limits={"a": 1}, requests={"a": 2, "b": "3"}))

    assert [container.limit(name) for name in "abc"] == [1, "3", 0]


@pytest.mark.parametrize(("policy", "want"), [("Always", True), ("Never", False), (None, False)])
def test_a_sidecar_is_an_init_container_that_restarts_always(policy: str | None, want: bool) -> None:
    assert Container("c", restart_policy=policy).is_sidecar is want


RUNNING: dict[str, object] = {"running": {}}
WAITING: dict[str, object] = {"waiting": {"reason": "x"}}
TERMINATED: dict[str, object] = {"terminated": {"exitCode": 0}}


@pytest.mark.parametrize(
    ("phase", "want"), [("Pending", False), ("Running", False), ("Succeeded", True), ("Failed", True), ("", False)]
)
def test_a_terminal_phase(phase: str, want: bool) -> None:
    assert decode({"status": {"phase": phase}}).is_terminal is want


ENDED: dict[str, tuple[object, bool]] = {
    "all ended": ({"containerStatuses": [{"state": TERMINATED}, {"state": TERMINATED}]}, True),
    "one runs on": ({"containerStatuses": [{"state": TERMINATED}, {"state": RUNNING}]}, False),
    "a sidecar runs on": (
        {"containerStatuses": [{"state": TERMINATED}], "initContainerStatuses": [{"state": RUNNING}]},
        False,
    ),
    "one never ran": ({"containerStatuses": [{"state": TERMINATED}, {"state": WAITING}]}, True),
    "nothing was ever reported": ({"phase": "Failed"}, True),
    "no status at all": (None, False),
}  # case -> status, whether no container runs any more


@pytest.mark.parametrize(("status", "want"), ENDED.values(), ids=ENDED)
def test_whether_all_containers_have_ended(status: object, want: bool) -> None:
    assert decode({"status": status}).all_terminated is want


def test_what_the_scheduler_says_is_why_the_pod_waits() -> None:
    ready = {"type": "Ready", "status": "False", "message": "not this"}
    waits = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}

    assert decode({"status": {"conditions": [ready, waits]}}).scheduler_says == "0/1 nodes"
    assert decode({"status": {"conditions": [waits | {"status": "True"}]}}).scheduler_says == ""
    assert decode({"status": {"conditions": [ready]}}).scheduler_says == ""
    assert decode({}).scheduler_says == ""
