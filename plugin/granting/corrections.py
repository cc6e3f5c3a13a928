"""What is counted of admissions in which it was not plain who was being admitted, or with which devices."""

from enum import StrEnum
from typing import Protocol


class Correction(StrEnum):
    """One such case."""

    GUESSED = "guessed"
    """PodResources did not answer: the pod was taken for the next one without a grant."""
    REREAD = "reread"
    """No pod that is known fits what the kubelet asks, so the API server was asked again."""
    UNKNOWN = "unknown"
    """Nor did it know one: devices were chosen by best fit, and Allocate finds out who it is."""
    AVOIDED = "avoided"
    """The kubelet offered devices of a pod that has ended and may still use them; it was led to others."""
    REFUSED = "refused"
    """Allocate refused: nobody is known to be admitted, or not with these devices."""


class Observer(Protocol):
    """Who is told of what happens at the desk, such as `plugin.metrics.Metrics`."""

    def corrected(self, correction: Correction) -> None:
        """It was not plain who was being admitted."""
        ...

    def listed(self, *, ok: bool) -> None:
        """PodResources was asked."""
        ...

    def journaled(self, *, ok: bool) -> None:
        """Grants were to be written down."""
        ...


class Unobserved:
    """Tells nobody."""

    def corrected(self, correction: Correction) -> None:
        """Nobody is told."""

    def listed(self, *, ok: bool) -> None:
        """Nobody is told."""

    def journaled(self, *, ok: bool) -> None:
        """Nobody is told."""
