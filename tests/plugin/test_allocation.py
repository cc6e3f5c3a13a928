from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from fracgpu.errors import DeviceIdError, FracgpuError, NoRoomError
from fracgpu.gpunodes import Gpu
from fracgpu.names import ANNOTATION_GPU_COUNT, ANNOTATION_GPU_FRACTION, RESOURCE_MEMORY, RESOURCE_REPLICA
from fracgpu.plans import Share
from fracgpu.pods import Pod
from fracgpu.quantities import Mib
from plugin.granting.admission import AdmissionError, claims_of
from plugin.granting.allocation import check_claim, check_devices, room
from plugin.granting.book import GrantBook
from tests.plugin.builders import UNIT, A, B, C, make_gpu, make_pod, seat_share, seats, units

ASKS_8 = make_pod("x", {"main": [Share(A, 8)]})


@dataclass(frozen=True)
class Case:
    pod: Pod
    ids: Sequence[str]
    want: str = ""  # a piece of the refusal; empty where the devices are given
    error: type[FracgpuError] = AdmissionError
    held: Sequence[tuple[Pod, Sequence[str]]] = ()
    ended: Sequence[str] = ()
    gpus: Sequence[Gpu] = field(default=(make_gpu(A), make_gpu(B)))


def other(name: str = "other") -> Pod:
    return make_pod(name, {"main": []})


@pytest.mark.parametrize(
    "case",
    {
        "exactly the plan": Case(ASKS_8, units(A, 8, start=30)),
        "on another GPU": Case(
            ASKS_8, units(B, 8), f"planned with 8 units on {A}, and the kubelet chose 8 units on {B}"
        ),
        "partly on another GPU": Case(ASKS_8, units(A, 4) + units(B, 4), "chose 4 units on GPU-a and 4 units on GPU-b"),
        "more than the plan": Case(ASKS_8, units(A, 9), "may have 8 units, and the kubelet asks for 9"),
        "units of another size": Case(
            make_pod("x", {"main": [Share(A, 8)]}, unit=Mib(256)), units(A, 8), "planned in units of 256 MiB"
        ),
        "seats of another size": Case(
            make_pod("x", {"main": [seat_share(A, 1, replicas=2)]}),
            seats(A, 1),
            f"planned with 1 seat of {A} that were 40 units then and are 20 now: it was divided anew, into 4 seats",
        ),
        "not ours": Case(ASKS_8, [*units(A, 7), "GPU-a-17"], "not one of fracgpu's", DeviceIdError),
        "seats instead of units": Case(ASKS_8, seats(A, 8), "is not one of the 80 units"),
        "a number that does not exist": Case(ASKS_8, units(A, 8, start=76), "::m8"),
        "a GPU that is gone": Case(make_pod("x", {"main": [Share(C, 8)]}), units(C, 8), "does not have"),
        "a GPU that is sick": Case(ASKS_8, units(A, 8), "unhealthy", gpus=[make_gpu(A, healthy=False)]),
        "the last free units": Case(ASKS_8, units(A, 8), held=[(other(), units(A, 72, start=8))]),
        "one unit too many": Case(
            ASKS_8,
            units(A, 8),
            f"{A} has 7 of 80 units free, and container 'main' of pod team-a/x needs 8: other pods hold the rest",
            NoRoomError,
            held=[(other(), units(A, 73))],
        ),
        "the rest is held by a pod that has ended": Case(
            ASKS_8,
            units(A, 8),
            "has 4 of 80 units free, .* pod team-a/other was deleted or has ended, but its processes have not been "
            "seen to end yet; this pod stays failed",
            NoRoomError,
            held=[(other(), units(A, 76))],
            ended=["uid-other"],
        ),
        "the container's own earlier grant is not in the way": Case(ASKS_8, units(A, 8), held=[(ASKS_8, units(A, 8))]),
        "seats take units with them": Case(
            ASKS_8, units(A, 8), "has 0 of 80 units free", NoRoomError, held=[(other(), seats(A, 4))]
        ),
        "units take seats with them": Case(
            make_pod("x", {"main": [seat_share(A, 2)]}),
            seats(A, 2),
            "has 1 of 4 seats free",
            NoRoomError,
            held=[(other(), units(A, 41))],
        ),
        "seats beside units": Case(
            make_pod("x", {"main": [seat_share(A, 2)]}), seats(A, 2), held=[(other(), units(A, 40))]
        ),
        "the whole GPU": Case(make_pod("x", {"main": [seat_share(A, 4)]}), seats(A, 4)),
        "the whole GPU beside one unit": Case(
            make_pod("x", {"main": [seat_share(A, 4)]}),
            seats(A, 4),
            "has 3 of 4 seats free",
            NoRoomError,
            held=[(other(), units(A, 1))],
        ),
        "without a plan, one GPU": Case(make_pod("x", {"main": [Share(A, 8)]}, has_plan=False), units(B, 8)),
        "without a plan, split over two": Case(
            make_pod("x", {"main": [Share(A, 8)]}, has_plan=False),
            units(A, 4) + units(B, 4),
            "no single GPU has so much free",
        ),
        "without a plan, two GPUs as asked": Case(
            make_pod("x", {"main": [Share(A, 8)]}, has_plan=False, annotations={ANNOTATION_GPU_COUNT: "2"}),
            units(A, 4) + units(B, 4),
        ),
        "without a plan, two GPUs but uneven": Case(
            make_pod("x", {"main": [Share(A, 8)]}, has_plan=False, annotations={ANNOTATION_GPU_COUNT: "2"}),
            units(A, 5) + units(B, 3),
            "asks for 4 units on 2 of this node's GPUs",
        ),
        "without a plan, seats of another size": Case(
            make_pod("x", {"main": [seat_share(A, 4)]}, has_plan=False, annotations={ANNOTATION_GPU_FRACTION: "0.5"}),
            seats(A, 4),
            "seats of 1/8 GPU",
        ),
        "a pod that can have nothing": Case(
            make_pod("x", {"main": [Share(A, 8)], "other": [seat_share(A, 1)]}, has_plan=False), units(A, 8), "both"
        ),
    }.items(),
    ids=lambda case: case[0],
)
def test_what_allocate_gives_and_refuses(case: tuple[str, Case]) -> None:
    asked = case[1]
    gpus = {gpu.uuid: gpu for gpu in asked.gpus}
    book = GrantBook(gpus)
    alive = {}
    for pod, ids in asked.held:
        book.record(pod, "main", RESOURCE_REPLICA if "::r" in ids[0] else RESOURCE_MEMORY, frozenset(ids))
        if pod.uid not in asked.ended:
            alive[pod.uid] = pod
    book.reconcile((), alive, has_processes=lambda _: True)
    claim = claims_of(asked.pod)[0]

    def check() -> None:
        check_claim(claim, size=len(asked.ids), unit=UNIT)
        check_devices(claim, claim.resource, asked.ids, gpus=gpus, book=book)

    if asked.want:
        with pytest.raises(asked.error, match=asked.want):
            check()
    else:
        check()


def test_room_is_never_below_zero() -> None:
    gpu = make_gpu(A, units=7, replicas=4)
    assert room(gpu, Share(A, 9), RESOURCE_MEMORY) == 0
    assert room(gpu, Share(A, 9, 5), RESOURCE_REPLICA) == 0
    assert room(gpu, Share(A, 0), RESOURCE_REPLICA) == 4
    assert room(gpu, Share(A, 3, 3), RESOURCE_REPLICA) == 1
    assert room(gpu, Share(A, 3), RESOURCE_REPLICA) == 4, "seats of 1 unit each fit beside 3 of 7 units"
