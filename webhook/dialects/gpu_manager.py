"""gpu-manager (Tencent): ``tencent.com/vcuda-core``, where 100 is one GPU, and ``tencent.com/vcuda-memory`` in 256 MiB.

Source: gpu-admission, pkg/util/util.go; gpu-manager, pkg/types/types.go and pkg/services/allocator/nvidia/allocator.go.
"""

from fractions import Fraction
from typing import Final

from fracgpu.errors import RequestError
from webhook.dialects.asking import (
    Ask,
    Asking,
    amount_of,
    asks_of,
    check_gpus,
    check_memory,
    computing,
    ignored,
    refuse,
    resources_named,
    whole_number,
)
from webhook.pods import AdmittedContainer, AdmittedPod
from webhook.policy import Policy

CORE: Final = "tencent.com/vcuda-core"
MEMORY: Final = "tencent.com/vcuda-memory"
CORE_LIMIT: Final = "tencent.com/vcuda-core-limit"
FOREIGN: Final = frozenset((CORE, MEMORY))
_ONE_GPU: Final = 100
_MEMORY_UNIT: Final = 256  # MiB


def signs(pod: AdmittedPod) -> list[str]:
    """What in the pod is in this dialect."""
    found = resources_named(pod, (CORE, MEMORY))
    return [*found, CORE_LIMIT] if found and CORE_LIMIT in pod.annotations else found


def read(pod: AdmittedPod, *, policy: Policy) -> Asking:
    """Read what the pod asks.

    Raises:
        RequestError: it cannot be read or given.
    """
    warnings: list[str] = []
    asks = asks_of(pod, lambda container: _ask(container, policy, warnings))
    _check_ceiling(pod, policy, warnings)
    return Asking(asks, FOREIGN, warnings=tuple(warnings))


def _ask(container: AdmittedContainer, policy: Policy, warnings: list[str]) -> Ask | None:
    cores = amount_of(container, CORE, meaning='computing power, 100 for each GPU, for example "50"') or 0
    amount = amount_of(container, MEMORY, meaning='the video memory in units of 256 MiB, for example "30"') or 0
    subject = f"container {container.name!r} asks for {CORE}: {cores}"
    if not cores and not amount:
        return None
    if cores >= _ONE_GPU:
        gpus, rest = divmod(cores, _ONE_GPU)
        if rest:
            raise RequestError(
                f"{subject}; above 100 it is whole GPUs, a multiple of 100, for example {(gpus + 1) * _ONE_GPU}"
            )
        return Ask(gpus=check_gpus(gpus, subject=subject), fraction=Fraction(1))  # with all its memory
    if not cores or not amount:
        raise RequestError(
            f"{subject} and for {MEMORY}: {amount}; a part of a GPU needs both, for example {CORE}: 50 and {MEMORY}: 30"
        )
    memory = check_memory(
        amount * _MEMORY_UNIT,
        subject=f"container {container.name!r} asks for {MEMORY}: {amount}",
        example=f"{MEMORY}: 30 for 7680 MiB",
    )
    if policy.compute_shares == "ignore":
        warnings.append(ignored(subject))
        return Ask(memory=memory)
    return computing(cores, memory=memory, gpus=1, policy=policy, subject=subject)


def _check_ceiling(pod: AdmittedPod, policy: Policy, warnings: list[str]) -> None:
    text = pod.annotations.get(CORE_LIMIT)
    if text is None:
        return
    subject = f"annotation {CORE_LIMIT} is {text[:64]!r}"
    if whole_number(text, subject=subject, allowed='a whole number, for example "100"') >= _ONE_GPU:
        return
    if policy.compute_shares == "ignore":
        warnings.append(ignored(subject))
    else:
        refuse(subject, why="it puts no bound on computing power", instead='remove the annotation, or make it "100"')
