"""What a GPUNode says of used memory, and when that is worth a write of its own. Pure.

A value that wanders is not: every write goes to the API server, into etcd and to all who follow the GPUNodes. So what
was measured goes along with whatever else is written, and by itself only where a value has moved by more than
`MOVE_MIB` and by more than `MOVE_PART` of what was said of it.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from fracgpu.gpunodes import Grant, UsedMemory
from fracgpu.names import GpuUuid, PodUid
from fracgpu.quantities import MIB_BYTES, Mib
from plugin.usage.measuring import Usage

MOVE_MIB: Final = 64
"""A value that moved by no more than this is as it was."""

MOVE_PART: Final = 0.05
"""So is one that moved by no more than this part of what was published."""

MAX_ENTRIES: Final = 4096
"""What the CRD lets a status say."""


def report_of(usage: Usage, grants: Iterable[Grant]) -> tuple[UsedMemory, ...]:
    """What a measurement says of pods that hold something; of those that could not be measured nothing."""
    holders = {grant.pod_uid for grant in grants}
    found = (
        UsedMemory(one.uid, one.container, one.gpu, Mib(-(-one.used_bytes // MIB_BYTES)))
        for one in usage.containers
        if one.used_bytes is not None and one.uid in holders
    )
    return tuple(found)[:MAX_ENTRIES]


def has_moved(before: Sequence[UsedMemory] | None, after: Sequence[UsedMemory] | None) -> bool:
    """Whether some value is so far from what was published that it is to be published by itself.

    What is not in the list counts as 0: who begins with little need not be told of at once.
    """
    known, found = _by_share(before or ()), _by_share(after or ())
    return any(
        abs(found.get(key, 0) - known.get(key, 0)) > max(MOVE_MIB, MOVE_PART * known.get(key, 0))
        for key in known.keys() | found.keys()
    )


def _by_share(usage: Iterable[UsedMemory]) -> dict[tuple[PodUid, str, GpuUuid], int]:
    return {(one.pod_uid, one.container, one.gpu): one.used for one in usage}
