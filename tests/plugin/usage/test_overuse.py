"""When a pod is spoken of, and when it is evicted."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fracgpu.names import GpuUuid, PodUid
from plugin.usage.measuring import Excess
from plugin.usage.overuse import EVICT_AFTER, EVICT_AGAIN_SECONDS, REPEAT_SECONDS, WARN_AFTER, OveruseWatch, Step
from tests.plugin.builders import A, B

POD, OTHER = PodUid("one"), PodUid("two")
PERIOD, GAP = 10.0, 30.0


@dataclass
class World:
    """A watch, and a clock that moves with each measurement."""

    evicts: bool = True
    now: float = 1000.0
    steps: list[tuple[float, Step]] = field(default_factory=list)  # what was to be done about POD, and when

    def __post_init__(self) -> None:
        self.watch = OveruseWatch(evicts=self.evicts, max_gap_seconds=GAP)

    def see(self, *gpus: GpuUuid, after: float = PERIOD, lives: bool = True) -> list[Step]:
        self.now += after
        excesses = {POD: tuple(Excess(gpu, 1, 2) for gpu in gpus)} if gpus and lives else {}
        actions = self.watch.observe(excesses, pods={POD} if lives else set(), now=self.now)
        assert {action.uid for action in actions} <= {POD}
        found = [action.step for action in actions]
        self.steps += [(self.now, step) for step in found]
        return found


def test_the_ordinary_course() -> None:
    world = World()
    assert world.see(A) == []
    assert world.see(A) == [Step.BEGAN, Step.WARN]
    assert world.see(A) == [Step.EVICT]
    assert world.see(A) == []
    assert world.watch.over == {POD}
    assert world.see() == [Step.ENDED]
    assert world.watch.over == set()


def test_eviction_is_opt_in() -> None:
    world = World(evicts=False)
    assert [world.see(A) for _ in range(9)] == [[], [Step.BEGAN, Step.WARN], *[[]] * 7]


def test_a_measurement_between_begins_anew() -> None:
    world = World()
    assert [world.see(*gpus) for gpus in [(A,), (), (A,), (), (B,), (A,), (B,)]] == [[]] * 7, "never the same GPU twice"


def test_a_missed_measurement_begins_anew() -> None:
    world = World()
    world.see(A)
    world.watch.missed()
    assert world.see(A) == []
    world.see(A)
    world.watch.missed()
    assert [world.see(A), world.see(A), world.see(A)] == [[], [], [Step.EVICT]]


def test_a_gap_or_a_clock_that_jumps_begins_anew() -> None:
    for jump in (GAP + 1, -500.0, 86400.0):
        world = World()
        world.see(A)
        world.see(A)
        assert world.see(A, after=jump) in ([], [Step.WARN]), jump
        assert Step.EVICT not in world.see(A), jump


def test_what_lasts_is_said_again() -> None:
    world = World(evicts=False)
    for _ in range(2 + int(2 * REPEAT_SECONDS / PERIOD)):
        world.see(A)
    said = [when for when, step in world.steps if step is Step.WARN]
    assert [after - before for before, after in pairwise(said)] == [REPEAT_SECONDS, REPEAT_SECONDS]
    world.now += REPEAT_SECONDS
    world.see(A)
    actions = world.watch.observe({POD: (Excess(A, 1, 2),)}, pods={POD}, now=world.now + PERIOD)
    assert [action.step for action in actions] == [Step.WARN]


def test_a_pod_that_goes_up_and_down_is_not_said_each_time() -> None:
    world = World(evicts=False)
    for _ in range(10):
        for gpus in ((A,), (A,), ()):
            world.see(*gpus)
    assert [step for _, step in world.steps].count(Step.BEGAN) == 10
    assert [step for _, step in world.steps].count(Step.WARN) == 1


def test_an_event_that_could_not_be_written_is_due_again() -> None:
    world = World(evicts=False)
    world.see(A)
    world.see(A)
    world.watch.unwarned(POD)
    actions = world.watch.observe({POD: (Excess(A, 1, 2),)}, pods={POD}, now=world.now + PERIOD)
    assert [action.step for action in actions] == [Step.WARN]
    world.watch.unwarned(PodUid("gone meanwhile"))


def test_an_eviction_that_was_refused_is_tried_later() -> None:
    world = World()
    for _ in range(3 + int(EVICT_AGAIN_SECONDS / PERIOD)):
        world.see(A)
    tried = [when for when, step in world.steps if step is Step.EVICT]
    assert [after - before for before, after in pairwise(tried)] == [EVICT_AGAIN_SECONDS]


def test_a_pod_that_went_away_is_forgotten() -> None:
    world = World()
    world.see(A)
    world.see(A)
    assert world.see(lives=False) == []
    assert world.watch.over == set()
    assert [world.see(A), world.see(A)] == [[], [Step.BEGAN, Step.WARN]]


@dataclass(frozen=True)
class Measured:
    """One turn of the loop: None in `gpus` is a measurement that failed."""

    gpus: frozenset[GpuUuid] | None
    after: float


TURNS = st.lists(
    st.builds(
        Measured,
        gpus=st.one_of(st.none(), st.frozensets(st.sampled_from([A, B])), st.just(frozenset({A}))),
        after=st.one_of(st.just(PERIOD), st.sampled_from([0.0, GAP, GAP + 0.1, -1.0, 3600.0])),
    ),
    max_size=60,
)


@given(TURNS)
def test_nothing_is_done_without_measurements_in_a_row(turns: list[Measured]) -> None:
    """Judged from the whole history, as an administrator would."""
    world = World()
    history: list[tuple[float, frozenset[GpuUuid] | None]] = []
    warned: list[float] = []
    for turn in turns:
        if turn.gpus is None:
            world.now += turn.after
            world.watch.missed()
            history.append((world.now, None))
            continue
        steps = world.see(*sorted(turn.gpus), after=turn.after)
        history.append((world.now, turn.gpus))
        if Step.WARN in steps:
            assert in_a_row(history, WARN_AFTER)
            assert all(not 0 <= world.now - before < REPEAT_SECONDS for before in warned)
            warned.append(world.now)
        if Step.EVICT in steps:
            assert in_a_row(history, EVICT_AFTER)
        if steps.count(Step.BEGAN):
            assert steps.index(Step.BEGAN) == 0
        assert not (Step.ENDED in steps and turn.gpus)
        if in_a_row(history, WARN_AFTER):
            assert world.watch.over == {POD}
        if not turn.gpus:
            assert world.watch.over == set()


def in_a_row(history: list[tuple[float, frozenset[GpuUuid] | None]], count: int) -> bool:
    """Whether the last measurements all succeeded, followed each other, and have one GPU in common."""
    last = history[-count:]
    if len(last) < count or any(gpus is None for _, gpus in last):
        return False
    if any(not 0 <= after[0] - before[0] <= GAP for before, after in pairwise(last)):
        return False
    return bool(frozenset.intersection(*(gpus for _, gpus in last if gpus is not None)))
