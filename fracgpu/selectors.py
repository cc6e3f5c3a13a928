"""Which GPUs a container accepts: by model, by UUID and by size, read from its pod's annotations."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from typing import Final

from fracgpu.annotations import Asked, parse_memory
from fracgpu.errors import RequestError
from fracgpu.names import (
    ANNOTATION_EXCLUDE_GPU_MODEL,
    ANNOTATION_EXCLUDE_GPU_UUID,
    ANNOTATION_GPU_MODEL,
    ANNOTATION_GPU_UUID,
    ANNOTATION_MIN_GPU_MEMORY,
    GpuUuid,
)
from fracgpu.quantities import MIB_BYTES, Mib, format_mib

_STARS: Final = re.compile(r"\*+")
_UUID_PREFIX: Final = "GPU-"
_EXAMPLE_UUID: Final = "GPU-fef8089b-4820-abfc-e83e-94318197576e"
_SHOWN: Final = 80  # characters of a wrong name in a sentence
_MAX_TERMS: Final = 64
_MAX_LENGTH: Final = 4096  # of all of them: 64 UUIDs and more


@dataclass(frozen=True, slots=True)
class GpuSelector:
    """Which GPUs are acceptable; an empty tuple asks nothing.

    Attributes:
        models: one of these has to match NVML's product name; see `matches_model`.
        not_models: none of these may match it.
        uuids: it has to be one of these.
        not_uuids: it may be none of these.
        min_memory: in MiB; it has to have at least that much memory in all, whoever uses it.
    """

    models: tuple[str, ...] = ()
    not_models: tuple[str, ...] = ()
    uuids: tuple[GpuUuid, ...] = ()
    not_uuids: tuple[GpuUuid, ...] = ()
    min_memory: int = 0

    def accepts(self, *, uuid: GpuUuid, product: str, memory: Mib) -> bool:
        """Whether a GPU is acceptable; `memory` is all of its memory, in MiB."""
        return (
            memory >= self.min_memory
            and (not self.uuids or uuid in self.uuids)
            and uuid not in self.not_uuids
            and (not self.models or any(matches_model(pattern, product) for pattern in self.models))
            and not any(matches_model(pattern, product) for pattern in self.not_models)
        )

    @property
    def names_gpus(self) -> bool:
        """Whether it tells GPUs of the same model apart."""
        return bool(self.uuids or self.not_uuids)

    def accepts_model(self, product: str, memory: Mib) -> bool:
        """Whether a GPU of this product and size could be acceptable, whichever it is."""
        return replace(self, uuids=(), not_uuids=()).accepts(uuid=GpuUuid(""), product=product, memory=memory)

    def __str__(self) -> str:
        parts = (
            ("model ", self.models),
            ("not model ", self.not_models),
            ("", self.uuids),
            ("not ", self.not_uuids),
        )
        found = [prefix + " or ".join(terms) for prefix, terms in parts if terms]
        if self.min_memory:
            found.append(f"with at least {format_mib(self.min_memory)} in all")
        return ", ".join(found)


@lru_cache(maxsize=4096)
def matches_model(pattern: str, product: str) -> bool:
    """Whether a pattern names whole words of a product name; ``*`` and ``?`` are wildcards, case does not matter.

    ``A100`` and ``a100-sxm4-*`` match ``NVIDIA A100-SXM4-80GB``; ``A10`` does not. The pattern is a tenant's: whatever
    it is, this takes time in proportion to the square of the product name's length at most.
    """
    pattern, product = _STARS.sub("*", pattern.lower()), product.lower()
    if len(pattern) - pattern.count("*") > len(product):
        return False
    reached: set[int] = set()  # how much of the pattern may have been matched by what was read so far
    for place, char in enumerate(product):
        if place == 0 or not _is_word(product[place - 1]):
            reached.add(0)  # a word may begin here
        reached = _past_stars(pattern, reached)
        if len(pattern) in reached and not _is_word(char):
            return True
        reached = {
            state if pattern[state] == "*" else state + 1
            for state in reached
            if state < len(pattern) and pattern[state] in ("*", "?", char)
        }
    if not _is_word(product[-1:]):
        reached.add(0)
    return len(pattern) in _past_stars(pattern, reached)


def selector_of(asked: Asked) -> GpuSelector | None:
    """Read a container's selection; None where it takes any GPU.

    Raises:
        RequestError: an annotation names nothing, or too much.
    """
    models, not_models, uuids, not_uuids = (
        _terms(name, asked)
        for name in (
            ANNOTATION_GPU_MODEL,
            ANNOTATION_EXCLUDE_GPU_MODEL,
            ANNOTATION_GPU_UUID,
            ANNOTATION_EXCLUDE_GPU_UUID,
        )
    )
    for name, terms in ((ANNOTATION_GPU_UUID, uuids), (ANNOTATION_EXCLUDE_GPU_UUID, not_uuids)):
        _check_uuids(name, terms, asked)
    if uuids and set(uuids) <= set(not_uuids):
        raise RequestError(
            f"{asked[ANNOTATION_GPU_UUID]}, and {asked[ANNOTATION_EXCLUDE_GPU_UUID]}, so no GPU is left; take out one "
            "of the two"
        )
    size = asked.get(ANNOTATION_MIN_GPU_MEMORY)
    min_memory = 0 if size is None else ceil(parse_memory(size) / MIB_BYTES)
    if not (models or not_models or uuids or not_uuids or min_memory):
        return None
    return GpuSelector(models, not_models, tuple(map(GpuUuid, uuids)), tuple(map(GpuUuid, not_uuids)), min_memory)


def _terms(name: str, asked: Asked) -> tuple[str, ...]:
    written = asked.get(name)
    if written is None:
        return ()
    terms = tuple(term for part in written.text.split(",") if (term := part.strip()))
    if not terms or len(terms) > _MAX_TERMS or len(written.text) > _MAX_LENGTH:
        example = "A100, H100-*" if "model" in name else _EXAMPLE_UUID
        raise RequestError(
            f"{written}; it is a list of 1 to {_MAX_TERMS} names with commas between and of at most {_MAX_LENGTH} "
            f'characters in all, for example "{example}"'
        )
    return terms


def _check_uuids(name: str, terms: Iterable[str], asked: Asked) -> None:
    for term in terms:
        if not term.startswith(_UUID_PREFIX):
            raise RequestError(
                f"{asked[name]}; {term[:_SHOWN]!r} is no UUID of a GPU, as nvidia-smi -L and kubectl get gpunode NODE "
                f'-o yaml show them, for example "{_EXAMPLE_UUID}"; a GPU cannot be named by its index'
            )


def _is_word(char: str) -> bool:
    return char.isascii() and char.isalnum()


def _past_stars(pattern: str, reached: set[int]) -> set[int]:
    """The same places, and those behind stars, which may stand for nothing."""
    found = set(reached)
    for state in reached:
        while state < len(pattern) and pattern[state] == "*":
            state += 1
            found.add(state)
    return found
