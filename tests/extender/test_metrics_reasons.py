"""Why pods wait, as it is counted."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from extender.exposition.reasons import Extremes, WaitReason, Waits, kind_of, plain_units
from extender.placement.views import NodeView
from fracgpu.names import GpuUuid
from fracgpu.requests import ContainerRequest, PodRequest
from fracgpu.selectors import GpuSelector
from tests.extender.builders import gpu_view, node_view, request

A100, T4 = GpuSelector(models=("A100",)), GpuSelector(models=("T4",))
FULL = node_view("full", gpu_view("a", free=0), gpu_view("b", free=0))
IN_PIECES = node_view("in-pieces", gpu_view("a", free=10), gpu_view("b", free=10))
EMPTY = node_view("empty", gpu_view("a", free=80))
ILL = node_view("ill", gpu_view("a", free=80, usable=False))
CARDS = node_view("cards", gpu_view("a", free=10, product="Tesla T4"))


def waiting(request: PodRequest, *views: NodeView, ahead: Sequence[NodeView] = ()) -> WaitReason:
    waits = Waits(request)
    waits.look(views)
    waits.look_ahead(ahead)
    return waits.reason


def selecting(selector: GpuSelector, units: int, *, gpus: int = 1) -> PodRequest:
    return PodRequest((ContainerRequest("main", gpus, units, 0, selector=selector),))


PLAIN = {
    "a free piece is large enough": (10, [FULL, IN_PIECES], WaitReason.ROOM),
    "two pieces together are": (20, [FULL, IN_PIECES], WaitReason.FRAGMENTED),
    "pieces of two nodes are no sum": (11, [node_view("n", gpu_view("a", free=10)), CARDS], WaitReason.NO_ROOM),
    "nothing is free": (1, [FULL], WaitReason.NO_ROOM),
    "an ill GPU would do": (80, [ILL], WaitReason.NO_ROOM),
    "no GPU is so large": (81, [EMPTY, IN_PIECES], WaitReason.TOO_LARGE),
    "there is no GPU": (1, [], WaitReason.NO_SUCH_GPU),
}


@pytest.mark.parametrize(("units", "views", "want"), PLAIN.values(), ids=PLAIN)
def test_memory_of_one_gpu(units: int, views: list[NodeView], want: WaitReason) -> None:
    extremes = Extremes()
    for view in views:
        extremes.look(view)

    assert extremes.reason(units) is want
    assert waiting(request(units), *views) is want  # the walk over all nodes comes to the same


OTHERS = {
    "a model that is not there": (selecting(A100, 1), [CARDS], WaitReason.NO_SUCH_GPU),
    "a model that is full": (selecting(T4, 11), [CARDS], WaitReason.NO_ROOM),
    "a model that is too small": (selecting(T4, 81), [CARDS, EMPTY], WaitReason.TOO_LARGE),
    "a model in pieces": (
        selecting(T4, 15),
        [node_view("n", gpu_view("a", free=10, product="Tesla T4"), gpu_view("b", free=10, product="Tesla T4"))],
        WaitReason.FRAGMENTED,
    ),
    "other models do not count to the sum": (
        selecting(T4, 15),
        [node_view("n", gpu_view("a", free=10, product="Tesla T4"), gpu_view("b", free=10, product="A100"))],
        WaitReason.NO_ROOM,
    ),
    "two GPUs of which one is full": (
        request(10, gpus=2),
        [node_view("n", gpu_view("a", free=0), gpu_view("b", free=30))],
        WaitReason.FRAGMENTED,
    ),
    "more GPUs than any node has": (request(1, gpus=3), [IN_PIECES], WaitReason.TOO_LARGE),
    "seats that are taken": (
        request(seats=2),
        [node_view("n", gpu_view("a", free=80, free_seats=1))],
        WaitReason.NO_ROOM,
    ),
    "seats that lie apart": (
        request(seats=2),
        [node_view("n", gpu_view("a", free=40, free_seats=1), gpu_view("b", free=40, free_seats=1))],
        WaitReason.FRAGMENTED,
    ),
    "seats whose memory is taken": (
        request(seats=1),
        [node_view("n", gpu_view("a", free=10, free_seats=4))],
        WaitReason.NO_ROOM,
    ),
}


@pytest.mark.parametrize(("asked", "views", "want"), OTHERS.values(), ids=OTHERS)
def test_other_requests(asked: PodRequest, views: list[NodeView], want: WaitReason) -> None:
    assert waiting(asked, *views) is want


def test_room_that_comes_with_what_is_about_to_be_settled() -> None:
    assert waiting(selecting(T4, 20), CARDS, ahead=[CARDS]) is WaitReason.NO_ROOM
    emptied = node_view("cards", gpu_view("a", free=80, product="Tesla T4"))
    assert waiting(selecting(T4, 20), CARDS, ahead=[emptied]) is WaitReason.SETTLING


def test_nodes_of_one_kind_may_hold_single_gpus_that_are_named() -> None:
    named = GpuSelector(uuids=(GpuUuid("GPU-b"),))
    first, second = (node_view(name, gpu_view(f"GPU-{name}", free=0)) for name in "ab")
    assert waiting(selecting(named, 10), first) is WaitReason.NO_SUCH_GPU
    assert waiting(selecting(named, 10), first, second) is WaitReason.NO_ROOM


def test_which_requests_are_plain() -> None:
    assert plain_units(request(8), has_split=False) == 8
    for other in (request(8, gpus=2), request(seats=1), selecting(T4, 8)):
        assert plain_units(other, has_split=False) is None
    assert plain_units(request(8), has_split=True) is None  # what is free is not all that the kubelet would offer


def test_requests_are_of_one_kind_whatever_their_containers_are_called() -> None:
    (only,) = request(8).containers
    renamed = PodRequest((replace(only, container="other"),))
    assert kind_of(renamed) == kind_of(request(8))
    assert kind_of(request(9)) != kind_of(request(8))
