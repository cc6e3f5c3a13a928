"""NvFractions, KAI's newer form: ``nvidia.com/container.<name>.gpu-memory.request`` and ``.limit``, as annotations.

Source: KAI-Scheduler, package resources (parsing of NvFractions annotations), and its documentation of GPU sharing.
"""

from typing import Final

from fracgpu.errors import RequestError
from webhook.dialects import kai
from webhook.dialects.asking import Ask, Asking, memory_in_mib, refuse
from webhook.pods import AdmittedPod
from webhook.policy import Policy

PREFIX: Final = "nvidia.com/container."
_REQUEST: Final = ".gpu-memory.request"
_LIMIT: Final = ".gpu-memory.limit"
_MODE: Final = ".gpu-compute.mode"


def signs(pod: AdmittedPod) -> list[str]:
    """What in the pod is in this dialect."""
    # Requests before limits, so that it is the limit that is said to differ.
    return sorted((key for key in pod.annotations if key.startswith(PREFIX)), key=lambda key: key.endswith(_LIMIT))


def read(pod: AdmittedPod, *, policy: Policy) -> Asking:
    """Read what the pod asks.

    Raises:
        RequestError: it cannot be read or given.
    """
    del policy
    kai.check_others(pod)
    names = [container.name for _, _, container in pod.listed()]
    gpus = kai.number_of_gpus(pod)
    sizes: dict[str, tuple[str, int]] = {}  # container -> the annotation that was read first, and MiB
    for key in signs(pod):
        name, kind = _parts(key)
        subject = f"annotation {key[:128]} is {pod.annotations[key][:64]!r}"
        if name not in names:
            raise RequestError(
                f"{subject}, and {name[:64]!r} is no container of this pod; it is one of "
                f"{', '.join(map(repr, names[:10]))}, for example {PREFIX}{names[0] if names else 'main'}{_REQUEST}"
            )
        if kind == _MODE:
            kai.check_mode(pod.annotations[key], subject=subject)
            continue
        size = memory_in_mib(pod.annotations[key], subject=subject)
        if name in sizes and sizes[name][1] != size:
            kai.refuse_burst(subject)
        sizes[name] = key, size
    if not sizes:
        raise RequestError(
            f"annotation {signs(pod)[0][:128]} is set, and nothing says how much of a GPU the pod wants; add "
            f'{PREFIX}{names[0] if names else "main"}{_REQUEST}, for example "4Gi"'
        )
    if kai.CONTAINER in pod.annotations and list(sizes) != [kai.container_of(pod)]:
        raise RequestError(
            f"annotation {kai.CONTAINER} is {pod.annotations[kai.CONTAINER][:64]!r}, and "
            f"{next(iter(sizes.values()))[0]} names another container; remove {kai.CONTAINER}"
        )
    return Asking({name: Ask(gpus=gpus, memory=size) for name, (_, size) in sizes.items()}, schedulers=kai.SCHEDULERS)


def _parts(key: str) -> tuple[str, str]:
    """The container's name and the rest of an annotation's name."""
    for kind in (_REQUEST, _LIMIT, _MODE):
        if key.endswith(kind):
            return key[len(PREFIX) : -len(kind)], kind
    return refuse(
        f"annotation {key[:128]} is set",
        why=f"of {PREFIX}<container> it knows {_REQUEST}, {_LIMIT} and {_MODE}",
        instead=f"remove the annotation, and ask for example by {PREFIX}main{_REQUEST}",
    )
