"""The examples of docs/dialects.md, read out of the page: what stands under After is what comes out."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.webhook.builders import POLICY, decide
from tests.webhook.dialects.cases import UNDERSTOOD
from webhook.policy import DIALECTS, Policy, Rules
from webhook.rules import namespace_rules

PAGE = (Path(__file__).parents[3] / "docs" / "dialects.md").read_text()
BEFORE = re.compile(
    r"^### Before: ([\w-]+)(?:, with nvidiaGpu: (\w+))?\n\n```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
AFTER = re.compile(r"^### After: ([\w-]+)\n\n```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WANT: dict[str, dict[str, Any]] = {name: yaml.safe_load(text) for name, text in AFTER.findall(PAGE)}


def test_every_dialect_has_one_example() -> None:
    wanted = [*DIALECTS, "nvidia"]

    assert [name for name, _, _ in BEFORE.findall(PAGE)] == wanted
    assert [name for name, _ in AFTER.findall(PAGE)] == wanted
    assert PAGE.count("### ") == 2 * len(wanted)
    assert all(f"\n## {name}\n" in PAGE for name in wanted)


@pytest.mark.parametrize(("dialect", "mode", "text"), BEFORE.findall(PAGE), ids=lambda part: str(part)[:20])
def test_the_example_comes_out_as_the_page_says(dialect: str, mode: str, text: str) -> None:
    policy = replace(POLICY, rules=Rules(nvidia_gpu=mode)) if mode else POLICY  # type: ignore[arg-type]

    decided = decide(yaml.safe_load(text), policy=policy)

    assert decided.refusal == ""
    assert decided.warnings == ()
    assert decided.manifest == WANT[dialect]
    assert f'"dialect":"{dialect}"' in decided.annotations[UNDERSTOOD]


@pytest.mark.parametrize(
    ("namespace", "want"), [("notebooks", "seat"), ("team-b", "seat"), ("training", "whole"), ("default", "leave")]
)
def test_the_settings_file_says_what_the_page_says(namespace: str, want: str) -> None:
    (text,) = re.findall(r"^```yaml\n(version: .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    document = yaml.safe_load(text)

    policy = Policy(
        rules=Rules(nvidia_gpu=document["nvidiaGpu"]),
        namespaces=namespace_rules(document["namespaces"], replicas=POLICY.replicas),
    )

    assert policy.rules_in(namespace).nvidia_gpu == want


def test_the_examples_are_counted_as_the_settings_are_where_nobody_changes_them() -> None:
    assert (POLICY.unit, POLICY.replicas) == (Policy().unit, Policy().replicas)
