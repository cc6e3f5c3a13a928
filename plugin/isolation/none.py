"""Advisory: nothing keeps a container within its share. Measuring and reporting is `plugin/usage`."""

from collections.abc import Mapping, Sequence

from fracgpu.gpunodes import IsolationStatus
from fracgpu.names import GpuUuid
from plugin.handout import Edits, LentShare
from plugin.isolation.mechanism import StandingIsolation, sentences

_MEANING = "nothing keeps a container from taking more than its share; what it takes is only measured and reported"


class Advisory(StandingIsolation):
    """The lowest rung.

    Args:
        why_not_more: why this node has no stronger one; empty where it was chosen.
    """

    def __init__(self, *, why_not_more: str = "") -> None:
        super().__init__(IsolationStatus("none", enforced=False, message=sentences(_MEANING, why_not_more)))

    def edits(self, shares: Sequence[LentShare], *, neighbours: Mapping[GpuUuid, int]) -> Edits:
        """Change nothing."""
        return Edits()
