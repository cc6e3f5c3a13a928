"""The words of the events on pods."""

from __future__ import annotations

import pytest

from extender.ledger.claims import Claim, ClaimState
from extender.reconciling import Drift, Repair
from extender.telling import plan_in_words, why_corrected
from fracgpu.gpunodes import GpuNode
from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.plans import Plan, Share
from fracgpu.quantities import Mib
from tests.extender.builders import claim, gpu_node

NODE = gpu_node("node-2", "GPU-a", "GPU-b", replicas=4)
A, B = GpuUuid("GPU-a"), GpuUuid("GPU-b")


def plan(**containers: tuple[Share, ...]) -> Plan:
    return Plan(Mib(512), containers)


@pytest.mark.parametrize(
    ("given", "known", "want"),
    [
        (plan(main=(Share(B, 16),)), NODE, "8 GiB on GPU 1 (Test GPU) of node-2"),
        (plan(main=(Share(B, 1),)), NODE, "512 MiB on GPU 1 (Test GPU) of node-2"),
        (
            plan(main=(Share(A, 40), Share(B, 40))),
            NODE,
            "20 GiB on GPU 0 (Test GPU), 20 GiB on GPU 1 (Test GPU) of node-2",
        ),
        (plan(main=(Share(A, 20, seats=1),)), NODE, "1 of 4 seats (10 GiB) on GPU 0 (Test GPU) of node-2"),
        (
            plan(model=(Share(A, 12),), reranker=(Share(A, 4),)),
            NODE,
            "for model 6 GiB on GPU 0 (Test GPU), for reranker 2 GiB on GPU 0 (Test GPU) of node-2",
        ),
        (plan(main=(Share(A, 16),)), None, "8 GiB on GPU-a of node-2"),
        (plan(main=(Share(A, 20, seats=1),)), None, "1 seat (10 GiB) on GPU-a of node-2"),
        (plan(main=(Share(A, 40, seats=2),)), None, "2 seats (20 GiB) on GPU-a of node-2"),
    ],
)
def test_shares(given: Plan, known: GpuNode | None, want: str) -> None:
    assert plan_in_words(given, node="node-2", known=known) == want


def on(gpu: GpuUuid) -> Claim:
    return Claim(PodUid("u"), "team-a", "p", NodeName("node-2"), ClaimState.BOUND, plan(main=(Share(gpu, 16),)))


def test_a_pod_that_nobody_assigned_anything() -> None:
    assert why_corrected(Repair(Drift.UNKNOWN_POD, None, on(A)), known=NODE) == (
        "The pod has 8 GiB on GPU 0 (Test GPU) of node-2, which were not assigned to it by fracgpu; they count as "
        "taken from now on."
    )


def test_a_pod_that_has_something_else() -> None:
    assert why_corrected(Repair(Drift.OFF_PLAN, on(A), on(B)), known=NODE) == (
        "The pod has 8 GiB on GPU 1 (Test GPU) of node-2, and not 8 GiB on GPU 0 (Test GPU) of node-2, as it was "
        "assigned; what it has counts as taken from now on."
    )


@pytest.mark.parametrize(
    "repair",
    [
        Repair(Drift.CONFIRMED, claim("u", state="binding"), claim("u")),
        Repair(Drift.FOREIGN_UNIT, claim("u"), claim("u", unit=256)),
        Repair(Drift.RELEASED, claim("u"), None),
        Repair(Drift.UNSETTLED, claim("u", state="binding"), None),
    ],
)
def test_what_is_no_news_for_a_user(repair: Repair) -> None:
    assert why_corrected(repair, known=NODE) == ""
