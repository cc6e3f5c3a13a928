"""What the ledger should say of a pod, by all that can be known of it."""

from typing import Any

import pytest

from extender.ledger.claims import Claim, Entry
from extender.observing import bound_claim, granted_claims, has_ended, rebuilt_claims
from extender.reconciling import Drift, Facts, Repair, is_at_least, judge
from fracgpu.names import GpuUuid
from fracgpu.plans import Plan, Share
from tests.extender.builders import UNIT, claim, gpu_node, grant, pod

BINDING = claim("pod-1", state="binding")
BOUND = claim("pod-1")
HELD = claim("pod-1", state="held")
ELSEWHERE = claim("pod-1", gpu="GPU-b")


def facts(**known: Any) -> Facts:
    nothing: dict[str, Any] = {"entry": None, "planned": None, "granted": None, "ended_at": "", "node": None}
    return Facts(**(nothing | {"is_overdue": False, "is_unbound": False} | known))


CASES: dict[str, tuple[Facts, Repair | None]] = {
    "nothing is known": (facts(), None),
    "bound as planned": (facts(entry=Entry(BOUND, 0), planned=BOUND), None),
    "bound and granted as planned": (facts(entry=Entry(BOUND, 0), planned=BOUND, granted=BOUND), None),
    "a bind is under way": (facts(entry=Entry(BINDING, 1)), None),
    "a bind's deadline has passed": (
        facts(entry=Entry(BINDING, 1), is_overdue=True),
        Repair(Drift.UNSETTLED, BINDING, None),
    ),
    "the pod is seen bound": (
        facts(entry=Entry(BINDING, 1), planned=BOUND),
        Repair(Drift.CONFIRMED, BINDING, BOUND),
    ),
    "the ledger forgot a bound pod": (facts(planned=BOUND), Repair(Drift.UNKNOWN_POD, None, BOUND)),
    "a pod bypassed the extender": (facts(granted=BOUND), Repair(Drift.UNKNOWN_POD, None, BOUND)),
    "the kubelet gave another gpu": (
        facts(entry=Entry(BOUND, 0), planned=BOUND, granted=ELSEWHERE),
        Repair(Drift.OFF_PLAN, BOUND, ELSEWHERE),
    ),
    "bound to other shares than reserved": (
        facts(entry=Entry(BINDING, 1), planned=ELSEWHERE),
        Repair(Drift.OFF_PLAN, BINDING, ELSEWHERE),
    ),
    "ended, and the plugin has seen it": (
        facts(entry=Entry(BOUND, 0), planned=BOUND, ended_at="50", node=gpu_node("node-1", observed="50")),
        Repair(Drift.RELEASED, BOUND, None),
    ),
    "ended, and the plugin has not seen it yet": (
        facts(entry=Entry(BOUND, 0), ended_at="50", node=gpu_node("node-1", observed="49")),
        None,
    ),
    "ended, and the plugin has seen just that, though not how late we heard of it": (
        facts(entry=Entry(BOUND, 0), ended_at="50", node=gpu_node("node-1", observed="49", ended=("pod-1",))),
        Repair(Drift.RELEASED, BOUND, None),
    ),
    "ended, seen by the plugin, and its process lives on": (
        facts(entry=Entry(BOUND, 0), granted=BOUND, ended_at="50", node=gpu_node("node-1", ended=("pod-1",))),
        None,
    ),
    "the plugin has seen it end, and we have not": (
        facts(entry=Entry(BOUND, 0), node=gpu_node("node-1", ended=("pod-1",))),
        None,
    ),
    "ended, and its process lives on": (
        facts(entry=Entry(BOUND, 0), granted=BOUND, ended_at="50", node=gpu_node("node-1", observed="60")),
        None,
    ),
    "ended, and its node is gone": (facts(entry=Entry(BOUND, 0), ended_at="50"), Repair(Drift.RELEASED, BOUND, None)),
    "bound by the ledger, and not by the API server": (
        facts(entry=Entry(BOUND, 0), is_unbound=True),
        Repair(Drift.UNSETTLED, BOUND, None),
    ),
    "a held pod waits": (facts(entry=Entry(HELD, 1)), None),
    "a held pod is gone": (facts(entry=Entry(HELD, 1), ended_at="50"), Repair(Drift.RELEASED, HELD, None)),
    "a held pod was bound by somebody else": (
        facts(entry=Entry(HELD, 1), planned=ELSEWHERE),
        Repair(Drift.OFF_PLAN, HELD, ELSEWHERE),
    ),
    "the node counts in another unit by now": (
        facts(entry=Entry(BOUND, 0), planned=BOUND, node=gpu_node("node-1", unit=768)),
        Repair(Drift.FOREIGN_UNIT, BOUND, claim("pod-1", units=6, unit=768)),
    ),
    "not seen to have ended": (facts(entry=Entry(BOUND, 0), node=gpu_node("node-1", observed="60")), None),
}


@pytest.mark.parametrize(("known", "want"), CASES.values(), ids=CASES.keys())
def test_judgement(known: Facts, want: Repair | None) -> None:
    assert judge(known) == want


def test_of_two_containers_the_one_not_yet_admitted_keeps_its_plan() -> None:
    plan = Plan(UNIT, {"main": (Share(GpuUuid("GPU-a"), 8),), "side": (Share(GpuUuid("GPU-b"), 4),)})
    planned = Claim(BOUND.uid, BOUND.namespace, BOUND.name, BOUND.node, BOUND.state, plan)
    assert judge(facts(entry=Entry(planned, 0), planned=planned, granted=BOUND)) is None


def test_a_phase_alone_does_not_end_a_pod() -> None:
    assert not has_ended(pod("p", phase="Failed", running=True))
    assert has_ended(pod("p", phase="Failed", running=False))
    assert not has_ended(pod("p", phase="Running", running=False))


@pytest.mark.parametrize(
    ("version", "other", "want"),
    [("10", "9", True), ("9", "10", False), ("9", "9", True), ("", "1", False), ("x", "1", False), ("1", "", False)],
)
def test_resource_versions_are_compared_as_numbers(version: str, other: str, want: bool) -> None:
    assert is_at_least(version, other) is want


def test_a_rebuild_takes_plans_of_the_living_and_grants_of_everybody() -> None:
    nodes = [
        gpu_node(
            "node-1", "GPU-a", "GPU-b", grants=(grant("ghost", "GPU-a", units=16), grant("lives", "GPU-b", units=8))
        )
    ]
    pods = [
        pod("lives", units=8, node="node-1", plan=claim("lives").plan),
        pod("ended", units=8, node="node-1", plan=claim("ended").plan, phase="Succeeded", running=False),
        pod("waits", units=8),
    ]
    claims = {found.name: found for found in rebuilt_claims(pods, nodes)}
    assert set(claims) == {"ghost", "lives"}
    assert claims["lives"].plan.containers["main"] == (Share(GpuUuid("GPU-b"), 8),)


FORGED: dict[str, dict[str, tuple[Share, ...]]] = {
    "another container": {"main": (Share(GpuUuid("GPU-a"), 8),), "x": (Share(GpuUuid("GPU-a"), 20),)},
    "more than the limit": {"main": (Share(GpuUuid("GPU-a"), 9),)},
    "seats instead": {"main": (Share(GpuUuid("GPU-a"), 8, 1),)},
    "a number that no gpu has": {"main": (Share(GpuUuid("GPU-a"), 2**63),)},
    "less than nothing": {"main": (Share(GpuUuid("GPU-a"), 12), Share(GpuUuid("GPU-b"), -4))},
    "nothing": {},
}


@pytest.mark.parametrize("containers", FORGED.values(), ids=FORGED.keys())
def test_a_plan_is_believed_only_as_far_as_the_pod_asks(containers: dict[str, tuple[Share, ...]]) -> None:
    assert bound_claim(pod("p", units=8, node="node-1", plan=claim("p").plan)) == claim("p")
    assert bound_claim(pod("p", units=8, node="node-1", plan=Plan(UNIT, containers))) is None


def test_a_grant_with_an_impossible_number_is_left_out() -> None:
    grants = (
        grant("odd", "GPU-a", units=-20),
        grant("odd-too", "GPU-a", units=2**63),
        grant("sound", "GPU-a", units=8),
    )
    assert [found.name for found in granted_claims(gpu_node("node-1", "GPU-a", grants=grants), pods={})] == ["sound"]


@pytest.mark.parametrize(
    ("deadline_ms", "want"),
    [(1000, True), (1001, False), (6500, False), (11_001, True)],
    ids=["passed", "not yet", "set a moment after what we take for now", "set before the clock jumped back"],
)
def test_when_a_reservation_is_overdue(deadline_ms: int, want: bool) -> None:
    assert Entry(BINDING, deadline_ms).is_overdue(now_ms=1000, lifetime_seconds=5) is want


def test_a_grant_to_a_pod_of_another_node_is_left_out() -> None:
    """Whoever has a node's token may write what he likes into that node's GPUNode."""
    pods = [
        pod("elsewhere", units=8, node="node-2", plan=claim("elsewhere", node="node-2", gpu="GPU-b").plan),
        pod("here", units=8, node="node-1", plan=claim("here").plan),
    ]
    forged = tuple(grant(uid, "GPU-a", units=8) for uid in ("elsewhere", "here", "unknown"))
    nodes = [gpu_node("node-2", "GPU-b", grants=()), gpu_node("node-1", "GPU-a", grants=forged)]

    claims = {found.uid: found for found in rebuilt_claims(pods, nodes)}

    assert {uid: found.node for uid, found in claims.items()} == {
        "elsewhere": "node-2",
        "here": "node-1",
        "unknown": "node-1",
    }
