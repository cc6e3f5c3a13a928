"""Environment variables that would choose other GPUs than the pod was given, or lift its limits. Pure.

The kubelet lists a pod's own variables after the device plugin's, so the pod's would win (seen on Kubernetes 1.36).
"""

import re
from collections.abc import Set
from typing import Final

import msgspec

from fracgpu.errors import RequestError
from fracgpu.names import ANNOTATION_GPU_MODEL, ANNOTATION_GPU_UUID
from webhook.pods import AdmittedContainer, AdmittedPod, EnvFromSource, EnvVar
from webhook.policy import Policy

VISIBLE_DEVICES: Final = "NVIDIA_VISIBLE_DEVICES"
_EXACT: Final = (
    VISIBLE_DEVICES,
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",  # limits by the GPU's place in the list would be another GPU's
    "CUDA_DISABLE_CONTROL",
    "LD_PRELOAD",
    "LD_AUDIT",
)
_BEGINNINGS: Final = ("NVIDIA_GPU_MEMORY_", "CUDA_MPS_", "CUDA_DEVICE_MEMORY_LIMIT", "CUDA_DEVICE_SM_LIMIT")
_STEERING: Final = re.compile(
    "|".join([*map(re.escape, _EXACT), *(re.escape(stem) + ".*" for stem in _BEGINNINGS)]), re.DOTALL
)
_NO_DEVICES: Final = ("void", "none", "")
"""Values of NVIDIA_VISIBLE_DEVICES that show no GPU (NVIDIA Container Toolkit)."""


def with_safe_environment(pod: AdmittedPod, *, holders: Set[str], policy: Policy) -> AdmittedPod:
    """A GPU pod without variables that steer, where they are to be removed.

    A container that holds no GPU could only see others' GPUs by them, and only one variable does that.

    Args:
        pod: the pod.
        holders: names of its containers that hold GPUs.
        policy: whether to remove or to refuse.

    Raises:
        RequestError: there is one, and it is to be refused; or variables come from where they cannot be seen.
    """
    changed = {}
    for _, _, container in pod.listed():
        is_holder = container.name in holders
        if policy.env_from == "refuse":
            _check_sources(container, is_holder=is_holder)
        kept = tuple(variable for variable in container.env or () if not _steers(variable, is_holder=is_holder))
        if len(kept) == len(container.env or ()):
            continue
        if policy.steering_env == "refuse":
            _refuse_all(container, is_holder=is_holder)
        changed[container.name] = msgspec.structs.replace(container, env=kept)
    return pod.with_containers(changed)


def _steers(variable: EnvVar, *, is_holder: bool) -> bool:
    if is_holder:
        return _STEERING.fullmatch(variable.name) is not None
    return variable.name == VISIBLE_DEVICES and variable.value not in _NO_DEVICES


def _refuse_all(container: AdmittedContainer, *, is_holder: bool) -> None:
    for variable in container.env or ():
        if variable.name == VISIBLE_DEVICES and variable.value == "void":
            continue  # the cluster's own doing, for a pod that had not asked for a GPU yet: it is taken out
        if _steers(variable, is_holder=is_holder):
            raise RequestError(
                f"container {container.name!r} sets {variable.name[:64]!r} in env, which would override "
                f"{'the GPU that fracgpu assigns, or its limit' if is_holder else 'that it has no GPU'}; "
                f"{_instead(variable.name)}"
            )


def _instead(name: str) -> str:
    if name.startswith("LD_"):
        return "remove the variable, and set it in the container's command for the program that needs it"
    return (
        "fracgpu sets what is needed itself, so remove the variable; to choose GPUs use "
        f'{ANNOTATION_GPU_MODEL} or {ANNOTATION_GPU_UUID}, for example {ANNOTATION_GPU_MODEL}: "A100"'
    )


def _check_sources(container: AdmittedContainer, *, is_holder: bool) -> None:
    for source in container.env_from or ():
        name = _could_set(source.prefix or "", is_holder=is_holder)
        if name:
            raise RequestError(
                f"container {container.name!r} takes all of {_described(source)} into its environment by envFrom"
                f"{f' with the prefix {source.prefix[:64]!r}' if source.prefix else ''}, which could hold "
                f"{name}, and that would override which GPUs fracgpu assigns; name the variables that it needs under "
                "env (valueFrom: configMapKeyRef or secretKeyRef), or give envFrom a prefix that no such variable has, "
                'for example "APP_"'
            )


def _could_set(prefix: str, *, is_holder: bool) -> str:
    """A variable that steers and that begins with the prefix; empty where there is none."""
    if not is_holder:
        return VISIBLE_DEVICES if VISIBLE_DEVICES.startswith(prefix) else ""
    for name in _EXACT:
        if name.startswith(prefix):
            return name
    for stem in _BEGINNINGS:
        if stem.startswith(prefix) or prefix.startswith(stem):
            return f"{stem}*"
    return ""


def _described(source: EnvFromSource) -> str:
    for kind, reference in (("the ConfigMap", source.config_map_ref), ("the Secret", source.secret_ref)):
        if reference:
            return f"{kind} {str(reference.get('name', ''))[:64]!r}"
    return "a source"
