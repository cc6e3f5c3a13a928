"""Which pods a PodDisruptionBudget covers, as kube-scheduler reads it."""

from typing import Any

import msgspec
import pytest

from fracgpu.disruption import LabelSelector, PodDisruptionBudget
from fracgpu.pods import ObjectMeta, Pod

LABELS = {"app": "web", "tier": "front"}


def covers(selector: dict[str, Any] | None, labels: dict[str, str] | None = None, **status: Any) -> bool:
    budget = msgspec.convert(
        {"metadata": {"name": "b", "namespace": "team-a"}, "spec": {"selector": selector}, "status": status},
        PodDisruptionBudget,
    )
    return budget.covers(Pod(ObjectMeta(name="p", namespace="team-a", labels=LABELS if labels is None else labels)))


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


SELECTORS: dict[str, tuple[dict[str, Any] | None, bool]] = {
    "one label": ({"matchLabels": {"app": "web"}}, True),
    "both labels": ({"matchLabels": {"app": "web", "tier": "front"}}, True),
    "another value": ({"matchLabels": {"app": "db"}}, False),
    "a label that is not there": ({"matchLabels": {"app": "web", "x": ""}}, False),
    "in": (expression("app", "In", "db", "web"), True),
    "not in these": (expression("app", "In", "db"), False),
    "in, without the label": (expression("x", "In", "web"), False),
    "not in": (expression("app", "NotIn", "db"), True),
    "not in, but it is": (expression("app", "NotIn", "db", "web"), False),
    "not in, without the label": (expression("x", "NotIn", "web"), True),
    "exists": (expression("app", "Exists"), True),
    "exists, but does not": (expression("x", "Exists"), False),
    "does not exist": (expression("x", "DoesNotExist"), True),
    "does not exist, but does": (expression("app", "DoesNotExist"), False),
    "labels and expressions": ({"matchLabels": {"app": "web"}, **expression("tier", "In", "back")}, False),
    "no selector": (None, False),
    "an empty selector": ({}, False),
    "nulls": ({"matchLabels": None, "matchExpressions": None}, False),
    "an unknown operator": ({"matchLabels": {"app": "web"}, **expression("x", "Gt", "1")}, False),
    "in nothing": (expression("app", "In"), False),
    "not in nothing": (expression("app", "NotIn"), False),
    "exists with a value": (expression("app", "Exists", "web"), False),
}


@pytest.mark.parametrize(("selector", "want"), SELECTORS.values(), ids=SELECTORS.keys())
def test_selectors(selector: dict[str, Any] | None, want: bool) -> None:
    assert covers(selector) is want


def test_a_pod_without_labels_is_covered_by_nothing() -> None:
    assert covers(expression("app", "DoesNotExist"), {"other": "x"})
    assert not covers(expression("app", "DoesNotExist"), {})


def test_a_budget_covers_its_own_namespace_only() -> None:
    budget = PodDisruptionBudget(ObjectMeta(name="b", namespace="team-b"))
    selector = LabelSelector({"app": "web"})
    budget = msgspec.structs.replace(budget, spec=msgspec.structs.replace(budget.spec, selector=selector))
    for namespace, want in (("team-a", False), ("team-b", True)):
        assert budget.covers(Pod(ObjectMeta(name="p", namespace=namespace, labels=LABELS))) is want


def test_an_eviction_that_is_under_way_is_counted_already() -> None:
    everything = {"matchLabels": {"app": "web"}}
    assert not covers(everything, disruptedPods={"p": "2026-01-01T00:00:00Z"})
    assert covers(everything, disruptedPods={"other": "2026-01-01T00:00:00Z"})
    assert covers(everything, disruptedPods=None)


def test_a_budget_as_it_comes_from_the_api_server() -> None:
    body = (
        b'{"kind":"PodDisruptionBudget","apiVersion":"policy/v1","metadata":{"name":"web","namespace":"team-a",'
        b'"uid":"u1","resourceVersion":"7","generation":1,"creationTimestamp":"2026-01-01T00:00:00Z"},'
        b'"spec":{"minAvailable":"50%","selector":{"matchLabels":{"app":"web"}}},'
        b'"status":{"observedGeneration":1,"disruptionsAllowed":2,"currentHealthy":4,"desiredHealthy":2,'
        b'"expectedPods":4,"conditions":[{"type":"DisruptionAllowed","status":"True"}]}}'
    )
    budget = msgspec.json.decode(body, type=PodDisruptionBudget)
    assert (budget.key, budget.disruptions_allowed) == ("team-a/web", 2)
    assert msgspec.json.decode(b"{}", type=PodDisruptionBudget).disruptions_allowed == 0
