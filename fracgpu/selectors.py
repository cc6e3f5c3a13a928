"""Which GPUs a pod accepts: by model and by UUID, read from its annotations."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from fracgpu.errors import RequestError
from fracgpu.names import (
    ANNOTATION_EXCLUDE_GPU_MODEL,
    ANNOTATION_EXCLUDE_GPU_UUID,
    ANNOTATION_GPU_MODEL,
    ANNOTATION_GPU_UUID,
    GpuUuid,
)

_MAX_TERMS: Final = 64
_MAX_LENGTH: Final = 253
_MAX_WILDCARDS: Final = 8  # each multiplies the ways in which a pattern can fail to match


@dataclass(frozen=True, slots=True)
class GpuSelector:
    """Which GPUs are acceptable; an empty tuple asks nothing.

    Attributes:
        models: one of these has to match NVML's product name; see `matches_model`.
        not_models: none of these may match it.
        uuids: it has to be one of these.
        not_uuids: it may be none of these.
    """

    models: tuple[str, ...] = ()
    not_models: tuple[str, ...] = ()
    uuids: tuple[GpuUuid, ...] = ()
    not_uuids: tuple[GpuUuid, ...] = ()

    def accepts(self, *, uuid: GpuUuid, product: str) -> bool:
        """Whether a GPU is acceptable."""
        return (
            (not self.uuids or uuid in self.uuids)
            and uuid not in self.not_uuids
            and (not self.models or any(matches_model(pattern, product) for pattern in self.models))
            and not any(matches_model(pattern, product) for pattern in self.not_models)
        )

    def __str__(self) -> str:
        parts = (
            ("model ", self.models),
            ("not model ", self.not_models),
            ("", self.uuids),
            ("not ", self.not_uuids),
        )
        return ", ".join(prefix + " or ".join(terms) for prefix, terms in parts if terms)


@lru_cache(maxsize=4096)
def matches_model(pattern: str, product: str) -> bool:
    """Whether a pattern names whole words of a product name; ``*`` and ``?`` are wildcards, case does not matter.

    ``A100`` and ``a100-sxm4-*`` match ``NVIDIA A100-SXM4-80GB``; ``A10`` does not.
    """
    return _compiled(pattern).search(product) is not None


def selector_of(annotations: Mapping[str, str]) -> GpuSelector | None:
    """Read a pod's selection; None where it takes any GPU.

    Raises:
        RequestError: an annotation names nothing, or too much.
    """
    terms = [
        _terms(name, annotations)
        for name in (
            ANNOTATION_GPU_MODEL,
            ANNOTATION_EXCLUDE_GPU_MODEL,
            ANNOTATION_GPU_UUID,
            ANNOTATION_EXCLUDE_GPU_UUID,
        )
    ]
    if not any(terms):
        return None
    models, not_models, uuids, not_uuids = terms
    return GpuSelector(models, not_models, tuple(map(GpuUuid, uuids)), tuple(map(GpuUuid, not_uuids)))


def _terms(name: str, annotations: Mapping[str, str]) -> tuple[str, ...]:
    if name not in annotations:
        return ()
    terms = tuple(term for part in annotations[name].split(",") if (term := part.strip()))
    if not terms or len(terms) > _MAX_TERMS or not all(map(_is_sound, terms)):
        example = "A100, H100-*" if "model" in name else "GPU-fef8089b-4820-abfc-e83e-94318197576e"
        raise RequestError(
            f"annotation {name} is {annotations[name][:64]!r}; it is a list of 1 to {_MAX_TERMS} names with commas "
            f'between, each with at most {_MAX_WILDCARDS} wildcards, for example "{example}"'
        )
    return terms


def _is_sound(term: str) -> bool:
    return len(term) <= _MAX_LENGTH and sum(map(term.count, "*?")) <= _MAX_WILDCARDS


def _compiled(pattern: str) -> re.Pattern[str]:
    wildcards = {"*": ".*", "?": "."}
    body = "".join(wildcards.get(char) or re.escape(char) for char in pattern)
    return re.compile(f"(?<![a-z0-9]){body}(?![a-z0-9])", re.IGNORECASE)
