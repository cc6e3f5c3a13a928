"""Plain ``nvidia.com/gpu: N`` of NVIDIA's device plugin, where the administrator wants fracgpu to serve it.

Source: k8s-device-plugin, README (running GPU jobs).
"""

from fractions import Fraction
from typing import Final

from webhook.dialects.asking import Ask, Asking, amount_of, check_gpus
from webhook.pods import AdmittedPod, count_of, limits_of, requests_of
from webhook.policy import NvidiaGpu

GPU: Final = "nvidia.com/gpu"


def signs(pod: AdmittedPod) -> list[str]:
    """What in the pod is in this dialect: 0 is nothing."""
    amounts = [each.get(GPU, 0) for _, _, found in pod.listed() for each in (limits_of(found), requests_of(found))]
    return [GPU] if any(count_of(amount) != 0 for amount in amounts) else []


def read(pod: AdmittedPod, *, meaning: NvidiaGpu) -> Asking:
    """Read what the pod asks.

    Args:
        pod: the pod.
        meaning: a seat on each GPU, or whole GPUs.

    Raises:
        RequestError: it cannot be read.
    """
    asks = {}
    for _, _, container in pod.listed():
        gpus = amount_of(container, GPU, meaning='the number of GPUs, for example "1"')
        if gpus:
            check_gpus(gpus, subject=f"container {container.name!r} asks for {GPU}: {gpus}")
            asks[container.name] = (
                Ask(gpus=gpus, fraction=Fraction(1)) if meaning == "whole" else Ask(gpus=gpus, seats=1)
            )
    return Asking(asks, frozenset((GPU,)))
