"""Which policy a pod is placed by.

A policy is a module of its own on one interface. What a node is worth to a request depends on that node alone (and on
the mix of requests, which changes seldom), so that it can be kept until the node changes.
"""

from collections.abc import Mapping
from typing import Final

from extender.placement.binpack import Binpack
from extender.placement.filling import Fills
from extender.placement.fragmentation import Fragmentation
from extender.placement.policy import Policy
from extender.placement.spread import Spread
from fracgpu.annotations import PlacementPolicy
from fracgpu.requests import PodRequest

DEFAULT_POLICY: Final[PlacementPolicy] = "fragmentation"
"""For pods that name none, where the administrator sets no other; docs/placement.md says why."""


class Policies:
    """The policies of a cluster.

    Args:
        default: for pods that name none.

    Attributes:
        fills: what `fragmentation` knows of the requests seen; whoever sees requests tells it.
    """

    def __init__(self, default: PlacementPolicy = DEFAULT_POLICY) -> None:
        self.fills = Fills()
        self._default = default
        self._by_name: Mapping[PlacementPolicy, Policy] = {
            "binpack": Binpack(),
            "spread": Spread(),
            "fragmentation": Fragmentation(self.fills),
        }

    def of(self, request: PodRequest) -> Policy:
        """The one that the pod names, or the default."""
        return self._by_name[request.policy or self._default]
