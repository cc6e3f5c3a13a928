"""What the services tell, against what the docs, the alert rules and the dashboard say of it.

All of it is read from running processes: a name or a label that is only written down is found out.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.documenting import PAGE, tables, with_tables
from tests.monitoring.exposing import SERVICES, Exposed, expose
from tests.monitoring.expressions import ADDED, filled_in, missing_labels, selectors_in
from tests.monitoring.prometheus import scraping

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deploy" / "helm" / "fracgpu" / "files"
ALERTS = FILES / "alerts.yaml"
UNIT_TESTS = Path(__file__).with_name("alerts_test.yaml")
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((FILES / "dashboard.json").read_text())

RARE = {
    ("fracgpu_plugin_kube_requests_total", "code"),
    ("fracgpu_extender_kube_requests_total", "code"),
}
"""Labels whose values say what went wrong: what rules and panels name of them did not happen here."""

QUIET = {"Pods that use most, of what they were granted", "Calls refused", "Xid errors in a day"}
"""Panels without a line where no process uses a GPU, no kubelet is refused, and no GPU breaks."""

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Prometheus) is not on PATH")


@pytest.fixture(scope="module")
def exposed() -> Exposed:
    return expose()


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", ())


EXPRESSIONS = {rule["alert"]: [rule["expr"]] for rule in RULES} | {
    f"panel {panel['id']}, {panel['title']}": [target["expr"] for target in panel["targets"]]
    for panel in panels()
    if panel.get("targets")
}


def assert_exposed(expression: str, labels: dict[str, dict[str, set[str]]]) -> None:
    for selector in selectors_in(expression):
        assert selector.name in labels, f"no service tells {selector.name}"
        known = labels[selector.name]
        for label, values in selector.values.items():
            assert label in known.keys() | ADDED, f"{selector.name} has no label {label}"
            if (selector.name, label) not in RARE:
                assert values <= known.get(label, values), f"{selector.name}: no {label} of {values - known[label]}"
    assert not missing_labels(expression, labels)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_rules_and_panels_ask_for_what_is_told(exposed: Exposed, name: str) -> None:
    for expression in EXPRESSIONS[name]:
        assert_exposed(expression, exposed.labels())


def test_what_the_dashboard_lets_choose_is_told(exposed: Exposed) -> None:
    source, *choices = DASHBOARD["templating"]["list"]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    for choice in choices:
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", choice["definition"])
        assert found is not None
        assert_exposed(found[1], exposed.labels())
        (selector,) = selectors_in(found[1])
        assert found[2] in exposed.labels()[selector.name]


def test_a_misspelt_name_or_label_would_be_found(exposed: Exposed) -> None:
    for wrong in (
        "fracgpu_gpu_memory_claimed_byte",
        'fracgpu_gpu_usable{gpus="x"}',
        'fracgpu_cluster_waiting_pods{reason="Fragmentd"}',
        'fracgpu_cluster_waiting_pods{reason=~"NoRoom|Fragmentd"}',
        "sum by (model) (fracgpu_cluster_gpus)",
        "fracgpu_plugin_ready * on (instance) group_left (nodes) fracgpu_plugin_node_info",
    ):
        with pytest.raises(AssertionError):
            assert_exposed(wrong, exposed.labels())


def test_the_docs_list_every_metric_as_it_is_told(exposed: Exposed) -> None:
    page = PAGE.read_text()
    assert page == with_tables(page, tables(exposed)), "run `python -m tests.monitoring`"


def test_names_are_those_of_the_ecosystem(exposed: Exposed) -> None:
    for service in SERVICES:
        for family in exposed.families(service):
            name = family.name
            assert name.startswith(("fracgpu_", "process_"))
            assert family.documentation
            if name.startswith("fracgpu_"):
                assert not re.search(r"_(ms|milliseconds|mib|mb|kb|percent)(_|$)", name), f"{name} is in no base unit"
                prefix = name.split("_")[1]
                assert prefix in (
                    {"cluster", "gpu", "build", "extender"} if service == "extender" else {"build", service}
                )


def test_users_cannot_make_series_without_end(exposed: Exposed) -> None:
    """Only the plugin tells of single pods, and only of those on its node."""
    for name, labels in exposed.labels().items():
        if not name.startswith("fracgpu_plugin_"):
            assert not labels.keys() & {"pod", "namespace", "container", "uid"}, name


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_to_do_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    notes = rule["annotations"]
    assert notes["summary"].endswith((".", "}}."))
    assert notes["description"].endswith(".")
    path, _, anchor = notes["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), flags=re.MULTILINE)
    assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert anchor == rule["alert"].lower()


def test_no_two_panels_have_one_number_or_overlap() -> None:
    numbers = [panel["id"] for panel in panels()]
    assert len(numbers) == len(set(numbers))
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels()):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells


@needs_promtool
@pytest.mark.parametrize("service", SERVICES)
def test_promtool_finds_nothing_wrong_with_what_is_told(exposed: Exposed, service: str) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=exposed.pages[service], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not on PATH")
def test_prometheus_can_evaluate_every_rule_and_panel(exposed: Exposed, tmp_path: Path) -> None:
    """Joins that do not match one to one are found out only by evaluating them, with several of each service."""
    pages = {f"{service}-{number}": exposed.pages[service] for service in SERVICES for number in range(2)}
    silent = []
    with scraping(pages, tmp_path) as prometheus:
        for name, expressions in EXPRESSIONS.items():
            found = [prometheus.query(filled_in(expression)) for expression in expressions]
            if name.startswith("panel") and not any(found):
                silent.append(name.partition(", ")[2])
    # These tell of what did not happen here; of all others something is to be seen.
    assert set(silent) <= QUIET


@needs_promtool
def test_promtool_accepts_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", ALERTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


@needs_promtool
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    rules = yaml.safe_load(ALERTS.read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        del rule["annotations"]  # else every test would have to repeat them
    (tmp_path / ALERTS.name).write_text(yaml.safe_dump(rules))
    shutil.copy(UNIT_TESTS, tmp_path)
    done = subprocess.run(
        ["promtool", "test", "rules", UNIT_TESTS.name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_to_fire_and_to_be_silent() -> None:
    expected = [
        (expectation["alertname"], bool(expectation.get("exp_alerts")))
        for case in yaml.safe_load(UNIT_TESTS.read_text())["tests"]
        for expectation in case["alert_rule_test"]
    ]
    assert {name for name, fires in expected if fires} == {rule["alert"] for rule in RULES}
    assert {name for name, fires in expected if not fires} == {rule["alert"] for rule in RULES}
