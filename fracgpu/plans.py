"""A plan: which GPUs a pod gets. Placement makes it, the ledger claims it, Binding carries it, the plugin obeys.

The annotation form is compact JSON:
``{"unitMiB":512,"containers":{"main":[{"gpu":"GPU-...","units":8,"seats":0}]}}``.
"""

from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct

from fracgpu.errors import PlanError
from fracgpu.names import GpuUuid
from fracgpu.quantities import Mib


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
    if plan.unit < 1 or any(share.units < 0 or share.seats < 0 for share in _all_shares(plan.containers)):
        raise PlanError("the allocation annotation has a number below 0")
    return plan


def _all_shares(containers: Mapping[str, tuple[Share, ...]]) -> Iterable[Share]:
    return (share for shares in containers.values() for share in shares)


_decoder = msgspec.json.Decoder(Plan)
