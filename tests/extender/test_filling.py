"""The expected fill: against a plain recursion, and against what random arrivals really fill."""

import random
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.placement.filling import CELLS, PARTS, Fills, GpuKind, demand_of, make_grid, scaled
from extender.placement.mix import FULL, Ask, Mix, asks_of
from fracgpu.hosts import NOTHING, HostAmount
from fracgpu.names import GpuUuid
from fracgpu.quantities import Mib
from fracgpu.requests import ContainerRequest, PodRequest
from fracgpu.selectors import GpuSelector
from tests.extender.builders import gpu_view, node_view, request

HOST = HostAmount(8000, 64_000)
KIND = GpuKind("A100", Mib(0), 100, 4, 2, HOST)


def ask(units: int, *, cpu: int = 0, gpus: int = 1, seats: int = 0, model: str = "") -> Ask:
    selector = GpuSelector(models=(model,)) if model else None
    return Ask(gpus, units, seats, None, selector, HostAmount(cpu, 0))


def fill(weights: dict[Ask, float], *, hazard: float, kind: GpuKind = KIND) -> list[list[float]]:
    return make_grid(kind, weights, weights=weights, hazard=hazard).rows


@given(
    sizes=st.dictionaries(
        st.tuples(st.integers(1, 60), st.integers(0, 4000)), st.floats(0.05, 1), min_size=1, max_size=4
    ),
    free=st.integers(0, PARTS),
    cells=st.integers(0, 2 * CELLS),
    hazard=st.floats(0.01, 1),
)
def test_the_grid_is_the_recursion(sizes: dict[tuple[int, int], float], free: int, cells: int, hazard: float) -> None:
    weights = {ask(units, cpu=cpu): weight for (units, cpu), weight in sizes.items()}

    @cache
    def value(parts: int, left: int) -> float:
        fitting = [
            (weight, units, -(-cpu * 2 * CELLS // HOST.cpu_milli))
            for (units, cpu), weight in sizes.items()
            if units <= parts and -(-cpu * 2 * CELLS // HOST.cpu_milli) <= left
        ]
        if not fitting:
            return 0.0
        amount = sum(weight * (units + value(parts - units, left - taken)) for weight, units, taken in fitting)
        return amount / (sum(weight for weight, _, _ in fitting) + hazard)

    assert fill(weights, hazard=hazard)[free][cells] == pytest.approx(value(free, cells))


def test_the_fill_is_what_random_arrivals_fill() -> None:
    """Without a hazard a piece waits until nothing fits: draw requests for many pieces, and look."""
    weights = {ask(47): 0.3, ask(81): 0.4, ask(19): 0.1, ask(32): 0.2}
    rng = random.Random(1)
    filled = 0
    for _ in range(4000):
        free = 100
        while free >= 19:
            units = rng.choices([each.units for each in weights], list(weights.values()))[0]
            if units <= free:
                free -= units
        filled += 100 - free
    assert fill(weights, hazard=1e-9)[100][0] == pytest.approx(filled / 4000, rel=0.01)


def test_a_piece_that_only_rare_requests_fit_is_worth_little() -> None:
    rows = fill({ask(80): 0.99, ask(20): 0.01}, hazard=0.98)
    assert rows[20][0] < 1 < 40 < rows[80][0]


def test_a_gpu_without_cpu_is_worth_nothing() -> None:
    rows = fill({ask(50, cpu=4000): 1.0}, hazard=0.5)
    assert rows[100][CELLS - 1] == 0
    assert rows[100][CELLS] > 0


@pytest.mark.parametrize(
    ("asked", "want"),
    [
        (ask(1), (1, 0)),
        (ask(101), None),
        (ask(0, seats=1), (25, 0)),
        (ask(0, seats=5), None),
        (ask(100, model="A100"), (100, 0)),
        (ask(100, model="H100"), None),
        (ask(50, cpu=8000), (50, 16)),
        (ask(50, cpu=8001), None),
        (ask(100, cpu=8000, gpus=2), (100, 8)),
        (ask(100, gpus=3), None),
    ],
)
def test_what_a_request_takes_of_a_gpu(asked: Ask, want: tuple[int, int] | None) -> None:
    found = demand_of(asked, KIND)
    assert (found and (found.parts, found.cells)) == want


def test_what_few_gpus_can_take_comes_by_those_more_often() -> None:
    other = KIND._replace(product="T4", units=40)
    weights = {ask(30): 0.5, ask(60): 0.3, ask(60, model="H100"): 0.2}
    found = scaled(weights, {KIND: 1, other: 3})
    assert found == pytest.approx({ask(30): 0.5, ask(60): 1.2, ask(60, model="H100"): 0.2})


def test_the_mix_counts_containers_and_shares_the_pods_cpu_among_their_gpus() -> None:
    pod = PodRequest((ContainerRequest("a", 2, 40, 0), ContainerRequest("b", 1, 10, 0)), host=HostAmount(6000, 3000))
    assert asks_of(pod) == [
        Ask(2, 40, 0, None, None, HostAmount(4000, 2000)),
        Ask(1, 10, 0, None, None, HostAmount(2000, 1000)),
    ]


def test_weights_change_as_the_number_of_requests_doubles() -> None:
    mix = Mix()
    seen = []
    for number in range(1, 10):
        mix.see(request(8 if number % 2 else 16))
        seen.append(mix.weights)
    assert [seen[n] is not seen[n - 1] for n in range(1, 9)] == [True, False, True, False, False, False, True, False]
    assert seen[-1] == {
        Ask(1, 8, 0, None, None, NOTHING): 0.5,
        Ask(1, 16, 0, None, None, NOTHING): 0.5,
    }


def test_what_was_seen_long_ago_fades() -> None:
    mix = Mix()
    for _ in range(FULL):
        mix.see(request(8))
    for _ in range(FULL // 2):
        mix.see(request(16))
    assert sorted(mix.weights.values()) == [0.5, 0.5]
    for _ in range(FULL // 2):
        mix.see(request(16))
    assert mix.weights[Ask(1, 16, 0, None, None, NOTHING)] == 0.75


def test_requests_that_were_seen_once_fade_too_and_do_not_vanish_at_once() -> None:
    """A cluster of many kinds of requests still has a mix when it is full."""
    mix = Mix()
    for number in range(FULL):
        mix.see(request(1 + number))
    assert len(mix.weights) == 512
    assert sum(mix.weights.values()) == pytest.approx(1)
    for _ in range(2 * FULL):
        mix.see(request(8))
    assert max(mix.weights.values()) > 0.9


def test_a_tenants_odd_selections_are_one_kind() -> None:
    """Each pattern is compared with each model: a flood of them must not hold up the others."""
    mix = Mix()
    for number in range(64):
        models = tuple(f"{number}*{term}" for term in range(9))
        selector = GpuSelector(models=models, uuids=(GpuUuid(f"GPU-{number}"),))
        mix.see(PodRequest((ContainerRequest("main", 1, 8, 0, selector=selector),)))
    mix.see(PodRequest((ContainerRequest("main", 1, 8, 0, selector=GpuSelector(models=("A" * 300,))),)))
    for number in range(63):
        mix.see(
            PodRequest((ContainerRequest("main", 1, 8, 0, selector=GpuSelector(uuids=(GpuUuid(f"GPU-{number}"),))),))
        )
    assert mix.weights == {Ask(1, 8, 0, None, None, NOTHING): 1.0}


def test_a_mix_of_another_kind_is_another_fill() -> None:
    fills = Fills()
    gpu = gpu_view("GPU-a", free=80)
    view = node_view("n", gpu)
    fills.cluster = lambda: (view,)
    fills.mix.see(request(80))
    assert fills.grid_of(gpu, gpus=1, host=None).rows[50][0] == 0
    fills.mix.see(request(20))
    assert fills.grid_of(gpu, gpus=1, host=None).rows[50][0] > 0
