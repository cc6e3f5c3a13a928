"""Device IDs name their GPU, and only ours are read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fracgpu.device_ids import DeviceId, count_by_gpu, parse_device_id
from fracgpu.errors import DeviceIdError
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid
from tests.vocabulary.unhurried import unhurried

UUID = GpuUuid("GPU-fef8089b-4820-abfc-e83e-94318197576e")


def test_the_form_of_an_id() -> None:
    """The kubelet's checkpoint holds IDs across our restarts and upgrades: a change is a change of format."""
    assert str(DeviceId(UUID, RESOURCE_MEMORY, 17)) == f"{UUID}::m17"
    assert str(DeviceId(UUID, RESOURCE_REPLICA, 0)) == f"{UUID}::r0"


@unhurried
@given(
    st.from_regex(r"(GPU|MIG)-[0-9a-f-]{1,40}", fullmatch=True).map(GpuUuid),
    st.sampled_from([RESOURCE_MEMORY, RESOURCE_REPLICA]),
    st.integers(0, 999_999_999),
)
def test_an_id_is_read_as_it_was_written(gpu: GpuUuid, resource: str, number: int) -> None:
    device = DeviceId(gpu, resource, number)

    assert parse_device_id(str(device)) == device


@pytest.mark.parametrize(
    "text",
    [
        "",
        UUID,
        f"{UUID}::",
        f"{UUID}::17",
        f"{UUID}::m",
        f"{UUID}::m01",
        f"{UUID}::m-1",
        f"{UUID}::m1 ",
        f"{UUID}::m1\n",
        f"{UUID}::x1",
        f"{UUID}::M1",
        f"{UUID}:m1",
        f"{UUID}::m1000000000",
        f"{UUID}::m١",
        "::m1",
    ],
    ids=repr,
)
def test_no_id(text: str) -> None:
    with pytest.raises(DeviceIdError):
        parse_device_id(text)


def test_ids_are_counted_by_gpu() -> None:
    assert count_by_gpu(["GPU-a::m1", "GPU-b::m1", "GPU-a::m7", "GPU-a::r0"]) == {"GPU-a": 3, "GPU-b": 1}
    assert count_by_gpu([]) == {}


def test_a_foreign_id_is_not_counted_in_silence() -> None:
    with pytest.raises(DeviceIdError, match="nvidia0"):
        count_by_gpu(["GPU-a::m1", "nvidia0"])
