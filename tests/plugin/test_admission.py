from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from fracgpu.names import ANNOTATION_GPU_COUNT, RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid, PodUid
from fracgpu.plans import Share
from fracgpu.pods import Pod
from plugin.granting.admission import claims_of, under_admission, ungranted_claims, waiting_claims, wants_gpu
from plugin.granting.listing import ListedPod
from tests.plugin.builders import A, B, listed, make_pod, seat_share, seats, units

ONE = make_pod("one", {"main": [Share(A, 8)]}, created="2026-11-21T00:00:01Z")
TWO = make_pod("two", {"main": [Share(B, 8)]}, created="2026-11-21T00:00:02Z")
SMALL = make_pod("small", {"main": [Share(A, 2)]}, created="2026-11-21T00:00:03Z")
SEATS = make_pod("seats", {"main": [seat_share(A, 2)]})
PAIR = make_pod("pair", {"left": [Share(A, 4)], "right": [Share(B, 6)]})
SIDECAR = make_pod("car", {"main": [Share(A, 4)], "helper": [Share(B, 1)]}, sidecars=["helper"])
PLAIN = make_pod("plain", {"main": []}, has_plan=False)
BYPASS = make_pod("bypass", {"main": [Share(A, 8)]}, has_plan=False)
BROKEN = make_pod("broken", {"main": [Share(A, 8)]}, has_plan=False, annotations={"fracgpu.io/allocation": "{"})


@dataclass(frozen=True)
class Case:
    pods: Sequence[Pod]
    listing: Sequence[ListedPod]
    size: int
    want: tuple[str, str] | None
    resource: str = RESOURCE_MEMORY
    given: Mapping[GpuUuid, int] | None = None
    refused: set[str] = field(default_factory=set)


@pytest.mark.parametrize(
    "case",
    {
        "the one pod without its devices": Case(
            [ONE, TWO, PLAIN],
            [listed("one", {"main": units(A, 8)}), listed("two", {"main": []}), listed("plain", {"main": []})],
            8,
            ("two", "main"),
        ),
        "the first container of two": Case([PAIR], [listed("pair", {"left": [], "right": []})], 4, ("pair", "left")),
        "the second container, the first has its own": Case(
            [PAIR], [listed("pair", {"left": units(A, 4), "right": []})], 6, ("pair", "right")
        ),
        "a sidecar comes before the app containers": Case(
            [SIDECAR], [listed("car", {"helper": [], "main": []})], 1, ("car", "helper")
        ),
        "after the sidecar the app container": Case(
            [SIDECAR], [listed("car", {"helper": units(B, 1), "main": []})], 4, ("car", "main")
        ),
        "seats": Case([SEATS], [listed("seats", {"main": []})], 2, ("seats", "main"), resource=RESOURCE_REPLICA),
        "not a pod that wants the other resource": Case([SEATS], [listed("seats", {"main": []})], 2, None),
        "a pod that ended or is not known yet": Case([], [listed("one", {"main": []})], 8, None),
        "a pod that the kubelet does not list yet": Case([ONE], [], 8, None),
        "nobody misses anything": Case([ONE], [listed("one", {"main": units(A, 8)})], 8, None),
        "one candidate of another size is still the one": Case(
            [ONE], [listed("one", {"main": []})], 9, ("one", "main")
        ),
        "ambiguous: by size": Case(
            [ONE, SMALL], [listed("one", {"main": []}), listed("small", {"main": []})], 2, ("small", "main")
        ),
        "ambiguous: by the devices given": Case(
            [ONE, TWO],
            [listed("one", {"main": []}), listed("two", {"main": []})],
            8,
            ("two", "main"),
            given={B: 8},
        ),
        "ambiguous: not one that was refused": Case(
            [ONE, TWO],
            [listed("one", {"main": []}), listed("two", {"main": []})],
            8,
            ("two", "main"),
            refused={"uid-one"},
        ),
        "ambiguous: the oldest": Case(
            [TWO, ONE], [listed("one", {"main": []}), listed("two", {"main": []})], 8, ("one", "main")
        ),
        "a plan that cannot be read": Case([BROKEN], [listed("broken", {"main": []})], 8, ("broken", "")),
        "the same name in another namespace": Case([ONE], [listed("one", {"main": []}, namespace="team-b")], 8, None),
    }.items(),
    ids=lambda case: case[0],
)
def test_who_is_under_admission(case: tuple[str, Case]) -> None:
    asked = case[1]
    claim = under_admission(
        waiting_claims(asked.pods, tuple(asked.listing)),
        asked.resource,
        size=asked.size,
        given=asked.given,
        refused={PodUid(uid) for uid in asked.refused},
    )
    assert (claim and (claim.pod.metadata.name, claim.container)) == asked.want


def test_without_podresources_the_grants_tell_who_waits() -> None:
    done = {("uid-one", "main"), ("uid-pair", "left")}
    claims = ungranted_claims([ONE, PAIR, PLAIN, TWO], is_granted=lambda uid, name: (uid, name) in done)
    assert [(claim.pod.metadata.name, claim.container) for claim in claims] == [("pair", "right"), ("two", "main")]


def test_claims_of_a_pod_that_bypassed_the_extender_follow_its_limits() -> None:
    pod = make_pod("x", {"main": [Share(A, 4), Share(B, 4)]}, has_plan=False, annotations={ANNOTATION_GPU_COUNT: "2"})
    (claim,) = claims_of(pod)
    assert (claim.size, claim.gpus, claim.planned, claim.unit) == (8, 2, {}, None)
    assert claims_of(BYPASS)[0].gpus == 1
    assert not wants_gpu(PLAIN)


def test_claims_of_a_pod_that_can_have_nothing_say_why() -> None:
    both = make_pod("both", {"m": [Share(A, 4)], "r": [seat_share(A, 1)]}, has_plan=False)
    (claim,) = claims_of(both)
    assert "asks for both" in claim.problem
    assert "team-a/broken" in claims_of(BROKEN)[0].problem
    holding = listed("both", {"m": units(A, 4), "r": seats(A, 1)})
    assert waiting_claims([both], (holding,)) == []
