"""Quantities are exact; units are rounded up for requests and down for capacity."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fracgpu.errors import QuantityError
from fracgpu.quantities import (
    Mib,
    capacity_units,
    format_mib,
    parse_count,
    parse_quantity,
    seat_units,
    units_for,
)
from tests.vocabulary.quantity_cases import INVALID, OUT_OF_RANGE, STRICTER, VALID
from tests.vocabulary.unhurried import unhurried

SUFFIXES: dict[str, int | Fraction] = {
    "": 1, "m": Fraction(1, 1000), "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30,
}  # fmt: skip
units_of_memory = st.integers(1, 2**14).map(Mib)


@pytest.mark.parametrize(("text", "want"), VALID.items(), ids=VALID)
def test_a_quantity(text: str, want: Fraction | int) -> None:
    assert parse_quantity(text) == want


@pytest.mark.parametrize("text", [*INVALID, *STRICTER, *OUT_OF_RANGE], ids=repr)
def test_no_quantity(text: str) -> None:
    with pytest.raises(QuantityError):
        parse_quantity(text)


@unhurried
@given(st.integers(-(10**12), 10**12), st.integers(0, 10**6), st.sampled_from(sorted(SUFFIXES)))
def test_decimals_with_suffixes_are_exact(whole: int, millionths: int, suffix: str) -> None:
    text = f"{whole}.{millionths:07d}{suffix}"

    sign = -1 if text.startswith("-") else 1
    assert parse_quantity(text) == sign * (abs(whole) + Fraction(millionths, 10**7)) * SUFFIXES[suffix]


@unhurried
@given(st.text(max_size=80))
def test_any_text_is_a_quantity_or_a_short_error(text: str) -> None:
    try:
        parse_quantity(text)
    except QuantityError as exc:
        assert len(str(exc)) < 500  # noqa: PT017 (most texts raise, some do not)


COUNTS = {
    "a number": (16, 16),
    "a string": ("16", 16),
    "a whole float": (16.0, 16),
    "a large float, which JSON writes with an exponent": (1e22, 10**22),
    "thousands": ("1k", 1000),
    "binary thousands": ("2Ki", 2048),
    "an exponent": ("1e3", 1000),
    "thousandths that make a whole": ("3000m", 3),
    "zero": ("0", 0),
    "minus zero": (-0.0, 0),
}  # case -> value, count


@pytest.mark.parametrize(("value", "want"), COUNTS.values(), ids=COUNTS)
def test_a_count(value: str | int | float, want: int) -> None:
    assert parse_count(value) == want


@pytest.mark.parametrize("value", [-1, "-1", 0.5, "1500m", "1n", float("nan"), float("inf"), "four", "", 10**70])
def test_no_count(value: str | int | float) -> None:
    with pytest.raises(QuantityError):
        parse_count(value)


@unhurried
@given(st.fractions(0, 2**50), units_of_memory)
def test_a_request_takes_the_least_units_that_hold_it(size: Fraction, unit: Mib) -> None:
    taken = units_for(size, unit=unit)

    unit_bytes = unit * 2**20
    assert (taken - 1) * unit_bytes < size <= taken * unit_bytes


@unhurried
@given(st.integers(0, 2**20), st.integers(0, 2**20), units_of_memory)
def test_a_gpu_offers_the_most_units_that_its_free_memory_holds(total: int, reserved: int, unit: Mib) -> None:
    offered = capacity_units(Mib(total), reserved=Mib(reserved), unit=unit)

    free = max(0, total - reserved)
    assert offered * unit <= free < (offered + 1) * unit


@pytest.mark.parametrize(
    ("total", "reserved", "want"), [(40960, 0, 80), (15360, 0, 30), (23034, 0, 44), (23034, 600, 43), (512, 1024, 0)]
)
def test_units_of_real_cards(total: int, reserved: int, want: int) -> None:
    assert capacity_units(Mib(total), reserved=Mib(reserved), unit=Mib(512)) == want


@unhurried
@given(st.integers(1, 64), st.integers(0, 500), st.data())
def test_seats_of_a_gpu_never_take_more_units_than_it_has(replicas: int, units: int, data: st.DataObject) -> None:
    parts: list[int] = []
    while sum(parts) < replicas:
        parts.append(data.draw(st.integers(1, replicas - sum(parts))))

    assert sum(seat_units(part, replicas=replicas, units=units) for part in parts) <= units


def test_all_seats_take_all_units_though_they_do_not_divide() -> None:
    assert [seat_units(seats, replicas=4, units=30) for seats in (1, 2, 3, 4)] == [7, 14, 21, 30]


@pytest.mark.parametrize(
    ("size", "want"),
    [
        (0, "0 MiB"),
        (512, "512 MiB"),
        (1023, "1023 MiB"),
        (1024, "1 GiB"),
        (1536, "1.5 GiB"),
        (10240, "10 GiB"),
        (12288, "12 GiB"),
        (23034, "22.49 GiB"),
        (102400, "100 GiB"),
        (-2048, "-2 GiB"),
    ],
)
def test_sizes_for_people(size: int, want: str) -> None:
    assert format_mib(size) == want
