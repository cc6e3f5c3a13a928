from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fracgpu.errors import SettingError
from fracgpu.gpunodes import GpuNodeSpec, PendingShares
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid
from fracgpu.plans import Share
from fracgpu.quantities import Mib
from plugin.gpus.cards import Card, MigPlace
from plugin.gpus.layout import MAX_MESSAGE_BYTES, check_message_size, device_list, settle, shares_of, wanted_spec
from plugin.wishes import GpuWish
from tests.plugin.builders import A, B, make_gpu, make_spec, seats, units

CARD = Card(A, 0, "NVIDIA L4", Mib(23034), numa_node=1)
GPUS = st.sampled_from([A, B])


def node_spec(found: list[Card], *, unit: Mib, replicas: int, reserved: Mib) -> GpuNodeSpec:
    """All GPUs alike."""
    return wanted_spec(found, {card.uuid: GpuWish(replicas, reserved) for card in found}, unit=unit)


def cards_of(spec: GpuNodeSpec) -> list[Card]:
    return [Card(gpu.uuid, gpu.index, gpu.product, gpu.memory) for gpu in spec.gpus]


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
        check_message_size(node_spec(cards(8, 81559), unit=Mib(1), replicas=4, reserved=Mib(0)))
    sentence = str(caught.value)
    assert "652472 devices" in sentence
    assert "4 MiB" in sentence
    advised = int(sentence.partition("--memory-unit-mib to ")[2].split()[0])
    check_message_size(node_spec(cards(8, 81559), unit=Mib(advised), replicas=4, reserved=Mib(0)))
    with pytest.raises(SettingError):
        check_message_size(node_spec(cards(8, 81559), unit=Mib(advised // 2), replicas=4, reserved=Mib(0)))


def test_more_seats_than_units_cannot_be_used() -> None:
    (gpu,) = node_spec(cards(1, 40960), unit=Mib(16384), replicas=4, reserved=Mib(0)).gpus
    assert not gpu.healthy
    assert "40 GiB are 2 units of 16384 MiB after 0 MiB reserved, too few for 4 seats" in gpu.problem


def test_numa_hints_are_in_the_list_where_asked_for() -> None:
    spec = wanted_spec([CARD], {A: GpuWish(1, Mib(0))}, unit=Mib(512), numa_hints=True)
    devices = device_list(spec, RESOURCE_MEMORY).devices
    assert {tuple(node.ID for node in device.topology.nodes) for device in devices} == {(1,)}


def test_a_mig_instance_says_what_it_is_a_part_of() -> None:
    card = Card(GpuUuid("MIG-1"), 0, "NVIDIA A100 MIG 1g.10gb", Mib(9728), mig=MigPlace(A, 0, 7, 0))
    (gpu,) = wanted_spec([card], {card.uuid: GpuWish(2, Mib(0))}, unit=Mib(512)).gpus
    assert (gpu.uuid, gpu.parent, gpu.units) == ("MIG-1", A, 19)


def test_shares_follow_from_ids() -> None:
    gpus = {A: make_gpu(A, units=83, replicas=4), B: make_gpu(B)}
    assert shares_of(units(B, 2) + units(A, 3), RESOURCE_MEMORY, gpus) == (Share(A, 3), Share(B, 2))
    assert shares_of(seats(A, 2), RESOURCE_REPLICA, gpus) == (Share(A, 40, 2),)
    assert shares_of(seats(A, 4), RESOURCE_REPLICA, gpus) == (Share(A, 83, 4),), "all seats are the whole GPU"


HELD = make_spec(make_gpu(A, replicas=4), make_gpu(B, replicas=4))
BOTH = cards_of(HELD)


def wishes(replicas: int, *, reserved: int = 0) -> dict[GpuUuid, GpuWish]:
    return {gpu: GpuWish(replicas, Mib(reserved)) for gpu in (A, B)}


def shown(spec: GpuNodeSpec) -> list[tuple[GpuUuid, int, int, PendingShares | None]]:
    return [(gpu.uuid, gpu.units, gpu.replicas, gpu.pending) for gpu in spec.gpus]


def test_what_nobody_holds_changes_at_once_and_the_rest_when_it_is_given_back() -> None:
    changed = settle(HELD, BOTH, wishes(2, reserved=512), unit=Mib(512), held={A})
    assert shown(changed) == [(A, 80, 4, PendingShares(79, 2)), (B, 79, 2, None)]
    assert shown(settle(changed, BOTH, wishes(2, reserved=512), unit=Mib(512), held={A})) == shown(changed)
    assert shown(settle(changed, BOTH, wishes(2, reserved=512), unit=Mib(512), held=())) == [
        (A, 79, 2, None),
        (B, 79, 2, None),
    ]
    assert settle(changed, BOTH, wishes(4), unit=Mib(512), held={A}) == HELD, "nothing waits for what is there"


def test_another_unit_waits_for_the_whole_node() -> None:
    waiting = settle(HELD, BOTH, wishes(4), unit=Mib(256), held={B})
    assert (waiting.memory_unit, waiting.pending_memory_unit) == (512, 256)
    assert shown(waiting) == [(A, 80, 4, PendingShares(160, 4)), (B, 80, 4, PendingShares(160, 4))]
    done = settle(waiting, BOTH, wishes(4), unit=Mib(256), held=())
    assert (done.memory_unit, done.pending_memory_unit) == (256, None)
    assert shown(done) == [(A, 160, 4, None), (B, 160, 4, None)]


def test_an_excluded_gpu_stays_for_those_who_hold_it_and_takes_nobody() -> None:
    without = {A: GpuWish(4, Mib(0), excluded=True), B: GpuWish(4, Mib(0))}
    (b, a) = settle(HELD, BOTH, without, unit=Mib(512), held={A}).gpus
    assert (a.uuid, a.healthy, a.units) == (A, False, 80)
    assert "excluded from sharing" in a.problem
    assert [gpu.uuid for gpu in settle(HELD, BOTH, without, unit=Mib(512), held=()).gpus] == [B]
    assert b.uuid == B


def test_a_gpu_that_is_gone_or_does_not_tell_its_size_keeps_its_devices_unhealthy() -> None:
    (a, b) = settle(HELD, [BOTH[0], Card(B, 1, "", Mib(0), problem="lost")], wishes(4), unit=Mib(512), held=()).gpus
    assert (a.healthy, b.healthy, b.units, b.problem) == (True, False, 80, "lost")
    (a, b) = settle(HELD, BOTH[:1], wishes(4), unit=Mib(512), held={B}).gpus
    assert (b.uuid, b.healthy, b.units) == (B, False, 80)
    assert "does not find" in b.problem
    assert len(settle(HELD, BOTH[:1], wishes(4), unit=Mib(512), held=()).gpus) == 1


@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([0, 700]), st.sampled_from([256, 512]), st.sets(GPUS)),
        min_size=1,
        max_size=8,
    )
)
def test_no_step_changes_the_size_of_what_is_held(steps: list[tuple[int, int, int, set[GpuUuid]]]) -> None:
    spec = HELD
    for replicas, reserved, unit, held in steps:
        after = settle(spec, BOTH, wishes(replicas, reserved=reserved), unit=Mib(unit), held=held)
        before = {gpu.uuid: (spec.memory_unit, gpu.units, gpu.replicas) for gpu in spec.gpus}
        now = {gpu.uuid: (after.memory_unit, gpu.units, gpu.replicas) for gpu in after.gpus}
        assert all(now[gpu] == before[gpu] for gpu in held)
        assert all(gpu.units * after.memory_unit <= gpu.memory for gpu in after.gpus)
        waits = any(gpu.pending for gpu in after.gpus)
        assert held or not waits
        spec = after
    final = settle(spec, BOTH, wishes(replicas, reserved=reserved), unit=Mib(unit), held=())
    assert final == wanted_spec(BOTH, wishes(replicas, reserved=reserved), unit=Mib(unit))


def test_a_gpu_that_comes_back_smaller_than_what_is_held_takes_nobody_until_that_has_ended() -> None:
    smaller = [Card(A, 0, "NVIDIA A100", Mib(20480)), BOTH[1]]
    (a, b) = settle(HELD, smaller, wishes(4), unit=Mib(512), held={A}).gpus
    assert (a.healthy, a.units, b.healthy) == (False, 80, True)
    assert "20 GiB now, less than the 80 units" in a.problem
    (a, _) = settle(HELD, smaller, wishes(4), unit=Mib(512), held=()).gpus
    assert (a.healthy, a.units) == (True, 40)
    (a, _) = settle(HELD, BOTH, wishes(4, reserved=4096), unit=Mib(512), held={A}).gpus
    assert a.healthy, "more reserved memory takes nothing from those who are there"
