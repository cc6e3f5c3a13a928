"""A pod in two languages is refused, and so is one in another language and in ours."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from tests.webhook.builders import POLICY, container, decide
from tests.webhook.dialects.cases import one, several
from webhook.policy import DIALECTS, Rules

REQUEST = "nvidia.com/container.main.gpu-memory.request"
LIMITS: dict[str, dict[str, Any]] = {
    "gpushare": {"aliyun.com/gpu-mem": 4},
    "hami": {"nvidia.com/gpumem": 3000},
    "gpu-manager": {"tencent.com/vcuda-core": 100},
    "nvidia": {"nvidia.com/gpu": 1},
}
NOTES = {"kai": {"gpu-memory": "2000"}, "kai-gpu-fractioning": {REQUEST: "2000Mi"}}
SEATS = replace(POLICY, rules=Rules(nvidia_gpu="seat"))


def in_both(one_dialect: str, other: str) -> dict[str, Any]:
    """A pod that asks in both, each in a container of its own."""
    notes = {**NOTES.get(one_dialect, {}), **NOTES.get(other, {})}
    limits = [LIMITS.get(one_dialect), LIMITS.get(other)]
    return several([container("main", limits[0]), container("b", limits[1])], notes or None)


@pytest.mark.parametrize(
    ("dialect", "other"),
    [pair for pair in combinations((*DIALECTS, "nvidia"), 2) if pair != ("hami", "nvidia")],
    ids="-".join,
)
def test_two_dialects_are_refused(dialect: str, other: str) -> None:
    refusal = decide(in_both(dialect, other), policy=SEATS).refusal

    assert "the pod asks for GPUs in several languages" in refusal
    assert f"({dialect})" in refusal
    assert f"({other})" in refusal
    assert "keep one of them" in refusal


def test_hami_and_the_plain_number_are_one_language() -> None:
    refusal = decide(in_both("hami", "nvidia"), policy=SEATS).refusal

    assert "both fracgpu.io/memory and fracgpu.io/replica" in refusal  # a share, and in the other container all


@pytest.mark.parametrize("dialect", [*DIALECTS, "nvidia"])
@pytest.mark.parametrize(
    ("key", "value"),
    [("gpu-memory", "4Gi"), ("gpu-model", "A100"), ("policy", "spread"), ("gpu-fraction.b", "0.5")],
)
def test_an_annotation_of_ours_beside_is_refused(dialect: str, key: str, value: str) -> None:
    notes = {**NOTES.get(dialect, {}), f"fracgpu.io/{key}": value}

    refusal = decide(one(LIMITS.get(dialect, {}), notes), policy=SEATS).refusal

    assert f"({dialect}), fracgpu.io/{key} (fracgpu)" in refusal


@pytest.mark.parametrize("dialect", [*DIALECTS, "nvidia"])
@pytest.mark.parametrize("resource", ["fracgpu.io/memory", "fracgpu.io/replica"])
@pytest.mark.parametrize("place", ["limits", "requests"])
def test_a_limit_of_ours_beside_is_refused(dialect: str, resource: str, place: str) -> None:
    other = container("b")
    other["resources"] = {place: {resource: "1"}}

    refusal = decide(several([container("main", LIMITS.get(dialect)), other], NOTES.get(dialect)), policy=SEATS).refusal

    assert f"({dialect}), {resource} (fracgpu)" in refusal


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_resources_of_a_tool_that_runs_beside_us_contradict_what_we_understand(dialect: str) -> None:
    other = "gpushare" if dialect != "gpushare" else "hami"

    refusal = decide(in_both(dialect, other), policy=replace(POLICY, dialects=frozenset({dialect}))).refusal

    assert f"({dialect}), " in refusal
    assert f"({other});" in refusal


@pytest.mark.parametrize("other", NOTES)
def test_annotations_that_nobody_reads_here_contradict_nothing(other: str) -> None:
    decided = decide(in_both("gpushare", other), policy=replace(POLICY, dialects=frozenset({"gpushare"})))

    assert decided.refusal == ""
    assert NOTES[other].items() <= decided.annotations.items()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_pod_that_only_other_tools_understand_is_theirs(dialect: str) -> None:
    other = "gpushare" if dialect != "gpushare" else "hami"

    assert decide(in_both(dialect, other), policy=replace(POLICY, dialects=frozenset())).operations == []
