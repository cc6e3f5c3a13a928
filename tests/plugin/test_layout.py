from __future__ import annotations

from dataclasses import dataclass

import pytest

from fracgpu.errors import SettingError
from fracgpu.gpunodes import GpuNodeSpec, Grant
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid, PodUid
from fracgpu.plans import Share
from fracgpu.quantities import Mib
from plugin.gpus.cards import Card
from plugin.gpus.layout import MAX_MESSAGE_BYTES, device_list, node_spec, refuse_change_under_grants, shares_of
from tests.plugin.builders import A, B, make_gpu, make_spec, seats, units

CARD = Card(A, 0, "NVIDIA L4", Mib(23034), numa_node=1)


def cards(count: int, memory: int) -> list[Card]:
    return [
        Card(GpuUuid(f"GPU-{index:08x}-4820-abfc-e83e-94318197576e"), index, "NVIDIA", Mib(memory))
        for index in range(count)
    ]


def test_a_card_becomes_units_and_seats_rounded_down() -> None:
    (gpu,) = node_spec([CARD], unit=Mib(512), replicas=4, reserved=Mib(300)).gpus
    assert (gpu.units, gpu.replicas, gpu.memory, gpu.healthy, gpu.numa_node) == (44, 4, 23034, True, 1)


def test_one_seat_is_the_whole_gpu() -> None:
    spec = node_spec([CARD], unit=Mib(512), replicas=1, reserved=Mib(0))
    assert [device.ID for device in device_list(spec, RESOURCE_REPLICA).devices] == [f"{A}::r0"]


def test_the_lists_carry_health_and_no_topology() -> None:
    spec = make_spec(make_gpu(A, units=2), make_gpu(B, units=1, healthy=False))
    devices = device_list(spec, RESOURCE_MEMORY).devices
    assert [(device.ID, device.health) for device in devices] == [
        (f"{A}::m0", "Healthy"),
        (f"{A}::m1", "Healthy"),
        (f"{B}::m0", "Unhealthy"),
    ]
    assert not any(device.HasField("topology") for device in devices)
    assert len(device_list(spec, RESOURCE_REPLICA).devices) == 8


def test_a_broken_card_offers_nothing_healthy_and_stops_nobody() -> None:
    spec = node_spec([CARD, Card(B, 1, "", Mib(0), problem="lost")], unit=Mib(512), replicas=4, reserved=Mib(0))
    assert [(gpu.uuid, gpu.units, gpu.healthy) for gpu in spec.gpus] == [(A, 44, True), (B, 0, False)]


@pytest.mark.parametrize(("count", "memory", "unit"), [(8, 81559, 512), (16, 294912, 512), (8, 81559, 16)])
def test_sensible_units_fit_the_kubelets_message(count: int, memory: int, unit: int) -> None:
    spec = node_spec(cards(count, memory), unit=Mib(unit), replicas=4, reserved=Mib(0))
    assert device_list(spec, RESOURCE_MEMORY).ByteSize() <= MAX_MESSAGE_BYTES


def test_a_unit_too_small_is_refused_with_numbers_and_the_advice_works() -> None:
    with pytest.raises(SettingError) as caught:
        node_spec(cards(8, 81559), unit=Mib(1), replicas=4, reserved=Mib(0))
    sentence = str(caught.value)
    assert "652472 devices" in sentence
    assert "4 MiB" in sentence
    advised = int(sentence.partition("--memory-unit-mib to ")[2].split()[0])
    node_spec(cards(8, 81559), unit=Mib(advised), replicas=4, reserved=Mib(0))
    with pytest.raises(SettingError):
        node_spec(cards(8, 81559), unit=Mib(advised // 2), replicas=4, reserved=Mib(0))


def test_more_seats_than_units_are_refused() -> None:
    with pytest.raises(SettingError, match=r"has 2 units of 16384 MiB .* too few for 4 seats"):
        node_spec(cards(1, 40960), unit=Mib(16384), replicas=4, reserved=Mib(0))


def test_shares_follow_from_ids() -> None:
    gpus = {A: make_gpu(A, units=83, replicas=4), B: make_gpu(B)}
    assert shares_of(units(B, 2) + units(A, 3), RESOURCE_MEMORY, gpus) == (Share(A, 3), Share(B, 2))
    assert shares_of(seats(A, 2), RESOURCE_REPLICA, gpus) == (Share(A, 40, 2),)
    assert shares_of(seats(A, 4), RESOURCE_REPLICA, gpus) == (Share(A, 83, 4),), "all seats are the whole GPU"


@dataclass(frozen=True)
class Change:
    before: GpuNodeSpec
    after: GpuNodeSpec
    want_refused: bool


@pytest.mark.parametrize(
    "case",
    {
        "nothing changed": Change(make_spec(), make_spec(), want_refused=False),
        "another unit": Change(make_spec(), GpuNodeSpec(Mib(256), (make_gpu(A, units=160),)), want_refused=True),
        "other replicas": Change(make_spec(), make_spec(make_gpu(A, replicas=2)), want_refused=True),
        "only on a GPU that nobody holds": Change(
            make_spec(), make_spec(make_gpu(A), make_gpu(B, replicas=2)), want_refused=False
        ),
        "the GPU does not answer": Change(
            make_spec(), make_spec(make_gpu(A, units=0, healthy=False)), want_refused=False
        ),
        "the GPU is gone": Change(make_spec(), make_spec(make_gpu(B)), want_refused=False),
    }.items(),
    ids=lambda case: case[0],
)
def test_a_change_of_units_waits_until_nothing_is_held(case: tuple[str, Change]) -> None:
    grants = [Grant(PodUid("u"), "team-a", "x", {"main": (Share(A, 8),)})]
    if case[1].want_refused:
        with pytest.raises(SettingError, match="team-a/x still holds"):
            refuse_change_under_grants(case[1].before, case[1].after, grants)
    else:
        refuse_change_under_grants(case[1].before, case[1].after, grants)
    refuse_change_under_grants(case[1].before, case[1].after, [])
