"""Placement on plain views: what fits, which GPU, which node first, and the sentence when nothing does."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.placement.binpack import Binpack
from extender.placement.explaining import explain, why_not
from extender.placement.fitting import choose, could_be, could_ever_fit, fits
from extender.placement.policies import Policies
from extender.placement.spread import Spread
from extender.placement.views import NodeView
from fracgpu.annotations import PLACEMENT_POLICIES, PlacementPolicy
from fracgpu.names import GpuUuid
from fracgpu.plans import Plan, Share
from fracgpu.quantities import Mib
from fracgpu.requests import ContainerRequest, PodRequest
from fracgpu.selectors import GpuSelector
from tests.extender.builders import UNIT, gpu_view, node_view, request

NODE = node_view("node-1", gpu_view("GPU-a", free=80), gpu_view("GPU-b", free=10), gpu_view("GPU-c", free=24))


@pytest.mark.parametrize(
    ("wanted", "want_gpus"),
    [
        pytest.param(request(8), ["GPU-b"], id="the fullest GPU with room"),
        pytest.param(request(10), ["GPU-b"], id="a piece that fits exactly"),
        pytest.param(request(11), ["GPU-c"], id="the next larger piece"),
        pytest.param(request(81), None, id="more than any GPU, though the sum would do"),
        pytest.param(request(20, gpus=2), ["GPU-a", "GPU-c"], id="two different GPUs"),
        pytest.param(request(20, gpus=3), None, id="three GPUs where two have room"),
        pytest.param(request(seats=1), ["GPU-c"], id="a seat takes its quarter of the memory too"),
        pytest.param(request(seats=4), ["GPU-a"], id="all seats are the whole GPU"),
        pytest.param(request(seats=1, replicas=8), None, id="seats of another replica count"),
        pytest.param(request(seats=5), None, id="more seats than a GPU has"),
    ],
)
def test_choice_of_gpus(wanted: PodRequest, want_gpus: list[str] | None) -> None:
    plan = choose(NODE, wanted)
    assert (plan and [share.gpu for share in plan.containers["main"]]) == want_gpus
    assert fits(NODE, wanted) == (want_gpus is not None)


def test_an_unhealthy_gpu_and_an_overdrawn_gpu_take_nothing() -> None:
    view = node_view("node-1", gpu_view("GPU-a", free=80, usable=False), gpu_view("GPU-b", free=-4))
    assert choose(view, request(1)) is None
    assert view.pieces == (0,)
    assert could_ever_fit(view, request(80))


def test_containers_that_fit_only_in_one_way_are_placed_that_way() -> None:
    view = node_view("node-1", gpu_view("GPU-a", free=8), gpu_view("GPU-b", free=8))
    sizes = [4, 3, 3, 2, 2, 2]  # best fit alone would put 4+3 together and strand a 2
    wanted = PodRequest(tuple(ContainerRequest(f"c{n}", 1, size, 0) for n, size in enumerate(sizes)))
    plan = choose(view, wanted)
    assert plan is not None
    assert {share.units for share in plan.per_gpu().values()} == {8}


def test_what_fits_is_placed_whatever_the_policy_takes_first() -> None:
    """Filter looks by best fit, and gives up as late as the others do: what it lets through has to find a place."""
    free = [140, 127, 106, 49, 93, 129, 94, 116]
    view = node_view("node-1", *(gpu_view(f"GPU-{n}", free=units, units=160) for n, units in enumerate(free)))
    sizes = [60, 75, 75, 40, 75, 40, 90, 75, 75, 75]
    wanted = PodRequest(tuple(ContainerRequest(f"c{n}", 1, size, 0) for n, size in enumerate(sizes)), policy="spread")
    assert fits(view, wanted)
    assert Spread().rank(view, wanted) is not None
    plan = choose(view, wanted, order=Spread().order(view, wanted))
    assert plan is not None
    assert could_be(plan, wanted, view)


def test_many_equal_gpus_are_no_maze() -> None:
    """Of sets of equals one is tried: 32 GPUs have 600 million sets of 16, and a tenant may ask for them."""
    view = node_view("node-1", *(gpu_view(f"GPU-{n}", free=80) for n in range(32)))
    hopeless = PodRequest((ContainerRequest("a", 16, 8, 0), ContainerRequest("b", 1, 90, 0)))
    assert choose(view, hopeless) is None
    plan = choose(view, PodRequest((ContainerRequest("a", 16, 80, 0), ContainerRequest("b", 16, 80, 0))))
    assert plan is not None
    assert len(plan.per_gpu()) == 32


@pytest.mark.parametrize(
    ("plan", "want"),
    [
        pytest.param(Plan(UNIT, {"main": (Share(GpuUuid("GPU-a"), 8),)}), True, id="what is asked"),
        pytest.param(Plan(UNIT, {"main": (Share(GpuUuid("GPU-a"), 1),)}), False, id="less than is asked"),
        pytest.param(Plan(UNIT, {"other": (Share(GpuUuid("GPU-a"), 8),)}), False, id="another container"),
        pytest.param(Plan(UNIT, {"main": (Share(GpuUuid("GPU-d"), 8),)}), False, id="a GPU that is not there"),
        pytest.param(Plan(UNIT, {"main": (Share(GpuUuid("GPU-a"), 8, 1),)}), False, id="seats that are not asked"),
        pytest.param(Plan(Mib(256), {"main": (Share(GpuUuid("GPU-a"), 8),)}), False, id="another unit"),
        pytest.param(
            Plan(UNIT, {"main": (Share(GpuUuid("GPU-a"), 4), Share(GpuUuid("GPU-c"), 4))}), False, id="in pieces"
        ),
    ],
)
def test_a_held_plan_is_taken_only_if_it_is_what_the_pod_asks(plan: Plan, want: bool) -> None:
    assert could_be(plan, request(8), NODE) is want


@given(
    free=st.lists(st.integers(-5, 20), min_size=1, max_size=5),
    wanted=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 12)), min_size=1, max_size=3),
)
def test_a_plan_never_takes_more_than_is_free(free: list[int], wanted: list[tuple[int, int]]) -> None:
    view = node_view("n", *(gpu_view(f"GPU-{n}", free=units, units=20) for n, units in enumerate(free)))
    ask = PodRequest(tuple(ContainerRequest(f"c{n}", gpus, units, 0) for n, (gpus, units) in enumerate(wanted)))
    plan = choose(view, ask)
    assert fits(view, ask) == (plan is not None)
    if plan is None:
        return
    assert could_be(plan, ask, view)
    taken = plan.per_gpu()
    assert all(taken[gpu.uuid].units <= gpu.free_units for gpu in view.gpus if gpu.uuid in taken)
    for container in ask.containers:
        shares = plan.containers[container.container]
        assert len({share.gpu for share in shares}) == container.gpus
        assert {share.units for share in shares} == {container.units}


def test_the_tighter_fit_ranks_first_and_scores_higher() -> None:
    tight, full_node, empty = (
        node_view("tight", gpu_view("GPU-a", free=10), gpu_view("GPU-b", free=80)),
        node_view("full", gpu_view("GPU-c", free=10)),
        node_view("empty", gpu_view("GPU-d", free=80)),
    )
    ranks = [Binpack().rank(view, request(8)) for view in (full_node, tight, empty)]
    assert ranks == [(2, 10), (2, 90), (72, 80)]  # left over on the GPU, then on the node
    scores = [Binpack().score(rank, empty, request(8)) for rank in ranks if rank]
    assert 9 >= scores[0] == scores[1] > scores[2] >= 1
    assert Binpack().rank(node_view("n", gpu_view("GPU-a", free=7)), request(8)) is None


@given(
    free=st.lists(st.tuples(st.integers(-5, 20), st.integers(-1, 4)), min_size=1, max_size=5),
    units=st.integers(0, 12),
    seats=st.integers(1, 4),
    gpus=st.integers(1, 3),
    policy=st.sampled_from(PLACEMENT_POLICIES),
)
def test_a_rank_is_that_of_the_chosen_plan(
    free: list[tuple[int, int]], units: int, seats: int, gpus: int, policy: PlacementPolicy
) -> None:
    view = node_view("n", *(gpu_view(f"GPU-{n}", free=u, units=20, free_seats=s) for n, (u, s) in enumerate(free)))
    wanted = replace(request(units, gpus=gpus) if units else request(seats=seats, gpus=gpus), policy=policy)
    chosen = Policies().of(wanted)
    plan, rank = choose(view, wanted, order=chosen.order(view, wanted)), chosen.rank(view, wanted)
    assert (plan is None) == (rank is None) == (not fits(view, wanted))
    if plan is not None and rank is not None:
        if policy != "fragmentation":
            taken = plan.per_gpu()
            left = sum(gpu.free_units - taken[gpu.uuid].units for gpu in view.gpus if gpu.uuid in taken)
            assert rank[0] == (-left if policy == "spread" else left)
        assert 1 <= chosen.score(rank, view, wanted) <= 9


def test_spread_takes_the_emptiest_gpu_of_the_emptiest_node() -> None:
    wanted = replace(request(8), policy="spread")
    views = [
        node_view("full", gpu_view("GPU-a", free=10)),
        node_view("mixed", gpu_view("GPU-b", free=80), gpu_view("GPU-c", free=10)),
        node_view("empty", gpu_view("GPU-d", free=80), gpu_view("GPU-e", free=80)),
    ]
    ranks = [rank for view in views if (rank := Spread().rank(view, wanted))]
    assert sorted(ranks) == [ranks[2], ranks[1], ranks[0]]
    scores = [Spread().score(rank, view, wanted) for rank, view in zip(ranks, views, strict=True)]
    assert scores[0] < scores[1] == scores[2]
    plan = choose(views[1], wanted, order=Spread().order(views[1], wanted))
    assert plan is not None
    assert plan.containers["main"][0].gpu == "GPU-b"


def test_the_administrator_sets_the_policy_of_pods_that_name_none() -> None:
    assert isinstance(Policies("spread").of(request(8)), Spread)
    assert isinstance(Policies("spread").of(replace(request(8), policy="binpack")), Binpack)


def test_containers_that_want_different_gpus_get_them() -> None:
    """Two GPUs that are equally full are not equally good: the later container takes only one of them."""
    view = node_view("n", gpu_view("GPU-a", free=80, product="A100"), gpu_view("GPU-b", free=80, product="T4"))
    for first, second in (("A100", "T4"), ("T4", "A100")):
        wanted = PodRequest(
            (
                ContainerRequest("any", 1, 60, 0),
                ContainerRequest("choosy", 1, 50, 0, selector=GpuSelector(models=(first,))),
            )
        )
        plan = choose(view, wanted)
        assert plan is not None
        chosen = {name: shares[0].gpu for name, shares in plan.containers.items()}
        products = {gpu.uuid: gpu.product for gpu in view.gpus}
        assert {name: products[gpu] for name, gpu in chosen.items()} == {"choosy": first, "any": second}


def test_the_reason_says_which_container_wants_which_gpu() -> None:
    wanted = PodRequest(
        (
            ContainerRequest("a", 1, 8, 0, selector=GpuSelector(models=("H100",))),
            ContainerRequest("b", 1, 8, 0, selector=GpuSelector(min_memory=40960)),
        )
    )
    assert why_not(MODELS, wanted) == (
        "needs 4 GiB on one GPU for 'a' (model H100) and 4 GiB on one GPU for 'b' (with at least 40 GiB in all); "
        "its GPUs are NVIDIA A10, NVIDIA A100-SXM4-80GB, Tesla T4"
    )


MODELS = node_view(
    "node-1",
    gpu_view("GPU-a", free=80, product="NVIDIA A100-SXM4-80GB"),
    gpu_view("GPU-b", free=10, product="NVIDIA A10"),
    gpu_view("GPU-c", free=40, product="Tesla T4"),
)


@pytest.mark.parametrize(
    ("selector", "want"),
    [
        (GpuSelector(models=("a10",)), "GPU-b"),
        (GpuSelector(models=("A100*",)), "GPU-a"),
        (GpuSelector(models=("t?", "A100-SXM4-*")), "GPU-c"),
        (GpuSelector(not_models=("A10",)), "GPU-c"),
        (GpuSelector(uuids=(GpuUuid("GPU-a"),)), "GPU-a"),
        (GpuSelector(not_uuids=(GpuUuid("GPU-b"), GpuUuid("GPU-c"))), "GPU-a"),
        (GpuSelector(models=("H100",)), None),
        (GpuSelector(models=("A",)), None),
    ],
)
def test_only_acceptable_gpus_are_chosen(selector: GpuSelector, want: str | None) -> None:
    wanted = PodRequest((ContainerRequest("main", 1, 8, 0, selector=selector),))
    plan = choose(MODELS, wanted)
    assert (plan and plan.containers["main"][0].gpu) == want
    assert fits(MODELS, wanted) == could_ever_fit(MODELS, wanted) == (want is not None)
    assert (Binpack().rank(MODELS, wanted) is None) == (want is None)


def test_the_reason_names_the_models_asked_and_had() -> None:
    wanted = PodRequest((ContainerRequest("main", 1, 8, 0, selector=GpuSelector(models=("H100",))),))
    sentence = "needs 4 GiB on one GPU (model H100); its GPUs are NVIDIA A10, NVIDIA A100-SXM4-80GB, Tesla T4"
    assert why_not(MODELS, wanted) == sentence
    small = PodRequest((ContainerRequest("main", 1, 20, 0, selector=GpuSelector(models=("A10",))),))
    assert why_not(MODELS, small) == "needs 10 GiB on one GPU (model A10); the largest free piece is 5 GiB"


CLUSTER = [
    node_view("node-1", gpu_view("GPU-a", free=8), gpu_view("GPU-b", free=16)),
    node_view("node-2", gpu_view("GPU-c", free=24), gpu_view("GPU-d", free=24)),
]


@pytest.mark.parametrize(
    ("wanted", "want"),
    [
        pytest.param(
            request(40), "needs 20 GiB on one GPU; the largest free piece is 12 GiB, on node-2", id="fragmented"
        ),
        pytest.param(
            request(81),
            "needs 40.5 GiB on one GPU; the largest free piece is 12 GiB, on node-2; "
            "no node could hold it even when empty: the largest GPU has 40 GiB",
            id="larger than any GPU",
        ),
        pytest.param(
            request(16, gpus=3),
            "needs 8 GiB on each of 3 GPUs; 2 GPUs of 2 with that much free, on node-2; "
            "no node could hold it even when empty: "
            "the most GPUs on one node are 2, and the largest GPU has 40 GiB",
            id="more GPUs than a node has",
        ),
        pytest.param(
            request(30, gpus=2),
            "needs 15 GiB on each of 2 GPUs; 0 GPUs of 2 with that much free, on node-1",
            id="too few GPUs with room",
        ),
        pytest.param(
            request(seats=2),
            "needs 2 seats on one GPU; the largest free piece is 8 GiB, on node-1",
            id="seats without memory",
        ),
        pytest.param(request(8), "needs 4 GiB on one GPU; there is room on node-1, node-2", id="it fits"),
    ],
)
def test_the_reason_in_a_sentence(wanted: PodRequest, want: str) -> None:
    assert explain(CLUSTER, wanted, unit=UNIT).reason == want


def test_the_reason_for_one_node() -> None:
    assert why_not(CLUSTER[1], request(40)) == "needs 20 GiB on one GPU; the largest free piece is 12 GiB"
    assert why_not(node_view("n", gpu_view("GPU-a", free=80, usable=False)), request(1)) == "has no healthy GPU"


def test_a_cluster_without_nodes_says_so() -> None:
    nobody: list[NodeView] = []
    assert "no node has announced GPUs" in explain(nobody, request(8), unit=UNIT).reason
