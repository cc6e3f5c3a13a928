"""A mechanism that the administrator has set and that this node does not have.

Nothing is lent under a promise that does not hold, and the node does not vanish by a typing mistake either: the plugin
stays up, says why in GPUNode, and refuses containers.
"""

from collections.abc import Mapping, Sequence

from fracgpu.errors import UnavailableError
from fracgpu.gpunodes import IsolationStatus
from fracgpu.names import GpuUuid
from plugin.handout import Edits, LentShare
from plugin.isolation.mechanism import Mechanism, StandingIsolation


class Unavailable(StandingIsolation):
    """Stands for what is missing.

    Args:
        mechanism: what was set.
        obstacle: why this node does not have it.
    """

    def __init__(self, mechanism: Mechanism, *, obstacle: str) -> None:
        super().__init__(
            IsolationStatus(
                mechanism,
                enforced=False,
                message=f"isolation is set to {mechanism}, which this node does not have: {obstacle}; no GPU is handed "
                "out here until that is there or isolation is set to another (auto takes the strongest that there is)",
            )
        )

    def edits(self, shares: Sequence[LentShare], *, neighbours: Mapping[GpuUuid, int]) -> Edits:
        """Refuse.

        Raises:
            UnavailableError: always.
        """
        raise UnavailableError(self._status.message)
