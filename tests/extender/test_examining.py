"""One node, GPU by GPU, for one pod: what there is room for, what is missing, and how that is said."""

import pytest

from extender.placement.explaining import examine, why_not
from extender.placement.fitting import could_ever_fit, fits
from extender.placement.views import GpuView, NodeView
from fracgpu.names import GpuUuid
from fracgpu.requests import ContainerRequest, PodRequest
from fracgpu.selectors import GpuSelector
from tests.extender.builders import gpu_view, node_view, request

L4_ONLY = PodRequest((ContainerRequest("main", 1, 8, 0, selector=GpuSelector(models=("L4",))),))
UNLIKE = PodRequest((ContainerRequest("model", 1, 40, 0), ContainerRequest("reranker", 1, 4, 0)))


@pytest.mark.parametrize(
    ("gpu", "asked", "want", "want_missing"),
    [
        (gpu_view("GPU-a", free=8), request(8), "", 0),
        (gpu_view("GPU-a", free=8), request(12), "4 GiB free, 2 GiB too little", 4),
        (gpu_view("GPU-a", free=-2), request(12), "0 MiB free, 6 GiB too little", 12),
        (gpu_view("GPU-a", free=8), request(81), "has 40 GiB in all", 73),
        (gpu_view("GPU-a", free=80, usable=False), request(8), "is not usable", 0),
        (gpu_view("GPU-a", free=0, units=0, usable=False), request(8), "offers nothing", 0),
        (gpu_view("GPU-a", free=80, product="Tesla T4"), L4_ONLY, "is not what is asked for", 0),
        (gpu_view("GPU-a", free=4, product="NVIDIA L4"), L4_ONLY, "2 GiB free, 2 GiB too little", 4),
        (gpu_view("GPU-a", free=80, free_seats=1), request(seats=2), "1 of 4 seats free, 1 too few", 0),
        (gpu_view("GPU-a", free=80), request(seats=5), "has 4 seats, and 5 are needed", 0),
        (gpu_view("GPU-a", free=80), request(seats=2, replicas=8), "has 4 seats, and 8 are counted on", 0),
        # All four seats are free, but memory was given away without them.
        (gpu_view("GPU-a", free=10), request(seats=2), "5 GiB free, 15 GiB too little", 30),
    ],
)
def test_a_gpu_says_what_it_lacks(gpu: GpuView, asked: PodRequest, want: str, want_missing: int) -> None:
    view = node_view("node-1", gpu)

    (found,) = examine(view, asked).gpus

    assert (found.problem, found.missing_units) == (want, want_missing)
    assert bool(found.room_for) == (not want) == fits(view, asked)


def test_of_several_containers_those_with_room_are_named() -> None:
    view = node_view("node-1", gpu_view("GPU-a", free=8), gpu_view("GPU-b", free=2))

    found = examine(view, UNLIKE)

    roomy, full = found.gpus
    assert (roomy.room_for, roomy.problem) == (("reranker",), "4 GiB free, 16 GiB too little for 'model'")
    # Of two that do not fit, the one that needs the least is told: it is the nearest to fitting.
    assert (full.room_for, full.problem, full.missing_units) == ((), "1 GiB free, 1 GiB too little", 2)
    assert found.could_ever
    assert found.problem == why_not(view, UNLIKE)


def test_a_node_where_every_gpu_alone_would_do_has_a_problem_all_the_same() -> None:
    view = node_view("node-1", gpu_view("GPU-a", free=80))

    found = examine(view, request(8, gpus=2))

    assert [gpu.problem for gpu in found.gpus] == [""]
    assert found.problem == "needs 4 GiB on each of 2 GPUs; 1 GPU of 1 with that much free"
    assert not found.could_ever


def test_it_agrees_with_placement_on_a_node_of_several_numa_nodes() -> None:
    gpus = (gpu_view("GPU-a", free=4, numa=0, seat_units=40), gpu_view("GPU-b", free=80, numa=1))
    view, asked = node_view("node-1", *gpus), request(8)

    found = examine(view, asked)

    assert view.is_split
    assert not fits(view, asked)
    assert could_ever_fit(view, asked)
    assert found.could_ever
    assert found.problem == why_not(view, asked)
    assert [gpu.gpu.uuid for gpu in found.gpus if gpu.room_for] == [GpuUuid("GPU-b")]


def test_a_node_without_gpus_is_told_as_such() -> None:
    found = examine(NodeView.of(node_view("n").name, unit=node_view("n").unit, gpus=()), request(8))

    assert (found.problem, found.gpus, found.could_ever) == ("has no healthy GPU", (), False)
