"""The values that the documentation names exist, and the files of values in it are taken."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import chart

ROOT = chart.CHART.parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", chart.CHART / "README.md"]
GROUPS = "extender|webhook|plugin|scheduler|redis|certificates|crds|admission|networkPolicies|monitoring"
KEY = re.compile(rf"`((?:{GROUPS}|criticalPodsQuota)(?:\.[a-zA-Z]+)+)(?=[=:`])")
OURS = re.compile(r"^[^\n]*(?:helm (?:install|upgrade)[^\n]* fracgpu(?:[^\n]*\\\n)*[^\n]*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((chart.CHART / "values.yaml").read_text())
    return values


def knows(values: Any, key: str) -> bool:
    """Whether there is such a value, or one that holds whatever is put below it."""
    first, _, rest = key.partition(".")
    if not isinstance(values, dict) or first not in values:
        return False
    return not rest or values[first] == {} or knows(values[first], rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_value_that_a_page_names_exists(page: Path, defaults: dict[str, Any]) -> None:
    text = page.read_text()
    named = set(KEY.findall(text))
    for command in OURS.findall(text):
        named |= set(re.findall(r"--set(?:-\w+)? ([a-zA-Z.]+)=", command))

    assert [key for key in sorted(named) if not knows(defaults, key)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_file_of_values_in_a_page_is_taken(page: Path) -> None:
    for block in re.findall(r"```yaml\n(# values-.*?)```", page.read_text(), re.DOTALL):
        values = yaml.safe_load(block) or {}
        values["scheduler"] = {"image": "kube-scheduler:v1.36.2"} | values.get("scheduler", {})
        assert chart.manifests(values), block
