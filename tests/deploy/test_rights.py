"""The table in docs/rights.md says what the chart's roles allow: no more, no less."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import chart
from tests.deploy.chart import Manifest
from tests.deploy.workloads import of_kind

TABLE = Path(__file__).parents[2] / "docs" / "rights.md"
Right = tuple[str, str, tuple[str, ...], str]
"""Account, what, verbs, where."""


def documented() -> set[Right]:
    text = TABLE.read_text().partition("## On the nodes")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    return {
        (account, what.replace("`", ""), tuple(verbs.split(", ")) if verbs else (), where.strip("`"))
        for account, what, verbs, _, where in rows[1:]
        if account != "---"
    }


def rendered(manifests: list[Manifest]) -> set[Right]:
    """What the chart's bindings come to, in the table's words."""
    roles = of_kind(manifests, "Role"), of_kind(manifests, "ClusterRole")
    found: set[Right] = set()
    for binding in (m for m in manifests if m["kind"].endswith("RoleBinding")):
        (subject,) = binding["subjects"]
        account = subject["name"].removeprefix("fracgpu-")
        kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
        namespace = binding["metadata"].get("namespace")
        where = {None: "cluster", chart.NAMESPACE: "its namespace"}.get(namespace, namespace)
        role = roles[kind == "ClusterRole"].get(name)
        if role is None:
            found.add((account, f"{kind} {name}", (), where))
            continue
        for rule in role["rules"]:
            found |= {(account, what, tuple(rule["verbs"]), where) for what in subjects_of(rule)}
    return found


def subjects_of(rule: dict[str, Any]) -> list[str]:
    names = "".join(f", only {name}" for name in rule.get("resourceNames", ()))
    return [
        (f"{group}/" if group else "") + resource + names
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    ]


def test_the_table_is_what_the_chart_allows() -> None:
    values = chart.values_of("default") | {"plugin": {"evictOveruse": True}}

    assert documented() == rendered(chart.manifests(values))


def test_no_right_is_there_that_the_values_do_not_need() -> None:
    def without(*what: str) -> set[Right]:
        return {right for right in documented() if not right[1].startswith(what)}

    default = rendered(chart.manifests(chart.values_of("default")))
    cert_manager = rendered(chart.manifests(chart.values_of("cert-manager")))
    existing = rendered(chart.manifests(chart.values_of("existing")))

    assert default == without("pods/eviction")
    assert cert_manager == without("pods/eviction", "secrets", "admissionregistration")
    assert {account for account, *_ in existing} == {"webhook", "extender", "plugin"}
    assert existing == {right for right in without("pods/eviction", "secrets") if right[0] != "scheduler"}


@pytest.mark.parametrize("name", chart.VALUES)
def test_nobody_may_do_everything(name: str) -> None:
    for role in (m for m in chart.manifests(chart.values_of(name)) if m["kind"] in ("Role", "ClusterRole")):
        for rule in role["rules"]:
            assert not re.search(r"\*|impersonate|escalate", str(rule))
