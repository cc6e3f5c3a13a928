from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from fracgpu.device_ids import count_by_gpu
from fracgpu.errors import DeviceIdError
from fracgpu.names import RESOURCE_MEMORY, GpuUuid
from plugin.granting.admission import AdmissionError
from plugin.granting.steering import best_fit, planned_ids
from tests.plugin.builders import A, B, C, units


def test_a_plan_is_followed_exactly_and_always_alike() -> None:
    available = units(A, 20) + units(B, 20)
    want = (*units(B, 3), *units(A, 2))
    for seed in range(5):
        random.Random(seed).shuffle(available)
        assert planned_ids(available, [], {B: 3, A: 2}, resource=RESOURCE_MEMORY) == want


def test_what_must_be_included_is() -> None:
    must = units(A, 1, start=17)
    assert planned_ids(units(A, 20), must, {A: 3}, resource=RESOURCE_MEMORY) == (*must, *units(A, 2))


def test_a_plan_that_cannot_be_followed_is_refused_with_numbers() -> None:
    with pytest.raises(AdmissionError, match=f"planned on {A} with 8 units, and the kubelet has 4 units of it left"):
        planned_ids(units(A, 4) + units(B, 80), [], {A: 8}, resource=RESOURCE_MEMORY)
    with pytest.raises(AdmissionError, match=f"insists on devices of {B}, .* \\(2 units on {A}\\)"):
        planned_ids(units(A, 4) + units(B, 4), units(B, 1), {A: 2}, resource=RESOURCE_MEMORY)
    with pytest.raises(DeviceIdError):
        planned_ids([f"{A}::17"], [], {A: 1}, resource=RESOURCE_MEMORY)


@dataclass(frozen=True)
class Fit:
    available: Sequence[str]
    room: Mapping[GpuUuid, int]
    want: Mapping[GpuUuid, int] | None
    gpus: int = 1
    per_gpu: int = 8
    must: Sequence[str] = ()


@pytest.mark.parametrize(
    "case",
    {
        "the fullest GPU that still fits": Fit(
            [*units(A, 80), *units(B, 20), *units(C, 4)], {A: 80, B: 20, C: 4}, {B: 8}
        ),
        "memory really free, not only IDs": Fit([*units(A, 80), *units(B, 20)], {A: 80, B: 4}, {A: 8}),
        "an unhealthy GPU has no room": Fit([*units(A, 20), *units(B, 80)], {B: 80}, {B: 8}),
        "never split one share over two": Fit([*units(A, 7), *units(B, 7)], {A: 7, B: 7}, None),
        "two GPUs as asked": Fit(
            [*units(A, 80), *units(B, 20), *units(C, 40)], {A: 80, B: 20, C: 40}, {B: 8, C: 8}, gpus=2
        ),
        "one of two GPUs is missing": Fit([*units(A, 80), *units(B, 7)], {A: 80, B: 7}, None, gpus=2),
        "where something must be included": Fit(
            [*units(A, 80), *units(B, 20)], {A: 80, B: 20}, {A: 8}, must=units(A, 1)
        ),
        "equal ones by name": Fit([*units(B, 20), *units(A, 20)], {A: 20, B: 20}, {A: 8}),
        "nothing on offer": Fit([], {A: 80}, None),
    }.items(),
    ids=lambda case: case[0],
)
def test_best_fit_without_a_plan(case: tuple[str, Fit]) -> None:
    fit = case[1]

    def choose() -> dict[GpuUuid, int]:
        return best_fit(
            fit.available, fit.must, gpus=fit.gpus, per_gpu=fit.per_gpu, room=fit.room, resource=RESOURCE_MEMORY
        )

    if fit.want is None:
        with pytest.raises(AdmissionError, match=r"asks for 8 units on .*the most that is free"):
            choose()
        return
    assert choose() == fit.want
    ids = planned_ids(fit.available, fit.must, choose(), resource=RESOURCE_MEMORY)
    assert count_by_gpu(ids) == fit.want
