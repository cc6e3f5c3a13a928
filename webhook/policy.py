"""The settings of a cluster that admission depends on, and the bounds beyond which a number is a mistake."""

from dataclasses import dataclass
from typing import Final

from fracgpu.quantities import DEFAULT_MEMORY_UNIT, DEFAULT_REPLICAS, Mib

MIN_MEMORY_BYTES: Final = 2**20
"""A smaller size is a number without its suffix: ``4096`` is 4096 bytes and would pass as one unit."""

MAX_MEMORY_BYTES: Final = 2**44
"""16 TiB, more than any GPU has; keeps 64 GPUs of it, counted in the smallest unit, within the kubelet's int32."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What decisions depend on besides the pod.

    Attributes:
        unit: the cluster's memory unit, in MiB.
        replicas: the cluster's default number of seats of a GPU (R), by which a fraction is counted.
    """

    unit: Mib = DEFAULT_MEMORY_UNIT
    replicas: int = DEFAULT_REPLICAS
