"""gpushare (Alibaba): ``aliyun.com/gpu-mem`` in GiB, and in its commercial continuation a label for several GPUs.

Source: gpushare-scheduler-extender, pkg/utils/const.go and pod.go; Alibaba Cloud's guide to sharing several GPUs.
"""

from typing import Final

from fracgpu.annotations import MAX_GPUS
from fracgpu.errors import RequestError
from webhook.dialects.asking import (
    Ask,
    Asking,
    amount_of,
    check_gpus,
    check_memory,
    ignored,
    refuse,
    resources_named,
    whole_number,
)
from webhook.pods import AdmittedPod
from webhook.policy import Policy

MEMORY: Final = "aliyun.com/gpu-mem"
COUNT: Final = "aliyun.com/gpu-count"
_CANNOT: Final = ("aliyun.com/gpu-core.percentage", "aliyun.com/gpu-core.tflops")
FOREIGN: Final = frozenset((MEMORY, COUNT, *_CANNOT))
_GIB: Final = 1024  # MiB


def signs(pod: AdmittedPod) -> list[str]:
    """What in the pod is in this dialect."""
    return resources_named(pod, (MEMORY, COUNT, *_CANNOT))


def read(pod: AdmittedPod, *, policy: Policy) -> Asking:
    """Read what the pod asks.

    Raises:
        RequestError: it cannot be read or given.
    """
    count = _count(pod)
    asks = {}
    warnings = []
    for _, _, container in pod.listed():
        for resource in _CANNOT:
            if power := amount_of(container, resource, meaning="computing power"):
                subject = f"container {container.name!r} asks for {resource}: {power}"
                if policy.compute_shares == "ignore":
                    warnings.append(ignored(subject))
                    continue
                refuse(
                    subject,
                    why="it shares memory, and a part of the computing power only with the same part of the memory",
                    instead=f'remove it, or ask in fracgpu\'s words without {MEMORY}: fracgpu.io/gpu-fraction: "0.5"',
                )
        cards = amount_of(container, COUNT, meaning="which only a node has")
        if cards not in (None, 0, 1) or (cards and count > 1):
            refuse(
                f"container {container.name!r} asks for {COUNT}: {cards}",
                why="as a resource it counts the GPUs of a node",
                instead=f'remove it, and for several GPUs set the label {COUNT} of the pod, for example "2"',
            )
        total = amount_of(container, MEMORY, meaning='the video memory in GiB, for example "4"', most=2**14)
        if total:
            subject = f"container {container.name!r} asks for {MEMORY}: {total}"
            each, rest = divmod(total, count)
            if rest:
                refuse(
                    f"{subject} on {count} GPUs together (label {COUNT})",
                    why="each of them would have a part of a GiB",
                    instead=f"make it a multiple of {count}, for example {(each + 1) * count}",
                )
            asks[container.name] = Ask(
                gpus=count, memory=check_memory(each * _GIB, subject=subject, example=f"{MEMORY}: 4")
            )
        elif cards:
            raise RequestError(
                f"container {container.name!r} asks for {COUNT}: {cards} and not for {MEMORY}, so nothing says how "
                f"much of a GPU it wants; add {MEMORY}, for example {MEMORY}: 4"
            )
    return Asking(asks, FOREIGN, warnings=tuple(warnings))


def _count(pod: AdmittedPod) -> int:
    text = (pod.metadata.labels or {}).get(COUNT)
    if text is None:
        return 1
    subject = f"label {COUNT} is {text[:64]!r}"
    return check_gpus(
        whole_number(text, subject=subject, allowed=f'the number of GPUs, from 1 to {MAX_GPUS}, for example "2"'),
        subject=subject,
    )
