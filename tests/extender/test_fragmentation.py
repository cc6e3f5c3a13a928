"""The policy `fragmentation`: which places it takes for a given mix, and that what it keeps is what it would find."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extender.filtering import hold_for, prioritize_nodes
from extender.index import Index
from extender.ledger.claims import Entry
from extender.placement.filling import Fills
from extender.placement.fitting import choose, fits
from extender.placement.fragmentation import Fragmentation
from extender.placement.policies import Policies
from extender.placement.views import GpuView, HostRoom, NodeView
from fracgpu.hosts import HostAmount
from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.pods import Container, ObjectMeta, Pod, PodSpec, Resources
from fracgpu.requests import ContainerRequest, PodRequest
from fracgpu.selectors import GpuSelector
from tests.extender.builders import UNIT, gpu_node, gpu_view, node_view

CORE = 1000


def node(name: str, *free: int, cpu: int | None = None, size: int = 8 * CORE, product: str = "") -> NodeView:
    """A node of GPUs of 80 units, with so much free, and so much CPU left."""
    gpus = (gpu_view(f"GPU-{name}-{n}", free=units, product=product) for n, units in enumerate(free))
    view = node_view(name, *gpus)
    return view if cpu is None else replace(view, host=HostRoom(HostAmount(size, 0), HostAmount(cpu, 0)))


def asking(units: int, *, cpu: int = 0, gpus: int = 1, model: str = "") -> PodRequest:
    selector = GpuSelector(models=(model,)) if model else None
    return PodRequest((ContainerRequest("main", gpus, units, 0, selector=selector),), host=HostAmount(cpu, 0))


def policy_for(mix: Iterable[PodRequest], *nodes: NodeView) -> Fragmentation:
    fills = Fills()
    fills.cluster = lambda: nodes
    for each in mix:
        fills.mix.see(each)
    return Fragmentation(fills)


def best(policy: Fragmentation, wanted: PodRequest, *nodes: NodeView) -> str:
    ranks = {view.name: rank for view in nodes if (rank := policy.rank(view, wanted)) is not None}
    return min(ranks, key=lambda name: (ranks[name], name))


def gpu_of(policy: Fragmentation, wanted: PodRequest, view: NodeView) -> int:
    """Which of the node's GPUs it takes."""
    plan = choose(view, wanted, order=policy.order(view, wanted))
    assert plan is not None
    return int(plan.containers["main"][0].gpu.rpartition("-")[2])


def test_a_piece_that_would_be_useless_is_not_made() -> None:
    """Best fit would take the piece of 50 and leave 20 that nobody asks for."""
    mix = [asking(30), asking(50), asking(30), asking(50)]
    nodes = node("a", 50), node("b", 80)
    policy = policy_for(mix, *nodes)
    assert best(policy, asking(30), *nodes) == "b"
    assert gpu_of(policy, asking(30), node("c", 50, 80)) == 1
    assert gpu_of(policy, asking(50), node("c", 50, 60)) == 0


def test_a_gpu_that_no_cpu_is_left_for_goes_first() -> None:
    """For who asks no CPU: nobody else can use it."""
    mix = [asking(40, cpu=2 * CORE), asking(40)] * 4
    nodes = node("with-cpu", 80, cpu=8 * CORE), node("without", 80, cpu=CORE)
    policy = policy_for(mix, *nodes)
    assert best(policy, asking(40), *nodes) == "without"


def test_cpu_is_taken_where_the_fewest_gpus_wait_for_it() -> None:
    mix = [asking(80, cpu=4 * CORE)] * 4
    nodes = node("two-gpus-left", 80, 80, cpu=8 * CORE), node("one-gpu-left", 80, 0, cpu=8 * CORE)
    policy = policy_for(mix, *nodes)
    assert best(policy, PodRequest((), host=HostAmount(4 * CORE, 0)), *nodes) == "one-gpu-left"


def test_a_model_that_some_ask_for_is_left_to_them() -> None:
    mix = [asking(40), asking(40), asking(40, model="A100")] * 2
    nodes = node("a", 80, product="NVIDIA A100"), node("t", 80, product="Tesla T4")
    policy = policy_for(mix, *nodes)
    assert best(policy, asking(40), *nodes) == "t"


def test_whole_gpus_are_kept_together_for_those_who_ask_for_several() -> None:
    mix = [asking(80, gpus=2), asking(40)] * 4
    nodes = node("both-whole", 80, 80), node("one-whole", 80, 0)
    policy = policy_for(mix, *nodes)
    assert best(policy, asking(40), *nodes) == "one-whole"


def test_equals_are_told_apart_by_what_is_free_and_then_by_cpu() -> None:
    mix = [asking(80)] * 2
    nodes = node("c", 80, 80, cpu=CORE), node("b", 80, 0, cpu=4 * CORE), node("a", 80, 0, cpu=2 * CORE)
    policy = policy_for(mix, *nodes)
    assert [best(policy, asking(80), *nodes), best(policy, asking(80), *nodes[:2])] == ["a", "b"]


def test_a_gpu_that_is_named_is_taken_whichever_its_equals_are() -> None:
    """The GPUs that are alike are weighed as one, and only one of them is wanted."""
    mix = [asking(30), asking(50)] * 2
    view = node("n", 80, 80, 50)
    policy = policy_for(mix, view)
    for uuid in ("GPU-n-0", "GPU-n-1", "GPU-n-2"):
        selector = GpuSelector(uuids=(GpuUuid(uuid),))
        wanted = PodRequest((ContainerRequest("main", 1, 30, 0, selector=selector),))
        assert gpu_of(policy, wanted, view) == int(uuid[-1])
    either = GpuSelector(uuids=(GpuUuid("GPU-n-1"), GpuUuid("GPU-n-2")))
    assert gpu_of(policy, PodRequest((ContainerRequest("main", 1, 30, 0, selector=either),)), view) == 1


def test_whole_gpus_of_different_kinds_are_not_counted_together() -> None:
    mix = [asking(80, gpus=2)] * 4
    pair = node("pair", 80, 80, product="A")
    odd = node_view("odd", gpu_view("GPU-1", free=80, product="A"), gpu_view("GPU-2", free=40, units=40, product="B"))
    policy = policy_for(mix, pair, odd)
    assert best(policy, asking(8), pair, odd) == "odd"


def test_machines_whose_memory_differs_a_little_share_a_grid() -> None:
    """Each grid takes some ten milliseconds, and what a system leaves of a machine's memory is never twice the same."""
    fills = Fills()
    fills.mix.see(asking(40, cpu=CORE))
    gpu = gpu_view("GPU-1", free=80)
    rooms = [HostRoom(HostAmount(96_000, 393_216 - 13 * n), HostAmount(0, 0)) for n in range(50)]
    assert len({id(fills.grid_of(gpu, gpus=8, host=room)) for room in rooms}) <= 2


def test_before_any_request_it_is_the_fullest_node() -> None:
    assert best(policy_for([]), asking(8), node("a", 80, 80), node("b", 80, 10)) == "b"


kinds = st.sampled_from(["", "NVIDIA A100", "Tesla T4"])
gpus = st.builds(
    lambda free, seats, product: gpu_view("", free=free, free_seats=seats, product=product),
    st.sampled_from([-4, 0, 10, 24, 40, 80]),
    st.integers(0, 4),
    kinds,
)
hosts = st.none() | st.builds(
    lambda free: HostRoom(HostAmount(8 * CORE, 1000), HostAmount(*free)),
    st.tuples(st.integers(-CORE, 8 * CORE), st.integers(0, 1000)),
)
requests = st.builds(
    lambda share, count, model, cpu: PodRequest(
        (
            ContainerRequest(
                "main", count, share[0], share[1], selector=GpuSelector(models=(model,)) if model else None
            ),
        ),
        host=HostAmount(cpu, cpu // 10),
    ),
    st.sampled_from([(8, 0), (20, 0), (47, 0), (80, 0), (0, 1), (0, 4)]),
    st.integers(1, 3),
    st.sampled_from(["", "A100"]),
    st.integers(0, 4 * CORE),
)


def named(name: str, found: list[GpuView], host: HostRoom | None) -> NodeView:
    view = node_view(name, *(replace(gpu, uuid=GpuUuid(f"GPU-{name}-{n}")) for n, gpu in enumerate(found)))
    return replace(view, host=host)


nodes = st.lists(st.tuples(st.lists(gpus, min_size=1, max_size=4), hosts), min_size=1, max_size=4).map(
    lambda found: [named(f"n{n}", *each) for n, each in enumerate(found)]
)


@settings(max_examples=200)
@given(nodes, st.lists(requests, max_size=8), requests)
def test_what_is_kept_changes_no_rank_and_each_way_to_it_is_the_same(
    views: list[NodeView], mix: list[PodRequest], wanted: PodRequest
) -> None:
    """The loss of a share of equal GPUs is computed in one pass; of GPUs that are named, place by place."""
    policy = policy_for(mix, *views)
    for view in views:
        for other in (*mix, wanted):
            policy.rank(view, other)
    for view in views:
        rank = policy.rank(view, wanted)
        assert rank == policy_for(mix, *views).rank(view, wanted)
        assert (rank is None) == (not fits(view, wanted))
        if rank is not None:
            assert 1 <= policy.score(rank, view, wanted) <= 9
            plan = choose(view, wanted, order=policy.order(view, wanted))
            assert plan is not None
        (only,) = wanted.containers
        if only.selector is None and only.gpus == 1:
            every = replace(only, selector=GpuSelector(uuids=tuple(gpu.uuid for gpu in view.gpus)))
            assert policy.rank(view, replace(wanted, containers=(every,))) == rank


def pod(name: str, units: int, *, cpu: int) -> Pod:
    resources = Resources(limits={"fracgpu.io/memory": units}, requests={"cpu": f"{cpu}m"})
    return Pod(ObjectMeta(name=name, uid=PodUid(name)), PodSpec(containers=(Container("main", resources),)))


steps = st.one_of(
    st.tuples(st.just("pending"), st.integers(0, 20), st.integers(0, 4000)),
    st.tuples(st.just("running"), st.integers(0, 20), st.integers(0, 4000)),
    st.tuples(st.just("gone"), st.integers(0, 20), st.just(0)),
    st.tuples(st.just("place"), st.sampled_from([8, 20, 47, 80]), st.integers(0, 2000)),
    st.tuples(st.just("end"), st.integers(0, 20), st.just(0)),
    st.tuples(st.just("load"), st.integers(0, 3), st.integers(0, 8000)),
    st.tuples(st.just("host"), st.integers(0, 3), st.sampled_from([0, 4000, 8000])),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=25))
def test_an_index_that_went_through_changes_says_what_a_new_one_says(history: list[tuple[str, int, int]]) -> None:
    index = Index(unit=UNIT)
    names = [NodeName(f"node-{n}") for n in range(4)]
    for name in names:
        index.put_node(gpu_node(name, f"GPU-{name}-a", f"GPU-{name}-b"))
    seen: list[Pod] = []
    loads: dict[PodUid, tuple[NodeName, HostAmount]] = {}
    sizes: dict[NodeName, HostAmount | None] = {}
    for number, (step, which, amount) in enumerate(history):
        if step == "place":
            arriving = pod(f"p{number}", which, cpu=amount)
            seen.append(arriving)
            index.see(arriving)
            node = prioritize_nodes(index, arriving, names).best
            claim = hold_for(index, arriving, node) if node else None
            if claim is not None:
                index.change_claim(arriving.uid, Entry(claim.bound(), 0))
            index.views()
        elif step == "gone":
            loads.pop(PodUid(f"p{which}"), None)
            index.remove_load(PodUid(f"p{which}"))
        elif step in ("pending", "running"):
            where = NodeName("") if step == "pending" else names[which % 4]
            loads[PodUid(f"p{which}")] = where, HostAmount(amount, 0)
            index.put_load(PodUid(f"p{which}"), where, HostAmount(amount, 0))
        elif step == "end":
            index.change_claim(PodUid(f"p{which}"), None)
        elif step == "load":
            loads[PodUid(f"l{number}")] = names[which], HostAmount(amount, 0)
            index.put_load(PodUid(f"l{number}"), names[which], HostAmount(amount, 0))
        else:
            sizes[names[which]] = HostAmount(amount, 0) if amount else None
            index.put_host(names[which], sizes[names[which]])

    fresh = Index(unit=UNIT)
    for name in names:
        fresh.put_node(gpu_node(name, f"GPU-{name}-a", f"GPU-{name}-b"))
    for name, size in sizes.items():
        fresh.put_host(name, size)
    for uid, (name, load) in loads.items():
        fresh.put_load(uid, name, load)
    for uid, entry in index.entries.items():
        fresh.change_claim(uid, entry)
    for each in seen:
        fresh.see(each)
    wanted = pod("wanted", 20, cpu=500)
    assert [index.view(name) for name in names] == [fresh.view(name) for name in names]
    assert list(prioritize_nodes(index, wanted, names).scores) == list(prioritize_nodes(fresh, wanted, names).scores)


def test_what_pods_take_of_a_node_is_counted_once() -> None:
    """While it is bound a pod counts by its claim, and then by where it is."""
    index = Index(unit=UNIT)
    name = NodeName("node-1")
    index.put_node(gpu_node("node-1", "GPU-a"))
    index.put_host(name, HostAmount(8000, 0))
    index.put_load(PodUid("daemon"), name, HostAmount(500, 0))
    arriving = pod("p", 8, cpu=2000)

    def free() -> int | None:
        view = index.view(name)
        return view.host.free.cpu_milli if view and view.host else None

    index.put_load(arriving.uid, NodeName(""), HostAmount(2000, 0))
    assert free() == 7500
    claim = hold_for(index, arriving, name)
    assert claim is not None
    index.change_claim(arriving.uid, Entry(claim, 1))
    assert free() == 5500
    index.put_load(arriving.uid, name, HostAmount(2000, 0))
    assert free() == 5500
    index.remove_load(arriving.uid)
    assert free() == 7500
    index.put_host(name, None)
    assert free() is None


@pytest.mark.parametrize("policy", ["binpack", "spread", "fragmentation"])
def test_every_policy_ranks_a_pod_without_a_gpu(policy: str) -> None:
    """As a replay asks of them."""
    wanted = PodRequest((), policy=policy, host=HostAmount(1000, 0))  # type: ignore[arg-type]
    views = [node("full", 80, 10, cpu=4000), node("empty", 80, 80, cpu=4000)]
    ranks = [Policies().of(wanted).rank(view, wanted) for view in views]
    assert ranks[0] is not None
    assert ranks[1] is not None
    assert (ranks[0] < ranks[1]) == (policy != "spread")
