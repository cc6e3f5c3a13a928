"""A plan's annotation form, and its sums."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fracgpu.errors import PlanError
from fracgpu.names import GpuUuid
from fracgpu.plans import Plan, Share, decode_plan, encode_plan, sum_shares
from fracgpu.quantities import Mib
from tests.vocabulary.unhurried import unhurried

uuids = st.sampled_from([GpuUuid(f"GPU-{letter}") for letter in "abc"])
shares = st.builds(Share, uuids, st.integers(0, 200), st.integers(0, 16))
plans = st.builds(
    Plan,
    st.integers(1, 4096).map(Mib),
    st.dictionaries(st.text(max_size=8), st.lists(shares, max_size=4).map(tuple), max_size=3),
)


@unhurried
@given(plans)
def test_a_plan_is_read_as_it_was_written(plan: Plan) -> None:
    assert decode_plan(encode_plan(plan)) == plan


def test_the_form_of_the_annotation() -> None:
    """Bound pods of other versions carry it: a change is a change of format."""
    plan = Plan(Mib(512), {"main": (Share(GpuUuid("GPU-a"), 8), Share(GpuUuid("GPU-b"), 8, 2))})

    assert encode_plan(plan) == (
        '{"unitMiB":512,"containers":{"main":'
        '[{"gpu":"GPU-a","units":8,"seats":0},{"gpu":"GPU-b","units":8,"seats":2}]}}'
    )


def test_a_plan_with_fields_of_later_versions_is_read() -> None:
    text = '{"unitMiB":512,"later":1,"containers":{"main":[{"gpu":"GPU-a","units":8,"later":[]}]}}'

    assert decode_plan(text) == Plan(Mib(512), {"main": (Share(GpuUuid("GPU-a"), 8, 0),)})


UNREADABLE = {
    "nothing": "",
    "no JSON": "GPU-a:8",
    "a list": "[]",
    "an empty object": "{}",
    "no containers": '{"unitMiB":512}',
    "a share without units": '{"unitMiB":512,"containers":{"main":[{"gpu":"GPU-a"}]}}',
    "units in words": '{"unitMiB":512,"containers":{"main":[{"gpu":"GPU-a","units":"8"}]}}',
    "units in pieces": '{"unitMiB":512,"containers":{"main":[{"gpu":"GPU-a","units":8.5}]}}',
    "negative units": '{"unitMiB":512,"containers":{"main":[{"gpu":"GPU-a","units":-8}]}}',
    "negative seats": '{"unitMiB":512,"containers":{"main":[{"gpu":"GPU-a","units":8,"seats":-1}]}}',
    "a unit of nothing": '{"unitMiB":0,"containers":{}}',
    "half a surrogate": '{"unitMiB":512,"containers":{"\ud800":[]}}',
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_no_plan(text: str) -> None:
    with pytest.raises(PlanError):
        decode_plan(text)


@unhurried
@given(st.text(max_size=40))
def test_any_text_is_a_plan_or_an_error_of_ours(text: str) -> None:
    with pytest.raises(PlanError):
        decode_plan(text)


@unhurried
@given(st.lists(shares, max_size=12))
def test_sums_lose_nothing_and_keep_the_order_of_the_gpus(listed: list[Share]) -> None:
    total = sum_shares(listed)

    assert list(total) == list(dict.fromkeys(share.gpu for share in listed))
    for gpu, summed in total.items():
        own = [share for share in listed if share.gpu == gpu]
        assert summed == Share(gpu, sum(share.units for share in own), sum(share.seats for share in own))


def test_what_a_pod_takes_of_each_gpu() -> None:
    a, b = GpuUuid("GPU-a"), GpuUuid("GPU-b")
    plan = Plan(Mib(512), {"main": (Share(a, 8, 1), Share(b, 8, 1)), "side": (Share(a, 2, 1),)})

    assert plan.per_gpu() == {a: Share(a, 10, 2), b: Share(b, 8, 1)}
