"""What NVML says of a GPU's health, now (vitals) and as it happens (Xid errors): plain data."""

from dataclasses import dataclass
from typing import Final

from fracgpu.names import GpuUuid

RECOVERY_NONE: Final = 0
"""The recovery action with which a driver says that a GPU needs nothing."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """One look at a whole GPU; None where the GPU or its driver does not support a value.

    Attributes:
        problem: why it does not answer, as a sentence; empty where it does.
        down: whether the driver itself said that the GPU, or all of NVML, is gone: a GPU that answers after that has
            been reset. False for one that is merely slow.
        uncorrected: uncorrected memory errors (ECC) since the last reset.
        remap_pending: whether a row of its memory will be replaced at the next reset.
        remap_failed: whether replacing one has failed.
        recovery: what the driver wants to be done, a number of `nvmlDeviceGpuRecoveryAction_t`; 0 for nothing.
    """

    problem: str = ""
    down: bool = False
    uncorrected: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    recovery: int | None = None


@dataclass(frozen=True, slots=True)
class XidEvent:
    """An error that the driver reported of a GPU, or of one MIG instance where the numbers of that are known."""

    gpu: GpuUuid
    xid: int
    gpu_instance: int | None = None
    compute_instance: int | None = None
