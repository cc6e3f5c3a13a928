"""What admission depends on besides the pod: the cluster's counting, and what its administrator allows where.

Plain data. `settings` reads it from flags and a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Final, Literal

from fracgpu.quantities import DEFAULT_MEMORY_UNIT, DEFAULT_REPLICAS, Mib
from webhook.pods import Toleration

DIALECTS: Final = ("gpushare", "hami", "kai", "kai-gpu-fractioning", "gpu-manager")
"""Whose languages are understood, besides plain ``nvidia.com/gpu``, which `Rules.nvidia_gpu` is about."""

NvidiaGpu = Literal["leave", "seat", "whole"]
"""What ``nvidia.com/gpu: N`` means: nothing to fracgpu, one seat on each of N GPUs, or N whole GPUs."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What may differ between namespaces.

    Attributes:
        nvidia_gpu: what plain ``nvidia.com/gpu`` means.
        default_gpu_memory: what a pod gets that asks for a GPU without a size, as its annotation would say it; empty
            where such a pod is refused.
        default_gpu_fraction: the same as a fraction; at most one of the two is set.
        max_gpu_memory: the most a container may ask of one GPU, in bytes; None for no bound of ours.
        max_gpu_fraction: the largest part of one GPU that a container may ask for by fraction or seats.
        max_gpu_count: the most GPUs that the containers of a pod may have, together.
    """

    nvidia_gpu: NvidiaGpu = "leave"
    default_gpu_memory: str = ""
    default_gpu_fraction: str = ""
    max_gpu_memory: Fraction | None = None
    max_gpu_fraction: Fraction | None = None
    max_gpu_count: int | None = None


@dataclass(frozen=True, slots=True)
class NamespaceRules:
    """What holds in some namespaces instead.

    Attributes:
        namespaces: names, or patterns with ``*`` and ``?``.
        changes: field of `Rules` -> its value there.
    """

    namespaces: tuple[str, ...]
    changes: dict[str, object]

    def hold_in(self, namespace: str) -> bool:
        """Whether they are about this namespace."""
        return any(fnmatchcase(namespace, pattern) for pattern in self.namespaces)


@dataclass(frozen=True, slots=True)
class Policy:
    """What decisions depend on besides the pod.

    Attributes:
        unit: the cluster's memory unit, in MiB.
        replicas: the cluster's default number of seats of a GPU (R), by which a fraction is counted.
        dialects: which of `DIALECTS` are understood.
        compute_shares: what becomes of a part of a GPU's computing power, which other tools can ask for: ``seats``
            grants it as a fraction of the GPU, and refuses what is no whole number of seats; ``ignore`` drops it with
            a warning.
        steering_env: what becomes of environment variables that would choose other GPUs or lift limits.
        env_from: whether containers of a GPU pod may take their environment from ConfigMaps and Secrets, which may
            hold such variables and cannot be seen here.
        scheduler_name: written into GPU pods that name no scheduler of their own; empty for none.
        runtime_class_name: written into GPU pods that name none; empty for none.
        node_selector: labels that GPU pods select in addition.
        tolerations: what GPU pods tolerate in addition.
        nodes_may_be_added: whether a pod that no GPU of the cluster could hold is let in, with a warning.
        rules: what holds in all namespaces, where nothing else does.
        namespaces: what holds in some instead; the first that says something about a field decides it.
    """

    unit: Mib = DEFAULT_MEMORY_UNIT
    replicas: int = DEFAULT_REPLICAS
    dialects: frozenset[str] = frozenset(DIALECTS)
    compute_shares: Literal["seats", "ignore"] = "seats"
    steering_env: Literal["refuse", "remove"] = "refuse"
    env_from: Literal["refuse", "allow"] = "refuse"
    scheduler_name: str = ""
    runtime_class_name: str = ""
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    nodes_may_be_added: bool = True
    rules: Rules = Rules()
    namespaces: Sequence[NamespaceRules] = ()

    @property
    def reads_nvidia_gpu(self) -> bool:
        """Whether plain nvidia.com/gpu means something anywhere."""
        meanings = {self.rules.nvidia_gpu, *(special.changes.get("nvidia_gpu", "leave") for special in self.namespaces)}
        return meanings != {"leave"}

    def rules_in(self, namespace: str) -> Rules:
        """What holds in a namespace."""
        changes: dict[str, object] = {}
        for special in self.namespaces:
            if special.hold_in(namespace):
                changes = special.changes | changes
        return replace(self.rules, **changes) if changes else self.rules  # type: ignore[arg-type]
