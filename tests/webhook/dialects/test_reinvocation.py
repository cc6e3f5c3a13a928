"""A pod that was translated comes out unchanged, and a note that somebody wrote is worth no more than its manifest."""

import copy
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.webhook.builders import POLICY, container, decide
from tests.webhook.dialects.cases import IGNORING, UNDERSTOOD, all_containers, one, several
from webhook.policy import Rules

SEATS = replace(POLICY, rules=Rules(nvidia_gpu="seat"))
MANIFESTS = {
    "gpushare": one({"aliyun.com/gpu-mem": 4}),
    "gpushare, the second container": several([container("a"), container("main", {"aliyun.com/gpu-mem": 4})]),
    "gpushare, two containers": several([container(name, {"aliyun.com/gpu-mem": 4}) for name in "ab"]),
    "hami": one(
        {"nvidia.com/gpu": 2, "nvidia.com/gpumem": 3000}, {"nvidia.com/use-gputype": "A100"}, scheduler="hami-scheduler"
    ),
    "hami, seats": one({"nvidia.com/gpumem-percentage": 50}),
    "kai": one({}, {"gpu-memory": "2000"}, scheduler="kai-scheduler"),
    "kai, seats": one({}, {"gpu-fraction": "0.5", "gpu-fraction-num-devices": "2"}),
    "kai-gpu-fractioning": one({}, {"nvidia.com/container.main.gpu-memory.request": "4Gi"}),
    "gpu-manager": one({"tencent.com/vcuda-core": 50, "tencent.com/vcuda-memory": 30}),
    "nvidia": one({"nvidia.com/gpu": 2}),
    "a sidecar": several([container()], init=(container("side", {"aliyun.com/gpu-mem": 4}, restart="Always"),)),
}


def translated(manifest: dict[str, Any]) -> dict[str, Any]:
    decided = decide(manifest, policy=SEATS)
    assert decided.refusal == ""
    assert UNDERSTOOD in decided.annotations
    return copy.deepcopy(decided.manifest)


def forged(note: object, **more: Any) -> dict[str, Any]:
    text = note if isinstance(note, str) else msgspec.json.encode(note).decode()
    return one(more.pop("limits", {}), {UNDERSTOOD: text, **more.pop("notes", {})}, **more)


def asked(limits: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"dialect": "hami", "asked": {"main": {"limits": limits}}, **more}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_container_put_in_front_changes_nothing(name: str) -> None:
    manifest = translated(MANIFESTS[name])
    manifest["spec"]["containers"].insert(0, container("proxy"))

    assert decide(manifest, policy=SEATS).operations == []


@pytest.mark.parametrize("name", MANIFESTS)
def test_defaulted_requests_are_translated_too(name: str) -> None:
    manifest = copy.deepcopy(MANIFESTS[name])
    for each in all_containers(manifest):
        if limits := each.get("resources", {}).get("limits"):
            each["resources"]["requests"] = dict(limits)

    after = translated(manifest)

    for each in all_containers(after):
        amounts = each.get("resources", {})
        assert amounts.get("limits") == amounts.get("requests")
    assert all(key.startswith("fracgpu.io/") for each in all_containers(after) for key in _limits(each))


def _limits(each: dict[str, Any]) -> dict[str, Any]:
    limits: dict[str, Any] = each.get("resources", {}).get("limits") or {}
    return limits


def test_limits_that_somebody_took_away_come_back() -> None:
    manifest = translated(MANIFESTS["hami"])
    manifest["spec"]["containers"][0]["resources"] = {}

    assert decide(manifest).limits() == {"fracgpu.io/memory": "12"}


def test_a_copy_from_before_the_policy_was_changed_is_refused() -> None:
    """Its limit is in seats, and now it would be memory."""
    manifest = translated(MANIFESTS["gpu-manager"])

    assert "asks for both fracgpu.io/memory and fracgpu.io/replica" in decide(manifest, policy=IGNORING).refusal


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_changed_limit_is_refused(name: str) -> None:
    manifest = translated(MANIFESTS[name])
    for each in all_containers(manifest):
        for amounts in each.get("resources", {}).values():
            for key in amounts:
                amounts[key] = "9999"

    assert decide(manifest, policy=SEATS).refusal


def test_a_changed_annotation_is_refused_and_the_remedy_works() -> None:
    manifest = translated(MANIFESTS["hami"])
    manifest["metadata"]["annotations"]["fracgpu.io/gpu-memory"] = "8Gi"

    refusal = decide(manifest).refusal

    assert "annotation fracgpu.io/gpu-memory is '8Gi'" in refusal
    assert "written as '3000Mi'" in refusal
    assert f"remove {UNDERSTOOD}" in refusal
    del manifest["metadata"]["annotations"][UNDERSTOOD]
    manifest["spec"]["containers"][0]["resources"] = {}
    assert decide(manifest).limits() == {"fracgpu.io/memory": "32"}


def test_an_amount_that_the_note_says_was_taken_out_is_refused() -> None:
    manifest = translated(MANIFESTS["hami"])
    manifest["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpumem"] = "8000"

    refusal = decide(manifest).refusal

    assert "container 'main' asks for nvidia.com/gpumem" in refusal
    assert f"remove {UNDERSTOOD}" in refusal


@pytest.mark.parametrize("resource", ["fracgpu.io/memory", "fracgpu.io/replica"])
@pytest.mark.parametrize("name", ["hami", "kai", "nvidia"])
def test_a_container_with_limits_of_its_own_beside_a_translated_one_is_refused(name: str, resource: str) -> None:
    manifest = translated(MANIFESTS[name])
    manifest["spec"]["containers"].append(container("b", {resource: "2"}, requests={resource: "2"}))

    assert f"{resource} (fracgpu)" in decide(manifest, policy=SEATS).refusal


NO_NOTES: dict[str, object] = {
    "no JSON": "yes",
    "nothing": "",
    "another kind": [],
    "a number": 1,
    "null": None,
    "no dialect": {},
    "unknown members": {"dialect": "hami", "more": 1},
    "amounts that are none": asked({"nvidia.com/gpumem": "many"}),
    "amounts below 0": asked({"nvidia.com/gpumem": -1}),
    "amounts of null": asked({"nvidia.com/gpumem": None}),
    "resources that no dialect has": asked({"cpu": "64"}),
    "resources of ours": asked({"fracgpu.io/memory": "8"}),
    "annotations of others": asked({"nvidia.com/gpumem": 3000}, means={"gpu-memory": "2000"}),
    "the system's annotations": asked({"nvidia.com/gpumem": 3000}, means={"fracgpu.io/allocation": "{}"}),
    "itself": asked({"nvidia.com/gpumem": 3000}, means={UNDERSTOOD: "x"}),
    "seats without a number": asked({"nvidia.com/gpumem": 3000}, seats={"main": "1"}),
    "arrays without end": "[" * 100_000,
}


@pytest.mark.parametrize("name", NO_NOTES)
def test_what_is_no_note_of_ours_is_refused(name: str) -> None:
    refusal = decide(forged(NO_NOTES[name], notes={"gpu-memory": "2000"})).refusal

    assert refusal.startswith(f"annotation {UNDERSTOOD} is ")
    assert "only fracgpu writes it, so remove it" in refusal


def test_a_forged_note_means_the_manifest_that_it_describes() -> None:
    for_it = decide(forged(asked({"nvidia.com/gpumem": 3000}, means={"fracgpu.io/gpu-memory": "40Gi"})))
    honest = decide(one({"nvidia.com/gpumem": 3000}))

    assert for_it.limits() == honest.limits() == {"fracgpu.io/memory": "6"}
    assert for_it.annotations == honest.annotations


def test_a_forged_note_hides_no_annotation_of_ours() -> None:
    note = asked({"nvidia.com/gpumem": 3000}, means={"fracgpu.io/gpu-memory": "1Mi"})

    assert "fracgpu.io/gpu-memory is '40Gi'" in decide(forged(note, notes={"fracgpu.io/gpu-memory": "40Gi"})).refusal


def test_a_forged_note_does_not_hide_an_allocation() -> None:
    note = asked({"nvidia.com/gpumem": 3000})

    assert "fracgpu.io/allocation is set" in decide(forged(note, notes={"fracgpu.io/allocation": "{}"})).refusal


def test_a_forged_note_gets_no_more_than_the_namespace_allows() -> None:
    policy = replace(POLICY, rules=Rules(nvidia_gpu="whole", max_gpu_count=1))
    note = {"dialect": "nvidia", "asked": {"main": {"limits": {"nvidia.com/gpu": 2}}}, "seats": {"main": 1}}

    assert "at most 1" in decide(forged(note), policy=policy).refusal


def test_a_forged_note_beside_a_larger_limit_is_refused() -> None:
    note = asked({"nvidia.com/gpumem": 3000})

    refusal = decide(forged(note, limits={"fracgpu.io/memory": "80"})).refusal

    assert "has the limit fracgpu.io/memory: '80'" in refusal


@pytest.mark.parametrize("name", ["hami", "kai", "nvidia", "gpu-manager"])
def test_a_note_whose_dialect_is_off_is_refused(name: str) -> None:
    """To put that tool's resources back beside our limits would ask two tools for GPUs."""
    refusal = decide(translated(MANIFESTS[name]), policy=replace(POLICY, dialects=frozenset())).refusal

    assert "another language" in refusal
    assert "remove it, and what it wrote beside it is the request" in refusal


def test_without_the_note_the_translation_goes_on_in_our_language() -> None:
    manifest = translated(MANIFESTS["hami"])
    limits = decide(manifest, policy=SEATS).limits()
    del manifest["metadata"]["annotations"][UNDERSTOOD]

    decided = decide(manifest, policy=replace(POLICY, dialects=frozenset()))

    assert decided.refusal == ""
    assert decided.limits() == limits


def test_a_note_about_a_container_that_is_not_there_is_refused() -> None:
    """A copy with another container's name: one GPU with both shares instead of two GPUs."""
    manifest = translated(MANIFESTS["hami"])
    manifest["spec"]["containers"][0]["name"] = "app"

    assert "what container 'main' asked for in another language (hami)" in decide(manifest, policy=SEATS).refusal


def test_a_note_about_annotations_that_are_gone_is_refused() -> None:
    manifest = translated(MANIFESTS["kai, seats"])
    del (
        manifest["metadata"]["annotations"]["gpu-fraction"],
        manifest["metadata"]["annotations"]["gpu-fraction-num-devices"],
    )

    assert "(kai), and nothing in it does any more" in decide(manifest, policy=SEATS).refusal


def test_a_scheduler_that_was_set_after_the_translation_stays() -> None:
    manifest = translated(MANIFESTS["hami"])
    manifest["spec"]["schedulerName"] = "of-another-webhook"

    assert decide(manifest, policy=SEATS).operations == []


@pytest.mark.parametrize(
    ("resources", "notes", "dialects"),
    [
        ({"nvidia.com/gpu": 1, "nvidia.com/gpumem": 3000}, {"fracgpu.io/gpu-memory": "4Gi"}, frozenset()),
        ({"nvidia.com/gpu": 1}, {"fracgpu.io/gpu-memory": "4Gi", "nvidia.com/use-gputype": "A100"}, frozenset()),
        ({"aliyun.com/gpu-mem": 4}, {"gpu-memory": "2000"}, frozenset({"kai"})),
        ({"nvidia.com/gpu": 1, "tencent.com/vcuda-core": 50, "tencent.com/vcuda-memory": 8}, {}, frozenset()),
    ],
)
def test_what_another_tool_serves_is_not_served_by_us_as_well(
    resources: dict[str, Any], notes: dict[str, str], dialects: frozenset[str]
) -> None:
    refusal = decide(one(resources, notes), policy=replace(SEATS, dialects=dialects)).refusal

    assert "asks for GPUs in several languages" in refusal
