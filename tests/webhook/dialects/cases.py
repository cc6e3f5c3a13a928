"""Cases of manifests in other tools' languages: what they become, or what their author is told."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from tests.webhook.builders import POLICY, Decided, container, decide, pod
from webhook.policy import Policy

MEMORY = "fracgpu.io/memory"
REPLICA = "fracgpu.io/replica"
UNDERSTOOD = "fracgpu.io/understood"
WITHOUT = Policy(unit=POLICY.unit, replicas=POLICY.replicas, dialects=frozenset())
IGNORING = Policy(unit=POLICY.unit, replicas=POLICY.replicas, compute_shares="ignore")


@dataclass(frozen=True)
class Becomes:
    """A manifest that is understood.

    Attributes:
        manifest: the pod.
        annotations: our annotations that it gets, without ``fracgpu.io/`` and without the note.
        limits: container -> all of its limits; containers that are not named have none.
        scheduler: the pod's scheduler afterwards.
        warnings: the beginning of each.
        policy: the administrator's.
    """

    manifest: dict[str, Any]
    annotations: dict[str, str]
    limits: dict[str, dict[str, Any]]
    scheduler: str | None = None
    warnings: tuple[str, ...] = ()
    policy: Policy = POLICY


@dataclass(frozen=True)
class Refused:
    """A manifest that is refused; `says` are parts of the sentence."""

    manifest: dict[str, Any]
    says: tuple[str, ...]
    policy: Policy = POLICY


@dataclass(frozen=True)
class Untouched:
    """A manifest that comes out as it came in."""

    manifest: dict[str, Any]
    policy: Policy = field(default=POLICY)


def one(limits: dict[str, Any], notes: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """A pod with the one container ``main`` that has these limits."""
    return several([container("main", limits, requests=more.pop("requests", None))], notes, **more)


def several(
    containers: list[dict[str, Any]],
    notes: dict[str, str] | None = None,
    *,
    init: tuple[dict[str, Any], ...] = (),
    labels: dict[str, str] | None = None,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """A pod with annotations of any domain, or of none."""
    made = pod(None, init=init)
    made["spec"]["containers"] = containers
    for name, value in (("annotations", notes), ("labels", labels)):
        if value is not None:
            made["metadata"][name] = value
    if scheduler is not None:
        made["spec"]["schedulerName"] = scheduler
    return made


def all_containers(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    spec = manifest["spec"]
    return [*spec["containers"], *spec.get("initContainers", [])]


def note_of(decided: Decided) -> dict[str, Any]:
    note: dict[str, Any] = msgspec.json.decode(decided.annotations[UNDERSTOOD])
    return note


def check(case: Becomes | Refused | Untouched, *, dialect: str) -> None:
    decided = decide(case.manifest, policy=case.policy)
    if isinstance(case, Refused):
        assert decided.refusal
        for part in case.says:
            assert part in decided.refusal
        return
    assert decided.refusal == ""
    if isinstance(case, Untouched):
        assert decided.operations == []
        assert decided.warnings == ()
        return
    ours = {key: value for key, value in decided.annotations.items() if key.startswith("fracgpu.io/")}
    note = note_of(decided)
    assert note["dialect"] == dialect
    del ours[UNDERSTOOD]
    assert {key.removeprefix("fracgpu.io/"): value for key, value in ours.items()} == case.annotations
    assert note.get("means", {}) == ours
    for each in all_containers(decided.manifest):
        assert decided.limits(each["name"]) == case.limits.get(each["name"], {})
        requests = each.get("resources", {}).get("requests") or {}
        for amounts in (decided.limits(each["name"]), requests):
            assert {MEMORY, REPLICA, "cpu"}.issuperset(amounts)
        for resource in (MEMORY, REPLICA):
            assert requests.get(resource) == decided.limits(each["name"]).get(resource)
    before = case.manifest["metadata"].get("annotations") or {}
    assert {key: decided.annotations[key] for key in before} == before
    assert decided.manifest["spec"].get("schedulerName") == case.scheduler
    assert len(decided.warnings) == len(case.warnings)
    for said, want in zip(decided.warnings, case.warnings, strict=True):
        assert said.startswith(want)
