"""What `doctor` says of custom resources, policies and what runs."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
import yaml

from cli.kubectl.checks.finding import Status
from cli.kubectl.checks.installed import series
from cli.kubectl.facts import Page, Read
from cli.kubectl.objects import Definition, Named
from fracgpu.pods import ObjectMeta
from tests.cli.kubectl.installation import (
    CRD_FILES,
    POLICIES,
    assert_told,
    bindings,
    definitions,
    findings,
    healthy,
    workload,
)


def without_field(name: str, *path: str) -> dict[str, Read[Definition]]:
    """The custom resources, one of which does not know a field."""
    found = definitions()
    crd = yaml.safe_load((CRD_FILES / f"{name}.yaml").read_text())
    place = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in path[:-1]:
        place = place["properties"][part]
    del place["properties"][path[-1]]
    return found | {name: Read(msgspec.convert(crd, Definition))}


CASES: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "no custom resource": (
        {"definitions": definitions() | {"gpunodes.fracgpu.io": Read()}},
        ("fail", "custom resource gpunodes.fracgpu.io", "is not installed"),
    ),
    "an older custom resource": (
        {"definitions": without_field("gpunodes.fracgpu.io", "status", "usage")},
        (
            "fail",
            "custom resource gpunodes.fracgpu.io",
            "is of another version: it does not know status.usage, which is lost",
        ),
    ),
    "no policy": (
        {"policies": Read([Named(ObjectMeta(name=name)) for name in POLICIES[1:]])},
        ("warn", "admission policies", "gpunodes.fracgpu.io is not installed"),
    ),
    "a policy that denies nothing": (
        {"bindings": bindings("Audit")},
        ("warn", "admission policies", "no binding makes gpunodes.fracgpu.io, pod-annotations"),
    ),
    "no right to see policies": (
        {"policies": Read(unknown="needs list on validatingadmissionpolicies")},
        ("unknown", "admission policies", "needs list on validatingadmissionpolicies"),
    ),
    "one webhook of two": (
        {"webhook": Read(workload("--scheduler-name=fracgpu-scheduler", ready=1))},
        ("warn", "webhook pods", "1 of 2 are ready"),
    ),
    "the extender says why it is not ready": (
        {"readiness": {"extender": Read(Page(problem="the ledger is not readable or not complete yet"))}},
        ("fail", "extender readiness", "says: the ledger is not readable or not complete yet"),
    ),
    "no extender to ask": (
        {"readiness": {"extender": Read(unknown="no pod of it runs, so there is none to ask")}},
        ("unknown", "extender readiness", "no pod of it runs, so there is none to ask"),
    ),
    "a lost ledger": (
        {"metrics": Read(Page('fracgpu_extender_ledger_state{state="lost"} 1.0\n'))},
        ("fail", "ledger in Redis", "the extender says it is lost"),
    ),
    "overdrawn by the ledger": (
        {"metrics": Read(Page("fracgpu_extender_overdrawn_gpus 2.0\n"))},
        ("fail", "overdrawn GPUs", "more is taken of 2 GPUs than they have"),
    ),
}


@pytest.mark.parametrize(("changes", "want"), CASES.values(), ids=CASES)
def test_each_problem_is_found_and_told(changes: dict[str, Any], want: tuple[str, str, str]) -> None:
    assert_told(changes, want)


def test_metrics_are_read_with_and_without_labels() -> None:
    text = '# HELP a b\na{x="1",state="lost"} 1.0\na{state="valid",y="2"} 0.0\na_total 3\nb 2.5\n'

    assert list(series(text, "a", "state")) == [("lost", 1.0), ("valid", 0.0)]
    assert list(series(text, "b", "")) == [("", 2.5)]


def test_where_nobody_can_be_asked_the_log_says_why() -> None:
    nobody: Read[Page] = Read(unknown="no pod of it runs, so there is none to ask")
    facts = replace(healthy(), readiness={"extender": nobody}, metrics=nobody)

    unknown = {found.check: found.mend for found in findings(facts) if found.status is Status.UNKNOWN}

    seeing = "kubectl logs -n fracgpu-system -l app.kubernetes.io/name=fracgpu-extender --tail=20"
    assert unknown == {"extender readiness": seeing, "ledger in Redis": seeing}
