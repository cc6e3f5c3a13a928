"""When cards are ill, and when they are well again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fracgpu.names import GpuUuid
from fracgpu.quantities import Mib
from plugin.gpus.cards import Card, MigPlace
from plugin.gpus.health import RESET_XIDS, Health
from plugin.gpus.vitals import Vitals, XidEvent

A, B = GpuUuid("GPU-a"), GpuUuid("GPU-b")
MIG_1, MIG_2 = GpuUuid("MIG-1"), GpuUuid("MIG-2")
CARDS = (
    Card(A, 0, "NVIDIA L4", Mib(23034)),
    Card(MIG_1, 1, "NVIDIA H100 MIG 1g.10gb", Mib(9984), mig=MigPlace(B, 0, 7, 0)),
    Card(MIG_2, 1, "NVIDIA H100 MIG 1g.10gb", Mib(9984), mig=MigPlace(B, 1, 8, 0)),
)
WELL = Vitals(uncorrected=0, remap_pending=False, remap_failed=False, recovery=0)
OLD = Vitals(uncorrected=0)
"""A GPU that is well, with a driver that does not tell what it wants."""
LOST = Vitals(problem="GPU-a does not answer", down=True)


def ill(health: Health) -> set[str]:
    return set(health.problems())


def looked(health: Health, vitals: Vitals, *, until: float, since: float = 0, gpu: GpuUuid = A) -> None:
    for now in range(int(since), int(until) + 1, 5):
        health.look(gpu, vitals, now=now)


def test_a_lost_gpu_is_well_as_soon_as_it_answers() -> None:
    health = Health(CARDS)
    health.look(A, LOST, now=0)
    assert health.problems() == {A: "GPU-a does not answer"}
    health.look(A, WELL, now=5)
    assert ill(health) == set()


def test_an_xid_takes_sixty_quiet_seconds() -> None:
    health = Health(CARDS)
    assert health.xid(XidEvent(A, 61), now=0)
    assert "Xid 61" in health.problems()[A]
    looked(health, WELL, until=55)
    health.xid(XidEvent(A, 61), now=55)
    looked(health, WELL, since=60, until=110)
    assert ill(health) == {A}
    health.look(A, WELL, now=115)
    assert ill(health) == set()


def test_an_xid_of_an_instance_concerns_that_instance_only() -> None:
    health = Health(CARDS)
    health.xid(XidEvent(B, 61, gpu_instance=8, compute_instance=0), now=0)
    assert ill(health) == {MIG_2}
    health.xid(XidEvent(B, 61), now=0)
    assert ill(health) == {MIG_1, MIG_2}


def test_after_a_grave_xid_the_driver_has_to_say_that_all_is_well() -> None:
    health = Health(CARDS)
    health.xid(XidEvent(A, 119), now=0)
    looked(health, Vitals(uncorrected=0, recovery=1), until=200)
    assert "reset it" in health.problems()[A]
    looked(health, WELL, since=205, until=255)
    assert ill(health) == {A}
    health.look(A, WELL, now=260)
    assert ill(health) == set()


def test_without_such_a_driver_a_grave_xid_lasts_until_the_gpu_was_reset() -> None:
    health = Health(CARDS)
    health.xid(XidEvent(A, 79), now=0)
    looked(health, OLD, until=10_000)
    assert "nvidia-smi --gpu-reset -i 0" in health.problems()[A]
    health.look(A, LOST, now=10_005)
    looked(health, OLD, since=10_010, until=10_060)
    assert ill(health) == {A}
    health.look(A, OLD, now=10_065)
    assert ill(health) == set()


def test_a_slow_gpu_is_not_one_that_was_reset() -> None:
    health = Health(CARDS)
    health.xid(XidEvent(A, 79), now=0)
    health.look(A, Vitals(problem="slow"), now=5)
    looked(health, OLD, since=10, until=1000)
    assert ill(health) == {A}


def test_memory_errors_last_until_their_count_is_zero_again() -> None:
    health = Health(CARDS)
    health.xid(XidEvent(A, 48), now=0)
    looked(health, Vitals(uncorrected=2), until=500)
    assert "ECC" in health.problems()[A]
    looked(health, OLD, since=505, until=560)
    assert ill(health) == set()


def test_a_pending_remap_is_no_illness_and_a_failed_one_is() -> None:
    health = Health(CARDS)
    health.look(A, Vitals(remap_pending=True, remap_failed=False), now=0)
    assert ill(health) == set()
    health.look(A, Vitals(remap_pending=True, remap_failed=True), now=5)
    assert "row" in health.problems()[A]


def test_who_falls_ill_again_and_again_waits_longer_each_time() -> None:
    health = Health(CARDS)
    now, waits = 0, []
    for _ in range(8):
        now += 5
        health.xid(XidEvent(A, 61), now=now)
        since = now
        while ill(health):
            now += 5
            health.look(A, WELL, now=now)
        waits.append(now - since)
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    now += 3600
    health.xid(XidEvent(A, 61), now=now)
    health.look(A, WELL, now=now + 60)
    assert ill(health) == set()


def test_checks_can_be_left_out() -> None:
    bad = Vitals(uncorrected=1, remap_failed=True, recovery=0)
    for disabled, want in [((), True), (("ecc",), True), (("ecc", "row-remap"), False), (("all",), False)]:
        health = Health(CARDS, disabled=disabled)
        health.look(A, bad, now=0)
        assert bool(ill(health)) is want, disabled
    for disabled in (("xids",), ("all",)):
        assert not Health(CARDS, disabled=disabled).xid(XidEvent(A, 79), now=0)
    assert not Health(CARDS, ignored_xids=(13,)).xid(XidEvent(A, 13), now=0)


def test_other_cards_to_watch_do_not_heal_those_that_stay() -> None:
    health = Health(CARDS)
    health.xid(XidEvent(A, 61), now=0)
    health.xid(XidEvent(B, 61), now=0)
    health.follow((CARDS[0], Card(GpuUuid("GPU-c"), 2, "NVIDIA L4", Mib(23034))))
    assert ill(health) == {A}
    assert health.gpus == (A, "GPU-c")


VITALS = st.builds(
    Vitals,
    problem=st.sampled_from(["", "", "slow"]),
    down=st.just(value=False),
    uncorrected=st.sampled_from([None, 0, 1]),
    remap_failed=st.sampled_from([None, False, True]),
    recovery=st.sampled_from([None, 0, 1, 2]),
) | st.just(LOST)
SIGNS = st.lists(
    st.tuples(
        st.integers(0, 600),
        VITALS | st.builds(XidEvent, st.just(A), st.sampled_from([13, 31, 61, *sorted(RESET_XIDS)])),
    ),
    max_size=40,
)


@given(SIGNS, st.sampled_from([WELL, OLD]))
def test_whatever_befalls_a_gpu_the_others_are_well_and_it_is_in_the_end(
    signs: list[tuple[int, Vitals | XidEvent]], well: Vitals
) -> None:
    health = Health(CARDS, ignored_xids=(13, 31))
    now = 0
    for passed, sign in signs:
        now += passed
        health.look(B, WELL, now=now)
        if isinstance(sign, XidEvent):
            health.xid(sign, now=now)
        else:
            health.look(A, sign, now=now)
            assert not sign.problem or A in ill(health)
        assert ill(health) <= {A}
    health.look(A, LOST, now=now)  # the administrator resets it
    health.look(A, well, now=now + 5)
    health.look(A, well, now=now + 3600)
    assert ill(health) == set()
