"""What can go wrong, as one tree; every class has a stable reason code for metrics, logs and answers.

FracgpuError
├── InputError            something a user or administrator wrote is not usable
│   ├── QuantityError     not a Kubernetes quantity
│   ├── RequestError      a pod's GPU request contradicts itself or can never work
│   ├── PlanError         an allocation annotation that cannot be read
│   ├── DeviceIdError     a device ID that fracgpu did not make
│   └── SettingError      a flag or environment variable of a service
├── NoRoomError           nothing free of the requested shape
├── ConflictError         someone else was faster; trying again may help
│   └── AlreadyClaimedError  (extender/ledger) the pod has another claim than the caller believes
├── UnavailableError      a part we depend on does not answer, or is not ready yet
│   └── LedgerLostError   (extender/ledger) Redis holds no valid ledger; it is being rebuilt
└── KubeError             (fracgpu/kube) the API server refused, did not answer, or answered something unusable
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar


class FracgpuError(Exception):
    """Any error of ours; `str()` is a sentence for the person who has to act on it.

    Attributes:
        about: what it concerns (a pod, say), name -> value, for the log; set by who knows that.
    """

    reason: ClassVar[str] = "Internal"
    about: Mapping[str, object] = MappingProxyType({})


class InputError(FracgpuError):
    """Something that a person wrote cannot be used."""

    reason = "InvalidInput"


class QuantityError(InputError):
    """A text is not a Kubernetes quantity, or not one that makes sense here."""

    reason = "InvalidQuantity"


class RequestError(InputError):
    """A pod's GPU request contradicts itself or can never be met."""

    reason = "InvalidRequest"


class PlanError(InputError):
    """An allocation annotation cannot be read."""

    reason = "InvalidPlan"


class DeviceIdError(InputError):
    """A device ID is not of fracgpu's making."""

    reason = "InvalidDeviceId"


class SettingError(InputError):
    """A setting of a service is missing, malformed or impossible."""

    reason = "InvalidSetting"


class NoRoomError(FracgpuError):
    """Nothing is free of the requested shape."""

    reason = "NoRoom"


class ConflictError(FracgpuError):
    """Another writer was faster; the same request may succeed when tried again."""

    reason = "Conflict"


class UnavailableError(FracgpuError):
    """A part that the answer depends on does not answer or is not ready; try again."""

    reason = "Unavailable"
