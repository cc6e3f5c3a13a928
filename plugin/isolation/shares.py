"""What the mechanisms read out of the shares that a container is lent: order, amounts, percentages. Pure."""

from collections.abc import Iterable, Sequence

from fracgpu.quantities import Mib
from plugin.handout import LentShare


def in_container_order(shares: Iterable[LentShare]) -> tuple[LentShare, ...]:
    """Sort shares as the driver numbers a container's GPUs: by place on the bus, which is NVML's order."""
    return tuple(sorted(shares, key=lambda share: (share.card.index, share.card.mig.position if share.card.mig else 0)))


def smallest_memory(shares: Sequence[LentShare]) -> Mib:
    """The least that is lent on any of the GPUs, for mechanisms that take one amount for all."""
    return min(share.memory for share in shares)


def core_percent(share: LentShare) -> int:
    """How much of a GPU's processors a share is, in percent from 1 to 100.

    A share that was asked for in memory has no part of the processors, and may use all of them. Rounded down, so that
    the seats of a GPU come to at most 100 together; only with more than 100 seats, where each is the 1 that is the
    least possible, to more.
    """
    if not share.seats:
        return 100
    return max(1, min(100, 100 * share.seats // share.gpu_seats))


def smallest_core_percent(shares: Sequence[LentShare]) -> int:
    """The least part of the processors of any of the GPUs, for mechanisms that take one for all."""
    return min(core_percent(share) for share in shares)
