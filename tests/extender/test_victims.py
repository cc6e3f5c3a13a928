"""Who has to go: the cheapest pods that free one GPU, however the node's sum looks."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extender.placement.fitting import fits
from extender.placement.victims import (
    Candidate,
    Victims,
    by_importance,
    choose_victims,
    cost_of,
    count_violations,
)
from extender.placement.views import NodeView
from fracgpu.names import GpuUuid, PodUid
from fracgpu.plans import Share
from fracgpu.requests import ContainerRequest, PodRequest
from tests.extender.builders import gpu_view, node_view, request

NO_BUDGETS: Mapping[str, int] = {}


def candidate(
    name: str,
    *on: str,
    units: int = 0,
    seats: int = 0,
    priority: int = 0,
    started: str = "2026-01-01T00:00:00Z",
    budgets: tuple[str, ...] = (),
    offered: bool = False,
) -> Candidate:
    """A pod that takes as much of each of these GPUs."""
    shares = {GpuUuid(gpu): Share(GpuUuid(gpu), units, seats) for gpu in on}
    return Candidate(PodUid(name), priority, started, shares, budgets, offered)


def names(found: Victims | None) -> list[str] | None:
    return None if found is None else [pod.uid for pod in found.pods]


@dataclass(frozen=True)
class Case:
    """Two full GPUs of 80 units, a and b, unless `view` says otherwise; a request of 40 units."""

    candidates: list[Candidate]
    want: list[str] | None
    allowed: Mapping[str, int] | None = None
    request: PodRequest = request(40)  # noqa: RUF009 (frozen)
    view: NodeView = node_view("n", gpu_view("a", free=0), gpu_view("b", free=0))  # noqa: RUF009 (frozen)


CASES = {
    "two small pods on one GPU, though one on each would do for the sum": Case(
        [
            candidate("a1", "a", units=20, started="2026-01-01T00:00:00Z"),
            candidate("a2", "a", units=20, started="2026-01-02T00:00:00Z"),
            candidate("b1", "b", units=20, started="2026-01-03T00:00:00Z"),
            candidate("b2", "b", units=10, started="2026-01-04T00:00:00Z"),
        ],
        ["a1", "a2"],
    ),
    "one pod of two rather than two": Case(
        [candidate("a1", "a", units=20), candidate("a2", "a", units=20), candidate("b1", "b", units=40)], ["b1"]
    ),
    "several of low priority rather than one of a higher": Case(
        [
            candidate("a1", "a", units=20, priority=1),
            candidate("a2", "a", units=20, priority=1),
            candidate("b1", "b", units=80, priority=2),
        ],
        ["a1", "a2"],
    ),
    "the smaller sum of priorities where the highest is the same": Case(
        [
            candidate("a1", "a", units=20, priority=5),
            candidate("a2", "a", units=20, priority=4),
            candidate("b1", "b", units=20, priority=5),
            candidate("b2", "b", units=20, priority=3),
        ],
        ["b1", "b2"],
    ),
    "fewer pods even where priorities are negative": Case(
        [
            candidate("a1", "a", units=20, priority=-10),
            candidate("a2", "a", units=20, priority=-10),
            candidate("b1", "b", units=40, priority=-10),
        ],
        ["b1"],
    ),
    "what the scheduler chose, of equals": Case(
        [candidate("a1", "a", units=40), candidate("b1", "b", units=40, offered=True)], ["b1"]
    ),
    "the youngest, of equals": Case(
        [
            candidate("a1", "a", units=40, started="2026-01-01T00:00:00Z"),
            candidate("b1", "b", units=40, started="2026-03-01T00:00:00Z"),
        ],
        ["b1"],
    ),
    "one of unknown age is the youngest": Case(
        [candidate("a1", "a", units=40, started=""), candidate("b1", "b", units=40, started="2026-03-01T00:00:00Z")],
        ["a1"],
    ),
    "of the most important victims the oldest counts": Case(
        [
            candidate("a1", "a", units=20, priority=2, started="2026-01-03T00:00:00Z"),
            candidate("a2", "a", units=20, priority=1, started="2026-01-01T00:00:00Z"),
            candidate("b1", "b", units=20, priority=2, started="2026-01-02T00:00:00Z"),
            candidate("b2", "b", units=20, priority=1, started="2026-01-02T00:00:00Z"),
        ],
        ["a1", "a2"],
    ),
    "priority yields to a disruption budget": Case(
        [candidate("a1", "a", units=40, priority=1, budgets=("x",)), candidate("b1", "b", units=40, priority=2)],
        ["b1"],
        {"x": 0},
    ),
    "a disruption budget that allows it does not count": Case(
        [candidate("a1", "a", units=40, priority=1, budgets=("x",)), candidate("b1", "b", units=40, priority=2)],
        ["a1"],
        {"x": 1},
    ),
    "a disruption budget is used up by the first victim": Case(
        [
            candidate("a1", "a", units=20, priority=1, budgets=("x",)),
            candidate("a2", "a", units=20, priority=1, budgets=("x",)),
            candidate("b1", "b", units=40, priority=2),
        ],
        ["b1"],
        {"x": 1},
    ),
    "one violation rather than two": Case(
        [
            candidate("a1", "a", units=20, budgets=("x",)),
            candidate("a2", "a", units=20, budgets=("x",)),
            candidate("b1", "b", units=40, priority=9, budgets=("x", "y")),
        ],
        ["b1"],
        {"x": 0, "y": 0},
    ),
    "only what is missing": Case(
        [candidate(f"a{n}", "a", units=10, priority=n) for n in range(8)],
        ["a0"],
        view=node_view("n", gpu_view("a", free=30), gpu_view("b", free=39)),
    ),
    "an overdrawn GPU has to be made good first": Case(
        [candidate(f"a{n}", "a", units=30, priority=n) for n in range(3)],
        ["a1", "a0"],
        view=node_view("n", gpu_view("a", free=-10)),
    ),
    "sparing the dearest first is not always the cheapest": Case(
        [
            candidate("p0", "a", units=7, priority=1, budgets=("y",)),
            candidate("p1", "a", units=7, priority=1),
            candidate("p2", "a", units=10, budgets=("y",)),
            candidate("p3", "a", units=8, budgets=("y",)),
        ],
        ["p1", "p2", "p3"],
        {"y": 2},
        request=request(23),
        view=node_view("n", gpu_view("a", free=0)),
    ),
    "seats and their units": Case(
        [candidate("a1", "a", units=40), candidate("a2", "a", units=20, seats=1), candidate("b1", "b", units=80)],
        ["b1"],
        request=request(seats=3),
        view=node_view("n", gpu_view("a", free=20, free_seats=1), gpu_view("b", free=0, free_seats=4)),
    ),
    "a GPU of another number of seats is of no use": Case(
        [candidate("a1", "a", units=80, seats=4), candidate("b1", "b", units=80, priority=9)],
        ["b1"],
        request=request(seats=2, replicas=8),
        view=node_view("n", gpu_view("a", free=0, free_seats=0), gpu_view("b", free=0, seats=8, free_seats=8)),
    ),
    "an unhealthy GPU is of no use": Case(
        [candidate("a1", "a", units=80), candidate("b1", "b", units=80, priority=9)],
        ["b1"],
        view=node_view("n", gpu_view("a", free=0, usable=False), gpu_view("b", free=0)),
    ),
    "a pod on both GPUs frees the one": Case([candidate("ab", "a", "b", units=40)], ["ab"]),
    "nobody, where there is room": Case(
        [candidate("a1", "a", units=40)], None, view=node_view("n", gpu_view("a", free=40), gpu_view("b", free=0))
    ),
    "nobody, where all of them are not enough": Case(
        [candidate("a1", "a", units=39), candidate("b1", "b", units=39)], None
    ),
    "nobody, where nobody may go": Case([], None),
    "nobody, where there is no GPU": Case([candidate("a1", "a", units=40)], None, view=node_view("n")),
    "of two GPUs, those that cost least": Case(
        [
            candidate("a1", "a", units=40, priority=3),
            candidate("b1", "b", units=40, priority=1),
            candidate("c1", "c", units=40, priority=2),
        ],
        ["c1", "b1"],
        request=request(40, gpus=2),
        view=node_view("n", *(gpu_view(name, free=0) for name in "abc")),
    ),
    "of two GPUs, the one that is not free": Case(
        [candidate("a1", "a", units=40, priority=3), candidate("b1", "b", units=40, priority=1)],
        ["b1"],
        request=request(40, gpus=2),
        view=node_view("n", gpu_view("a", free=0), gpu_view("b", free=0), gpu_view("c", free=40)),
    ),
    "one pod that holds both GPUs": Case(
        [candidate("a1", "a", units=40), candidate("b1", "b", units=40), candidate("ab", "a", "b", units=40)],
        ["ab"],
        request=request(40, gpus=2),
    ),
    "two containers, on one GPU or on two": Case(
        [candidate("a1", "a", units=60), candidate("b1", "b", units=30)],
        ["a1"],
        request=PodRequest((ContainerRequest("x", 1, 40, 0), ContainerRequest("y", 1, 20, 0))),
    ),
    "two containers, of which one fits on either GPU": Case(
        [
            candidate("a1", "a", units=80),
            candidate("b1", "b", units=20, priority=2),
            candidate("b2", "b", units=20, priority=1, budgets=("x",)),
        ],
        ["b1", "a1"],
        {"x": 0},
        request=PodRequest((ContainerRequest("x", 1, 80, 0), ContainerRequest("y", 1, 20, 0))),
        view=node_view("n", gpu_view("a", free=0), gpu_view("b", units=40, free=0)),
    ),
    "of many GPUs, those that cost least": Case(
        [candidate(f"{gpu}1", gpu, units=80, priority=priority) for priority, gpu in enumerate("hgfedcba")],
        ["e1", "f1", "g1", "h1"],
        request=request(40, gpus=4),
        view=node_view("n", *(gpu_view(gpu, free=0) for gpu in "abcdefgh")),
    ),
    "of many GPUs, the few that can be freed": Case(
        [candidate("a1", "a", units=80, priority=3), *(candidate(f"{gpu}1", gpu, units=40) for gpu in "hi")],
        ["a1", "h1", "i1"],
        request=PodRequest((ContainerRequest("x", 1, 80, 0), ContainerRequest("y", 2, 10, 0))),
        view=node_view("n", gpu_view("a", free=0), *(gpu_view(gpu, units=40, free=0) for gpu in "bcdefghi")),
    ),
    "two containers that need both GPUs": Case(
        [candidate("a1", "a", units=50), candidate("b1", "b", units=50)],
        ["a1", "b1"],
        request=PodRequest((ContainerRequest("x", 1, 40, 0), ContainerRequest("y", 1, 40, 0))),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_victims(case: Case) -> None:
    found = choose_victims(case.view, case.request, case.candidates, allowed=case.allowed or NO_BUDGETS)
    assert names(found) == case.want


def test_victims_come_as_the_scheduler_expects_them() -> None:
    """The most important first, from whom it reads the node's price; and with the number of violations."""
    pods = [
        candidate("low", "a", units=10, priority=1),
        candidate("high", "a", units=10, priority=3, budgets=("x",)),
        candidate("old", "a", units=10, priority=2, started="2025-01-01T00:00:00Z", budgets=("x",)),
        candidate("young", "a", units=10, priority=2, budgets=("x",)),
    ]
    found = choose_victims(node_view("n", gpu_view("a", free=0, units=40)), request(40), pods, allowed={"x": 1})
    assert found is not None
    assert names(found) == ["high", "old", "young", "low"]
    assert found.violations == 2


def test_very_many_ways_are_decided_in_bounds() -> None:
    """40 pods of which every choice frees another amount: the answer is not the best, but none of it can be spared."""
    pods = [candidate(f"p{n}", "a", units=2**n + 40, priority=n % 3, budgets=(f"b{n % 7}",)) for n in range(40)]
    units = sum(pod.shares[GpuUuid("a")].units for pod in pods)
    view = node_view("n", gpu_view("a", free=0, units=units))
    found = choose_victims(view, request(units // 3), pods, allowed={f"b{n}": n % 3 for n in range(7)})
    assert found is not None
    _assert_just_enough(view, request(units // 3), found.pods)


@st.composite
def _situations(draw: st.DrawFn, *, gpus: st.SearchStrategy[int]) -> tuple[NodeView, PodRequest, list[Candidate]]:
    """A node of at most three GPUs with at most six candidates on it, and a request."""
    uuids = ["a", "b", "c"][: draw(st.integers(1, 3))]
    amounts = st.integers(0, 6)
    candidates = [
        Candidate(
            PodUid(f"p{n}"),
            draw(st.integers(-1, 2)),
            draw(st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])),
            {
                GpuUuid(gpu): Share(GpuUuid(gpu), draw(amounts), draw(st.integers(0, 2)))
                for gpu in draw(st.sets(st.sampled_from(uuids), min_size=1))
            },
            tuple(draw(st.sets(st.sampled_from(["x", "y"])))),
            draw(st.booleans()),
        )
        for n in range(draw(st.integers(0, 6)))
    ]
    views = [
        gpu_view(
            uuid,
            units=40,
            seats=20,
            free=draw(st.integers(-3, 6)),
            free_seats=draw(st.integers(0, 3)),
            usable=draw(st.sampled_from([True, True, True, False])),
        )
        for uuid in uuids
    ]
    if draw(st.booleans()):
        wanted = request(draw(st.integers(1, 14)), gpus=draw(gpus))
    else:
        wanted = request(seats=draw(st.integers(1, 8)), gpus=draw(gpus), replicas=draw(st.sampled_from([None, 20, 8])))
    return node_view("n", *views), wanted, candidates


BUDGETS = st.fixed_dictionaries({"x": st.integers(0, 2), "y": st.integers(0, 2)})


@settings(max_examples=600, deadline=None)
@given(_situations(gpus=st.just(1)), BUDGETS)
def test_nothing_cheaper_makes_room_on_one_gpu(
    situation: tuple[NodeView, PodRequest, list[Candidate]], allowed: dict[str, int]
) -> None:
    view, wanted, candidates = situation
    found = choose_victims(view, wanted, candidates, allowed=allowed)
    sufficient = _sufficient_sets(view, wanted, candidates)
    if not sufficient or () in sufficient:
        assert found is None
        return
    assert found is not None
    _assert_just_enough(view, wanted, found.pods)
    cheapest = min(cost_of(victims, allowed=allowed) for victims in sufficient)
    assert cost_of(found.pods, allowed=allowed) == cheapest
    assert found.violations == cheapest[0]


@settings(max_examples=300, deadline=None)
@given(_situations(gpus=st.integers(2, 3)), BUDGETS)
def test_victims_for_several_gpus_are_enough_and_all_needed(
    situation: tuple[NodeView, PodRequest, list[Candidate]], allowed: dict[str, int]
) -> None:
    view, wanted, candidates = situation
    found = choose_victims(view, wanted, candidates, allowed=allowed)
    sufficient = _sufficient_sets(view, wanted, candidates)
    if not sufficient or () in sufficient:
        assert found is None
        return
    assert found is not None
    _assert_just_enough(view, wanted, found.pods)


def test_a_pod_that_frees_nothing_is_no_victim_however_low_its_priority() -> None:
    view = node_view("n", gpu_view("b", units=40, seats=20, free=0, free_seats=0))
    shares = {GpuUuid("b"): Share(GpuUuid("b"), 1, 0)}
    nothing = {GpuUuid("b"): Share(GpuUuid("b"), 0, 0)}
    candidates = [
        Candidate(PodUid("empty"), -1, shares=nothing),
        Candidate(PodUid("normal"), 0, shares=shares, budgets=("y",)),
        Candidate(PodUid("low"), -1, shares=shares, budgets=("y",)),
    ]
    found = choose_victims(view, request(1), candidates, allowed={"y": 1})
    assert found is not None
    assert [pod.uid for pod in found.pods] == ["low"]


@given(st.permutations([candidate(f"p{n}", priority=n % 2, budgets=("x", "y")[: n % 3]) for n in range(5)]), BUDGETS)
def test_violations_do_not_depend_on_the_order_given(pods: list[Candidate], allowed: dict[str, int]) -> None:
    assert count_violations(pods, allowed=allowed) == count_violations(reversed(pods), allowed=allowed)
    assert cost_of(pods, allowed=allowed) == cost_of(pods[::-1], allowed=allowed)
    assert cost_of(pods, allowed=allowed)[0] == count_violations(pods, allowed=allowed)


def test_cost_is_the_schedulers() -> None:
    """pickOneNodeForPreemption, worked out by hand."""
    pods = [
        candidate("a", priority=7, started="2026-01-02T00:00:00Z", budgets=("x",)),
        candidate("b", priority=7, started="2026-01-01T00:00:00Z", budgets=("x",), offered=True),
        candidate("c", priority=-7, started="2020-01-01T00:00:00Z"),
    ]
    age = tuple(-ord(char) for char in "2026-01-01T00:00:00Z")
    assert cost_of(pods, allowed={"x": 1}) == (1, 7, 7 + 3 * 2**31, 3, 2, age)
    young = candidate("d", priority=7, started="")
    assert [pod.uid for pod in by_importance([young, *reversed(pods)])] == ["b", "a", "d", "c"]


def _assert_just_enough(view: NodeView, wanted: PodRequest, victims: tuple[Candidate, ...]) -> None:
    """They make it fit, and with any one of them left it does not; more left is less room still."""
    assert fits(_without(view, victims), wanted)
    for spared in victims:
        assert not fits(_without(view, tuple(pod for pod in victims if pod is not spared)), wanted)


def _sufficient_sets(view: NodeView, wanted: PodRequest, candidates: list[Candidate]) -> list[tuple[Candidate, ...]]:
    return [
        victims
        for size in range(len(candidates) + 1)
        for victims in combinations(candidates, size)
        if fits(_without(view, victims), wanted)
    ]


def _without(view: NodeView, victims: tuple[Candidate, ...]) -> NodeView:
    gpus = []
    for gpu in view.gpus:
        freed = [pod.shares[gpu.uuid] for pod in victims if gpu.uuid in pod.shares]
        units, seats = sum(share.units for share in freed), sum(share.seats for share in freed)
        gpus.append(
            gpu_view(
                gpu.uuid,
                units=gpu.units,
                seats=gpu.replicas,
                free=gpu.free_units + units,
                free_seats=gpu.free_seats + seats,
                usable=gpu.usable,
            )
        )
    return node_view(view.name, *gpus)
