"""A claim: what a pod takes of the cluster's GPUs, as the ledger keeps it under the pod's UID.

A claim is `held` between prioritize and bind: advice with a deadline, after which it is gone. It is `binding` from its
reservation until its Binding is known to have happened, and carries a deadline for as long: after it, the pod is read
again and the claim kept or dropped. From then on it is `bound`, until the plugin says that the share is free again.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec
from msgspec import Struct

from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.plans import Plan, Share


class ClaimState(StrEnum):
    """How far the pod of a claim is."""

    HELD = "held"
    BINDING = "binding"
    BOUND = "bound"


class Claim(Struct, frozen=True, rename="camel"):
    """The shares that one pod takes on one node; its JSON form is what Redis stores and compares."""

    uid: PodUid
    namespace: str
    name: str
    node: NodeName
    state: ClaimState
    plan: Plan

    def per_gpu(self) -> Mapping[GpuUuid, Share]:
        """What the pod takes of each GPU of its node."""
        return self.plan.per_gpu()

    @property
    def pod(self) -> str:
        """``namespace/name``, for people."""
        return f"{self.namespace}/{self.name}"

    def as_state(self, state: ClaimState) -> "Claim":
        """The same shares of the same pod in another state."""
        return Claim(self.uid, self.namespace, self.name, self.node, state, self.plan)

    def bound(self) -> "Claim":
        """The same claim, once its Binding is known to have happened."""
        return self.as_state(ClaimState.BOUND)


class Entry(Struct, frozen=True):
    """A claim as it stands in the ledger, with its deadline in milliseconds of Redis TIME (0 for none)."""

    claim: Claim
    deadline_ms: int

    def is_overdue(self, *, now_ms: int, lifetime_seconds: float) -> bool:
        """Whether the deadline of a reservation with this lifetime has passed.

        One that is much further ahead was set before Redis' clock jumped back, and counts as passed. Much, because
        `now_ms` may be a little older than the deadline's own beginning.
        """
        return not now_ms < self.deadline_ms <= now_ms + 2 * lifetime_seconds * 1000


def encode_claim(claim: Claim) -> str:
    """The claim's JSON: the same claim has the same text, so that the ledger can compare texts."""
    return msgspec.json.encode(claim).decode()


def decode_entry(value: str) -> Entry:
    """Read a value of the ledger, ``<deadline>|<claim JSON>``."""
    deadline, _, text = value.partition("|")
    return Entry(_decoder.decode(text), int(deadline))


_decoder = msgspec.json.Decoder(Claim)
