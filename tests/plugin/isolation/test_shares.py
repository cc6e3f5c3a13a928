"""Percentages of a GPU's processors, and the order of a container's GPUs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fracgpu.requests import MAX_SEATS
from plugin.isolation.shares import core_percent, in_container_order, smallest_core_percent
from tests.plugin.isolation.builders import A, B, C, share


@given(st.integers(1, MAX_SEATS).flatmap(lambda of: st.tuples(st.just(of), st.integers(1, of))))
def test_a_percentage_is_never_0_and_never_above_100(seats: tuple[int, int]) -> None:
    of_seats, wanted = seats
    percent = core_percent(share(seats=wanted, of_seats=of_seats))
    assert 1 <= percent <= 100
    assert (percent == 100) == (wanted == of_seats)


@given(st.integers(1, 100), st.data())
def test_the_seats_of_a_gpu_come_to_at_most_100_percent(of_seats: int, data: st.DataObject) -> None:
    taken: list[int] = []
    while (left := of_seats - sum(taken)) > 0:
        taken.append(data.draw(st.integers(1, left)))
    assert sum(core_percent(share(seats=seats, of_seats=of_seats)) for seats in taken) <= 100


def test_a_share_in_memory_may_use_all_processors() -> None:
    assert core_percent(share(memory=512)) == 100


def test_of_several_gpus_the_smallest_part_counts() -> None:
    assert smallest_core_percent([share(A, seats=1, of_seats=2), share(B, seats=1, of_seats=8)]) == 12


def test_gpus_are_numbered_by_their_place_on_the_bus() -> None:
    shares = [share(C, index=2), share(A, index=0), share(B, index=1)]
    assert [each.card.uuid for each in in_container_order(shares)] == [A, B, C]
