"""A plan: which GPUs a pod gets. Placement makes it, the ledger claims it, Binding carries it, the plugin obeys.

The annotation form is compact JSON:
``{"unitMiB":512,"containers":{"main":[{"gpu":"GPU-...","units":8,"seats":0}]}}``.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from fracgpu.errors import PlanError
from fracgpu.names import GpuUuid
from fracgpu.quantities import Mib

MAX_AMOUNT: Final = 2**24
"""More units or seats than any GPU has (the CRD's bound); also the largest unit, in MiB."""


class Share(Struct, frozen=True):
    """A part of one GPU: the units it takes, and the seats where it was asked for in seats (0 otherwise)."""

    gpu: GpuUuid
    units: int
    seats: int = 0


class Plan(Struct, frozen=True):
    """The shares of every GPU container of a pod.

    Attributes:
        unit: the memory unit, in MiB, in which `Share.units` are counted.
        containers: container name -> its shares, each on another GPU.
    """

    unit: Mib = msgspec.field(name="unitMiB")
    containers: dict[str, tuple[Share, ...]]

    def per_gpu(self) -> dict[GpuUuid, Share]:
        """What the whole pod takes of each GPU."""
        return sum_shares(share for shares in self.containers.values() for share in shares)

    def in_unit(self, unit: Mib) -> "Plan":
        """The same plan counted in another unit, in MiB; rounded up, so that it takes no less than before."""
        return Plan(
            unit,
            {
                container: tuple(Share(share.gpu, -(-share.units * self.unit // unit), share.seats) for share in shares)
                for container, shares in self.containers.items()
            },
        )


def sum_shares(shares: Iterable[Share]) -> dict[GpuUuid, Share]:
    """Add up shares by GPU, in the order in which the GPUs first appear."""
    total: dict[GpuUuid, Share] = {}
    for share in shares:
        before = total.get(share.gpu)
        total[share.gpu] = (
            share if before is None else Share(share.gpu, before.units + share.units, before.seats + share.seats)
        )
    return total


def encode_plan(plan: Plan) -> str:
    """The annotation's text."""
    return msgspec.json.encode(plan).decode()


def decode_plan(text: str) -> Plan:
    """Read the annotation's text.

    Raises:
        PlanError: the text was not written by fracgpu.
    """
    try:
        plan = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise PlanError(f"the allocation annotation cannot be read: {exc}") from exc
    check_shares(plan.containers)
    if not 1 <= plan.unit <= MAX_AMOUNT:
        raise PlanError(f"the allocation annotation has a unit of {plan.unit} MiB")
    return plan


def check_shares(containers: Mapping[str, tuple[Share, ...]]) -> None:
    """Check shares that came from outside: a number that no GPU has must not get into any account.

    Raises:
        PlanError: an amount below 0 or above `MAX_AMOUNT`, of one share or of all shares of one GPU.
    """
    for container, shares in containers.items():
        for share in shares:
            if not (0 <= share.units <= MAX_AMOUNT and 0 <= share.seats <= MAX_AMOUNT):
                raise PlanError(f"container {container!r} has an impossible share: {share.units}, {share.seats}")
    for share in sum_shares(share for shares in containers.values() for share in shares).values():
        if share.units > MAX_AMOUNT or share.seats > MAX_AMOUNT:
            raise PlanError(f"the shares of GPU {share.gpu} add up to {share.units} units and {share.seats} seats")


_decoder = msgspec.json.Decoder(Plan)
