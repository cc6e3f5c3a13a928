"""What every rung of the isolation ladder is to the rest of the plugin."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from fracgpu.gpunodes import IsolationStatus
from fracgpu.names import GpuUuid
from plugin.handout import Edits, LentShare

Mechanism = Literal["driver-limit", "mps", "preload", "none"]
"""The rungs; ``auto`` is a choice between them, not one of them."""

OnChange = Callable[[], None]
"""Called in the event loop whenever `status` has become another."""


class Isolation(Protocol):
    """Keeps containers within their shares, as well as this node can."""

    @property
    def status(self) -> IsolationStatus:
        """What is in force now, for GPUNode."""

    def edits(self, shares: Sequence[LentShare], *, neighbours: Mapping[GpuUuid, int]) -> Edits:
        """Say what the runtime is to change of a container; no I/O.

        Args:
            shares: what the container is lent, at least one, on different GPUs.
            neighbours: GPU -> how many other containers are lent a share of it.

        Raises:
            FracgpuError: the container must not start on this node now; the sentence is for the pod's user.
        """

    async def run(self) -> None:
        """Keep up what the mechanism needs on the node, until cancelled. What containers use is left running."""

    async def end(self) -> None:
        """Give back what `run` left on the node; only when no container is lent anything any more.

        Raises:
            FracgpuError: it could not be given back; trying again is harmless.
        """


class StandingIsolation:
    """A mechanism that needs nothing to be kept up on the node; the base of those."""

    def __init__(self, status: IsolationStatus) -> None:
        self._status = status

    @property
    def status(self) -> IsolationStatus:
        """What is in force, which does not change."""
        return self._status

    async def run(self) -> None:
        """Return at once: there is nothing to keep up."""

    async def end(self) -> None:
        """Return at once: there is nothing to give back."""


def sentences(*parts: str) -> str:
    """Join sentences, written without their full stops, into a message; empty ones are left out."""
    return "; ".join(part for part in parts if part)
