"""Jobs, on plain data."""

from __future__ import annotations

from typing import Any

from playground.controllers.jobs import decide
from tests.playground.controllers.objects import NOW, make_pod, make_workload, names


def make_job(**spec: Any) -> dict[str, Any]:
    return make_workload("Job", **{"parallelism": 1, "completions": 1, "backoffLimit": 2, **spec})


def ended(count: int, phase: str) -> list[dict[str, Any]]:
    return [make_pod(f"{phase}-{number}", phase=phase) for number in range(count)]


def test_so_many_run_at_a_time_and_no_more_than_are_needed() -> None:
    job = make_job(parallelism=3, completions=4)
    assert len(decide(job, [], now=NOW).create) == 3
    assert len(decide(job, [*ended(2, "Succeeded"), make_pod("a")], now=NOW).create) == 1
    assert decide(job, [*ended(2, "Succeeded"), make_pod("a"), make_pod("b")], now=NOW).create == ()


def test_enough_have_succeeded() -> None:
    plan = decide(make_job(completions=2), ended(2, "Succeeded"), now=NOW)
    assert plan.status is not None
    assert [entry["type"] for entry in plan.status["conditions"]] == ["Complete"]
    assert (plan.status["succeeded"], plan.status["completionTime"], plan.create) == (2, NOW, ())


def test_too_many_have_failed() -> None:
    job = make_job(parallelism=2, completions=2)
    assert len(decide(job, ended(2, "Failed"), now=NOW).create) == 2
    plan = decide(job, [*ended(3, "Failed"), make_pod("a")], now=NOW)
    assert plan.status is not None
    assert [entry["reason"] for entry in plan.status["conditions"]] == ["BackoffLimitExceeded"]
    assert names(plan.delete) == ["a"]
    assert plan.create == ()
    job["status"] = plan.status
    assert decide(job, ended(3, "Failed"), now=NOW).create == ()


def test_without_completions_no_more_are_started_once_one_has_succeeded() -> None:
    job = make_job(parallelism=2)
    del job["spec"]["completions"]
    assert len(decide(job, [], now=NOW).create) == 2
    plan = decide(job, [*ended(1, "Succeeded"), make_pod("a")], now=NOW)
    assert (plan.create, plan.delete) == ((), ())
    plan = decide(job, ended(2, "Succeeded"), now=NOW)
    assert plan.status is not None
    assert [entry["type"] for entry in plan.status["conditions"]] == ["Complete"]


def test_a_suspended_job_has_no_pods() -> None:
    plan = decide(make_job(suspend=True), [make_pod("a")], now=NOW)
    assert (names(plan.delete), plan.create) == (["a"], ())
