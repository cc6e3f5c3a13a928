"""Placement where the kubelet knows NUMA nodes: a plan is what the kubelet will let the pod have."""

from itertools import combinations, product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extender.index import Index
from extender.ledger.claims import Claim, ClaimState, Entry
from extender.placement.binpack import Binpack
from extender.placement.explaining import explain, why_not
from extender.placement.fitting import choose, could_be, could_ever_fit, fits
from extender.placement.numa import affinity
from extender.placement.victims import Candidate, choose_victims
from extender.placement.views import GpuView, NodeView
from fracgpu.gpunodes import Gpu, GpuNode, GpuNodeSpec, GpuNodeStatus
from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.plans import Plan, Share
from fracgpu.pods import ObjectMeta
from fracgpu.quantities import Mib
from fracgpu.requests import ContainerRequest, PodRequest
from fracgpu.selectors import GpuSelector
from tests.extender.builders import UNIT, gpu_view, node_view, request
from tests.extender.kubelet_numa import Device, Manager

# Small numbers, so that counts meet their limits often. Nodes 0 to 3, which need not all have GPUs.
UNITS, SEATS = 6, 3
NUMA = st.sampled_from([0, 0, 1, 1, 2, 3])


@st.composite
def gpus(draw: st.DrawFn, *, numa: st.SearchStrategy[int | None] = NUMA) -> list[GpuView]:
    """GPUs from which memory pods and seat pods have taken something."""
    found = []
    for number in range(draw(st.integers(1, 5))):
        taken_seats = draw(st.integers(0, SEATS))
        seat_units = UNITS if taken_seats == SEATS else taken_seats * (UNITS // SEATS)
        taken_units = draw(st.integers(0, UNITS - seat_units))
        node = draw(numa)
        found.append(
            gpu_view(
                f"GPU-{number}",
                units=UNITS,
                seats=SEATS,
                free=UNITS - seat_units - taken_units,
                free_seats=SEATS - taken_seats,
                usable=draw(st.integers(0, 5)) > 0,
                numa=node,
                seat_units=0 if node is None else seat_units,
            )
        )
    return found


@st.composite
def requests(draw: st.DrawFn, *, containers: int) -> PodRequest:
    seats = draw(st.booleans())
    most = SEATS if seats else UNITS
    return PodRequest(
        tuple(
            ContainerRequest(
                f"c{number}",
                draw(st.integers(1, 3)),
                units=0 if seats else (amount := draw(st.integers(1, most))),
                seats=draw(st.integers(1, most)) if seats else 0 * amount,
            )
            for number in range(draw(st.integers(1, containers)))
        )
    )


def kubelet(view: NodeView, wanted: PodRequest) -> Manager:
    """The kubelet's books on the resource that the pod asks for."""
    seats = bool(wanted.containers[0].seats)
    devices: dict[str, list[Device]] = {
        gpu.uuid: [(gpu.uuid, n) for n in range(gpu.replicas if seats else gpu.units)] for gpu in view.gpus
    }
    given: set[Device] = set()
    for gpu in view.gpus:
        # What seats have taken of the memory is no device of the memory resource.
        free = gpu.free_seats if seats else gpu.free_units + _seat_units(gpu)
        given |= set(devices[gpu.uuid][free:])
    return Manager(
        all_devices={device for of_gpu in devices.values() for device in of_gpu},
        healthy={device for gpu in view.gpus if gpu.usable for device in devices[gpu.uuid]},
        allocated=given,
        nodes={gpu.uuid: gpu.numa_node for gpu in view.gpus},
        machine=(0, 1, 2, 3),
    )


def _seat_units(gpu: GpuView) -> int:
    taken = gpu.replicas - gpu.free_seats
    return gpu.units if taken == gpu.replicas else taken * (gpu.units // gpu.replicas)


def is_given(plan: Plan, view: NodeView, wanted: PodRequest) -> bool:
    """Whether the kubelet gives each container just what is planned, asked by a plugin that prefers the plan."""
    manager = kubelet(view, wanted)
    for container in wanted.containers:
        shares = {share.gpu: share.seats or share.units for share in plan.containers[container.container]}

        def prefer(available: object, must: object, shares: dict[GpuUuid, int] = shares) -> set[Device]:
            assert isinstance(available, (set, frozenset))
            return {
                device
                for gpu, count in shares.items()
                for device in sorted(found for found in available if found[0] == gpu)[:count]
            }

        got = manager.admit(sum(shares.values()), prefer=prefer)
        if got is None or {gpu: sum(of == gpu for of, _ in got) for gpu in {of for of, _ in got}} != shares:
            return False
    return True


def all_plans(view: NodeView, wanted: PodRequest) -> list[Plan]:
    """Every plan for which there is room, whatever the kubelet says."""
    found = []
    ways = [list(combinations(view.gpus, container.gpus)) for container in wanted.containers]
    for chosen in product(*ways):
        plan = Plan(
            view.unit,
            {
                container.container: tuple(gpu.share_for(container) for gpu in gpus)
                for container, gpus in zip(wanted.containers, chosen, strict=True)
            },
        )
        if could_be(plan, wanted, view.anywhere()):
            found.append(plan)
    return found


@given(st.dictionaries(st.integers(0, 5), st.integers(0, 6), max_size=4), st.integers(1, 20))
@example({0: 3, 1: 3, 2: 3, 3: 1}, 4)  # {1, 2} is a lower number than {0, 3}
@example({0: 3, 1: 1, 2: 1, 3: 3}, 6)
def test_the_affinity_is_what_the_kubelet_merges_from_all_its_hints(free: dict[int, int], wanted: int) -> None:
    view = node_view("n", *(gpu_view(f"GPU-{node}", free=count, numa=node) for node, count in free.items()))
    manager = kubelet(view, request(wanted))
    manager.machine = tuple(range(6))
    hints = manager._hints(wanted)
    found = affinity(free, wanted=wanted)
    if not hints:
        assert found is None
    else:
        assert found is not None
        assert manager._merge(hints).affinity == sum(1 << node for node in found)


@settings(max_examples=400)
@given(gpus(numa=st.one_of(NUMA, st.none())), requests(containers=3))
def test_a_plan_is_what_the_kubelet_gives(found: list[GpuView], wanted: PodRequest) -> None:
    view = node_view("n", *found)
    plan = choose(view, wanted)
    assert fits(view, wanted) == (plan is not None) == (Binpack().rank(view, wanted) is not None)
    if plan is not None:
        assert could_be(plan, wanted, view)
        assert is_given(plan, view, wanted)


@settings(max_examples=300)
@given(gpus(), requests(containers=2))
def test_what_the_kubelet_would_give_is_found(found: list[GpuView], wanted: PodRequest) -> None:
    view = node_view("n", *found)
    given = [plan for plan in all_plans(view, wanted) if is_given(plan, view, wanted)]
    assert fits(view, wanted) == bool(given)
    assert all(could_be(plan, wanted, view) == (plan in given) for plan in all_plans(view, wanted))


@given(gpus(), requests(containers=2))
def test_a_sentence_can_be_said_of_every_refusal(found: list[GpuView], wanted: PodRequest) -> None:
    view = node_view("n", *found)
    if not fits(view, wanted):
        assert why_not(view, wanted)
        assert not explain([view], wanted, unit=UNIT).room_on
        assert ("the kubelet takes" in why_not(view, wanted)) == (fits(view.anywhere(), wanted))


@given(gpus(), requests(containers=2), st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), max_size=5))
def test_victims_make_the_kubelet_give_it(
    found: list[GpuView], wanted: PodRequest, pods: list[tuple[int, int]]
) -> None:
    view = node_view("n", *found)
    candidates: list[Candidate] = []
    for number, (on, units) in enumerate(pods):
        gpu = view.gpus[on % len(view.gpus)]
        held = sum(pod.shares[gpu.uuid].units for pod in candidates if gpu.uuid in pod.shares)
        if held + units <= gpu.units - gpu.free_units - gpu.seat_units:
            candidates.append(Candidate(PodUid(f"pod-{number}"), shares={gpu.uuid: Share(gpu.uuid, units)}))
    victims = choose_victims(view, wanted, candidates, allowed={})
    if victims is not None:
        gone = [Share(share.gpu, -share.units) for pod in victims.pods for share in pod.shares.values()]
        after = view.without(gone)
        plan = choose(after, wanted)
        assert plan is not None
        assert is_given(plan, after, wanted)


LOW_FULL = node_view(
    "node-1",
    gpu_view("GPU-a", free=10, numa=0),
    gpu_view("GPU-b", free=10, numa=0),
    gpu_view("GPU-c", free=80, numa=1),
)


@pytest.mark.parametrize(
    ("wanted", "want_gpus"),
    [
        pytest.param(request(10), ["GPU-a"], id="the first NUMA node has it"),
        pytest.param(request(12), None, id="the first NUMA node has as many free, but on two GPUs"),
        pytest.param(request(21), ["GPU-c"], id="the first NUMA node has too few"),
        pytest.param(request(10, gpus=2), ["GPU-a", "GPU-b"], id="two GPUs of the first"),
        pytest.param(request(30, gpus=2), None, id="the second has enough, on one GPU"),
        pytest.param(request(10, gpus=3), None, id="three GPUs, and the second NUMA node has as much by itself"),
        pytest.param(request(seats=2), None, id="seats are free where their memory is not"),
    ],
)
def test_choice_of_gpus(wanted: PodRequest, want_gpus: list[str] | None) -> None:
    plan = choose(LOW_FULL, wanted)
    assert (plan and [share.gpu for share in plan.containers["main"]]) == want_gpus
    assert could_ever_fit(LOW_FULL, wanted)


def test_more_than_any_numa_node_has_is_taken_from_several() -> None:
    view = node_view("n", *(gpu_view(f"GPU-{n}", free=80, numa=n) for n in range(3)))
    plan = choose(view, request(80, gpus=2))
    assert plan is not None
    assert set(plan.per_gpu()) == {"GPU-0", "GPU-1"}


def test_containers_are_admitted_one_after_the_other() -> None:
    """The first takes what is left on NUMA node 0, and so the second is sent on."""
    view = node_view("n", gpu_view("GPU-a", free=10, numa=0), gpu_view("GPU-b", free=80, numa=1))
    small_first = PodRequest((ContainerRequest("sidecar", 1, 4, 0), ContainerRequest("main", 1, 8, 0)))
    plan = choose(view, small_first)
    assert plan is not None
    assert {name: [share.gpu for share in shares] for name, shares in plan.containers.items()} == {
        "sidecar": ["GPU-a"],
        "main": ["GPU-b"],
    }
    swapped = Plan(plan.unit, {"sidecar": (Share(GpuUuid("GPU-b"), 4),), "main": (Share(GpuUuid("GPU-a"), 8),)})
    assert not could_be(swapped, small_first, view)
    assert could_be(swapped, small_first, view.anywhere())


def test_gpus_of_one_numa_node_are_not_chosen_between() -> None:
    assert not node_view("n", gpu_view("GPU-a", free=1, numa=1), gpu_view("GPU-b", free=80, numa=1)).is_split
    assert not node_view("n", gpu_view("GPU-a", free=1), gpu_view("GPU-b", free=80)).is_split


def test_a_gpu_without_numa_node_is_reached_when_nothing_is_left_on_the_others() -> None:
    def beside(free: int) -> NodeView:
        return node_view("n", gpu_view("GPU-a", free=free, numa=0), gpu_view("GPU-b", free=80))

    assert choose(beside(0), request(8)) == Plan(UNIT, {"main": (Share(GpuUuid("GPU-b"), 8),)})
    assert choose(beside(4), request(8)) is None  # the kubelet would take the 4, and 4 more
    assert choose(beside(8), request(8)) == Plan(UNIT, {"main": (Share(GpuUuid("GPU-a"), 8),)})


@pytest.mark.parametrize(
    ("view", "wanted", "want"),
    [
        pytest.param(
            LOW_FULL,
            request(12),
            "needs 6 GiB on one GPU; its free GPU is on NUMA node 1, and the kubelet takes NUMA node 0 first",
            id="one",
        ),
        pytest.param(
            LOW_FULL,
            request(10, gpus=3),
            "needs 5 GiB on each of 3 GPUs; its free GPUs are on NUMA nodes 0, 1, and the kubelet takes NUMA node 1 "
            "first",
            id="several",
        ),
        pytest.param(
            node_view("node-1", gpu_view("GPU-a", free=4, numa=0), gpu_view("GPU-b", free=80)),
            request(8),
            "needs 4 GiB on one GPU; its free GPU is on no known NUMA node, and the kubelet takes NUMA node 0 first",
            id="one without a NUMA node",
        ),
        pytest.param(
            LOW_FULL,
            PodRequest((ContainerRequest("main", 1, 8, 0, selector=GpuSelector(uuids=(GpuUuid("GPU-c"),))),)),
            "needs 4 GiB on one GPU (GPU-c); its free GPU is on NUMA node 1, and the kubelet takes NUMA node 0 first",
            id="one that is asked for by name",
        ),
        pytest.param(
            LOW_FULL,
            PodRequest((ContainerRequest("a", 1, 12, 0), ContainerRequest("b", 1, 1, 0))),
            "needs 6 GiB on one GPU for 'a' and 512 MiB on one GPU for 'b'; there is room, but not on the NUMA nodes "
            "that the kubelet takes first",
            id="several containers",
        ),
        pytest.param(
            LOW_FULL, request(81), "needs 40.5 GiB on one GPU; the largest free piece is 40 GiB", id="no room anyway"
        ),
    ],
)
def test_reasons(view: NodeView, wanted: PodRequest, want: str) -> None:
    assert why_not(view, wanted) == want
    assert explain([view], wanted, unit=UNIT).reason.startswith(f"{want}, on node-1")


def test_victims_are_sought_where_the_kubelet_will_look() -> None:
    """Room is on GPU-c, but the kubelet offers NUMA node 0: only there an eviction helps."""
    view = node_view(
        "n",
        gpu_view("GPU-a", free=10, numa=0),
        gpu_view("GPU-b", free=10, numa=0),
        gpu_view("GPU-c", free=11, numa=1),
    )
    there = Candidate(PodUid("there"), priority=5, shares={GpuUuid("GPU-b"): Share(GpuUuid("GPU-b"), 2)})
    other = Candidate(PodUid("other"), priority=1, shares={GpuUuid("GPU-c"): Share(GpuUuid("GPU-c"), 30)})
    assert choose_victims(view, request(12), [other], allowed={}) is None
    found = choose_victims(view, request(12), [there, other], allowed={})
    assert found is not None
    assert [pod.uid for pod in found.pods] == ["there"]


def announced(*, hints: bool) -> GpuNode:
    gpus = tuple(
        Gpu(GpuUuid(uuid), n, "Test GPU", Mib(40960), 80, 4, numa_node=numa)
        for n, (uuid, numa) in enumerate((("GPU-a", 0), ("GPU-b", 1)))
    )
    return GpuNode(ObjectMeta(name="node-1"), GpuNodeSpec(UNIT, gpus, numa_hints=hints), GpuNodeStatus("1"))


def test_the_index_shows_what_the_kubelet_counts() -> None:
    """A pod of seats leaves the memory devices of its GPU free in the kubelet's books, and a pod of memory does not."""
    index = Index()
    for uid, share in {"seats": Share(GpuUuid("GPU-a"), 60, 3), "memory": Share(GpuUuid("GPU-a"), 8)}.items():
        plan = Plan(UNIT, {"main": (share,)})
        claim = Claim(PodUid(uid), "team-a", uid, NodeName("node-1"), ClaimState.BOUND, plan)
        index.change_claim(PodUid(uid), Entry(claim, deadline_ms=0))
    index.put_node(announced(hints=True))
    view = index.view(NodeName("node-1"))
    assert view is not None
    assert [(gpu.free_units, gpu.seat_units, gpu.numa_node) for gpu in view.gpus] == [(12, 60, 0), (80, 0, 1)]
    assert not fits(view, request(72))  # the kubelet sees 72 free on GPU-a
    assert fits(view, request(73))

    index.put_node(announced(hints=False))
    view = index.view(NodeName("node-1"))
    assert view is not None
    assert not view.is_split
    assert fits(view, request(72))
