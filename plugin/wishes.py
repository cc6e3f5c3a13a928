"""What an administrator wants of this node's GPUs, when everything that was said has been weighed. Plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fracgpu.names import GpuUuid
from fracgpu.quantities import Mib
from fracgpu.sharing import IsolationChoice, PolicyProblem


@dataclass(frozen=True, slots=True)
class GpuWish:
    """How one GPU is to be shared: its seats (R), the MiB that are never given away, whether it is left alone."""

    replicas: int
    reserved: Mib
    excluded: bool = False


@dataclass(frozen=True, slots=True)
class NodeWish:
    """How a node is to be shared.

    Attributes:
        gpus: of every GPU of the node.
        isolation: how containers are kept within their shares.
        policies: names of the SharingPolicies that apply here, the most specific first.
        problems: what is wrong with policies, here.
        complaints: the same of this node's own file, as sentences.
    """

    gpus: Mapping[GpuUuid, GpuWish] = field(default_factory=dict)
    isolation: IsolationChoice = "auto"
    policies: tuple[str, ...] = ()
    problems: tuple[PolicyProblem, ...] = ()
    complaints: tuple[str, ...] = ()

    @property
    def excluded(self) -> frozenset[GpuUuid]:
        """The GPUs that are left alone."""
        return frozenset(gpu for gpu, wish in self.gpus.items() if wish.excluded)
