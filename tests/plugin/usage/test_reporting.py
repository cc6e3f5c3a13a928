"""What a GPUNode says of used memory, and when that is news."""

from __future__ import annotations

import pytest

from fracgpu.gpunodes import Grant, UsedMemory
from fracgpu.names import GpuUuid, PodUid
from fracgpu.plans import Share
from fracgpu.quantities import Mib
from plugin.usage.measuring import ContainerUsage, Usage
from plugin.usage.reporting import has_moved, report_of
from tests.plugin.builders import A, B

U, V = PodUid("u"), PodUid("v")


def one(mib: int, *, uid: PodUid = U, container: str = "main", gpu: GpuUuid = A) -> UsedMemory:
    return UsedMemory(uid, container, gpu, Mib(mib))


def measured(*containers: ContainerUsage) -> Usage:
    return Usage(containers, {}, {}, frozenset())


def test_the_report_names_what_could_be_measured_of_those_that_still_hold_something() -> None:
    usage = measured(
        ContainerUsage(U, "team-a", "x", "main", A, granted_bytes=2**31, used_bytes=2**20 + 1),
        ContainerUsage(U, "team-a", "x", "", B, granted_bytes=0, used_bytes=2**20),
        ContainerUsage(U, "team-a", "x", "idle", A, granted_bytes=2**31, used_bytes=0),
        ContainerUsage(U, "team-a", "x", "hidden", A, granted_bytes=2**31, used_bytes=None),
        ContainerUsage(V, "team-a", "ended", "main", A, granted_bytes=2**31, used_bytes=2**30),
    )
    grant = Grant(U, "team-a", "x", {"main": (Share(A, 4),)})
    assert report_of(usage, [grant]) == (one(2), one(1, container="", gpu=B), one(0, container="idle"))


@pytest.mark.parametrize(
    ("before", "after", "want_moved"),
    [
        ((one(1000),), (one(1064),), False),
        ((one(1000),), (one(1065),), True),
        ((one(1000),), (one(935),), True),
        ((one(10000),), (one(10500),), False),
        ((one(10000),), (one(10501),), True),
        ((), (one(64),), False),
        ((), (one(65),), True),
        (None, (one(65),), True),
        (None, None, False),
        (None, (), False),
        ((one(65),), None, True),
        ((one(500),), (one(500, uid=V),), True),
        ((one(500),), (one(500, container=""),), True),
        ((one(500),), (one(500, gpu=B),), True),
        ((one(500), one(10, gpu=B)), (one(10, gpu=B), one(500)), False),
    ],
)
def test_what_is_news(
    before: tuple[UsedMemory, ...] | None, after: tuple[UsedMemory, ...] | None, *, want_moved: bool
) -> None:
    assert has_moved(before, after) is want_moved
