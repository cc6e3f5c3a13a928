"""HAMi: ``nvidia.com/gpu`` with ``nvidia.com/gpumem`` and its like, and annotations that choose GPUs.

Source: HAMi, pkg/device/nvidia/device.go, pkg/device/devices.go, pkg/scheduler/webhook.go and policy/gpu_policy.go.
"""

from fractions import Fraction
from typing import Final

from fracgpu.annotations import PLACEMENT_POLICIES
from fracgpu.errors import RequestError
from fracgpu.names import (
    ANNOTATION_EXCLUDE_GPU_MODEL,
    ANNOTATION_EXCLUDE_GPU_UUID,
    ANNOTATION_GPU_MODEL,
    ANNOTATION_GPU_UUID,
    ANNOTATION_POLICY,
)
from webhook.dialects.asking import (
    Ask,
    Asking,
    amount_of,
    asks_of,
    check_gpus,
    check_memory,
    computing,
    computing_seats,
    ignored,
    listed,
    refuse,
    resources_named,
    resources_of,
)
from webhook.pods import AdmittedContainer, AdmittedPod
from webhook.policy import Policy
from webhook.seats import whole_seats

GPU: Final = "nvidia.com/gpu"
MEMORY: Final = "nvidia.com/gpumem"
PERCENTAGE: Final = "nvidia.com/gpumem-percentage"
CORES: Final = "nvidia.com/gpucores"
PRIORITY: Final = "nvidia.com/priority"
OWN_RESOURCES: Final = (MEMORY, PERCENTAGE, CORES, PRIORITY)
FOREIGN: Final = frozenset((GPU, *OWN_RESOURCES))
_MODELS: Final = {
    "nvidia.com/use-gputype": ANNOTATION_GPU_MODEL,
    "nvidia.com/nouse-gputype": ANNOTATION_EXCLUDE_GPU_MODEL,
}
_UUIDS: Final = {
    "nvidia.com/use-gpuuuid": ANNOTATION_GPU_UUID,
    "nvidia.com/nouse-gpuuuid": ANNOTATION_EXCLUDE_GPU_UUID,
}
_MODE: Final = "nvidia.com/vgpu-mode"
_NUMA: Final = "nvidia.com/numa-bind"
_POLICIES: Final = ("hami.io/node-scheduler-policy", "hami.io/gpu-scheduler-policy")
_WEIGHTS: Final = "hami.io/device-scoring-weights"
ANNOTATIONS: Final = (*_MODELS, *_UUIDS, _MODE, _NUMA, *_POLICIES, _WEIGHTS)
"""What tells the dialect beside ``nvidia.com/gpu``."""
_TRUE: Final = ("1", "t", "T", "true", "TRUE", "True")  # of Go's strconv.ParseBool


def signs(pod: AdmittedPod) -> list[str]:
    """What in the pod is in this dialect; ``nvidia.com/gpu`` alone is not."""
    found = resources_named(pod, OWN_RESOURCES)
    if resources_named(pod, (GPU,)):
        found += [key for key in ANNOTATIONS if key in pod.annotations]
    return found


def read(pod: AdmittedPod, *, policy: Policy) -> Asking:
    """Read what the pod asks.

    Raises:
        RequestError: it cannot be read or given.
    """
    warnings: list[str] = []
    asks = asks_of(pod, lambda container: _ask(container, policy, warnings))
    return Asking(asks, FOREIGN, _selection(pod), frozenset({"hami-scheduler"}), tuple(warnings))


def _ask(container: AdmittedContainer, policy: Policy, warnings: list[str]) -> Ask | None:
    gpus = amount_of(container, GPU, meaning='the number of GPUs, for example "1"')
    memory = amount_of(container, MEMORY, meaning='the video memory on each GPU in MiB, for example "3000"')
    percentage = amount_of(container, PERCENTAGE, meaning='the part of each GPU in percent, for example "50"', most=100)
    cores = amount_of(container, CORES, meaning='computing power in percent, for example "50"')
    _check_priority(container)
    if gpus is None and (memory, percentage, cores) == (None, None, None):
        if resources_of(container, (PRIORITY,)):
            raise RequestError(
                f"container {container.name!r} asks for {PRIORITY} and for no GPU; remove it, or add {GPU}: 1 and "
                f"{MEMORY}, for example {MEMORY}: 3000"
            )
        return None
    subject = f"container {container.name!r} asks for"
    if not (gpus or memory or percentage or cores):
        if gpus is None:
            named = resources_of(container, (MEMORY, PERCENTAGE, CORES))[0]
            raise RequestError(
                f"{subject} {named}: 0 and not for {GPU}, which for HAMi is a whole GPU; write {GPU}: 1 for that, or "
                f"ask for a part, for example {MEMORY}: 3000, or remove {named} for no GPU"
            )
        return None
    gpus = check_gpus(1 if gpus is None else gpus, subject=f"{subject} {GPU}: {gpus}")
    if memory and percentage:
        raise RequestError(
            f"{subject} {MEMORY}: {memory} and for {PERCENTAGE}: {percentage}; a share has one size, so remove one of "
            "the two, for example the percentage"
        )
    cores = min(cores or 0, 100)
    power = f"{subject} {CORES}: {cores}"
    if memory:
        check_memory(memory, subject=f"{subject} {MEMORY}: {memory}", example=f"{MEMORY}: 3000")
    if 0 < cores < 100 and policy.compute_shares == "ignore":
        warnings.append(ignored(power))
        cores = 0
    if memory and not cores:
        return Ask(gpus=gpus, memory=memory)
    if memory:
        return computing(cores, memory=memory, gpus=gpus, policy=policy, subject=power)
    if not percentage or percentage == 100:  # all of the memory is the GPU alone
        return Ask(gpus=gpus, fraction=Fraction(1))
    percent = max(percentage, cores)
    fraction = Fraction(percent, 100)
    if percent == percentage:
        whole_seats(
            fraction, replicas=policy.replicas, subject=f"{subject} {PERCENTAGE}: {percentage}", in_percent=True
        )
    else:
        computing_seats(fraction, policy=policy, subject=power)
    return Ask(gpus=gpus, fraction=fraction)


def _check_priority(container: AdmittedContainer) -> None:
    if amount_of(container, PRIORITY, meaning='0 for high or 1 for low, for example "1"', most=1) == 0:
        refuse(
            f"container {container.name!r} asks for {PRIORITY}: 0",
            why="pods that share a GPU take turns as equals",
            instead=f"remove {PRIORITY}, or ask for a whole GPU by {GPU}: 1 alone",
        )


def _selection(pod: AdmittedPod) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, ours in _MODELS.items():
        terms = [_as_glob(key, term) for term in listed(pod.annotations.get(key, ""))]
        if terms:
            found[ours] = ",".join(terms)
    for key, ours in _UUIDS.items():
        if uuids := listed(pod.annotations.get(key, "")):
            found[ours] = ",".join(uuids)
    mode = pod.annotations.get(_MODE, "")
    if mode.strip() and "hami-core" not in mode:
        refuse(
            f"annotation {_MODE} is {mode[:64]!r}",
            why="how a GPU is divided is set for the node",
            instead='remove the annotation, and choose GPUs by nvidia.com/use-gputype, for example "A100"',
        )
    if pod.annotations.get(_NUMA) in _TRUE:
        refuse(
            f"annotation {_NUMA} is {pod.annotations[_NUMA]!r}",
            why="NUMA nodes are the kubelet's to choose (Topology Manager)",
            instead="remove the annotation",
        )
    if pod.annotations.get(_WEIGHTS, "").strip():
        refuse(
            f"annotation {_WEIGHTS} is {pod.annotations[_WEIGHTS][:64]!r}",
            why=f"its policies are {' and '.join(PLACEMENT_POLICIES)}",
            instead=f'remove the annotation, or use {_POLICIES[1]}: "binpack"',
        )
    policies = {key: pod.annotations[key].strip() for key in _POLICIES if pod.annotations.get(key, "").strip()}
    for key, value in policies.items():
        if value not in PLACEMENT_POLICIES:
            refuse(
                f"annotation {key} is {value[:64]!r}",
                why=f"its policies are {' and '.join(PLACEMENT_POLICIES)}",
                instead='use one of them, for example "binpack"',
            )
    if len(set(policies.values())) > 1:
        refuse(
            f"annotations {_POLICIES[0]} ({policies[_POLICIES[0]]!r}) and {_POLICIES[1]} "
            f"({policies[_POLICIES[1]]!r}) differ",
            why="one policy chooses the node and the GPU",
            instead='give both the same value, for example "binpack"',
        )
    return found | ({ANNOTATION_POLICY: next(iter(policies.values()))} if policies else {})


def _as_glob(key: str, term: str) -> str:
    """HAMi looks for a part of the model's name; ``*`` means nothing to it. It puts NVIDIA- before names without."""
    if "*" in term or "?" in term:
        refuse(
            f"annotation {key} has {term[:64]!r}",
            why="HAMi takes * and ? literally, and no GPU has them in its name",
            instead='write a part of the name, for example "A100"',
        )
    bare = term[len("NVIDIA-") :] if term[: len("NVIDIA-")].upper() == "NVIDIA-" else term
    return f"*{bare}*"
