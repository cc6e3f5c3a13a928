"""What users write in a pod's annotations: which container each speaks of, and how each value is read. Pure.

An annotation without a container's name gives its size and count to one container of the pod, and its selection of GPUs
to all of them; one with a name (``fracgpu.io/gpu-memory.trainer``) goes before it. What the values mean together is
`requests`' part.
"""

from collections.abc import Container, Mapping, Sequence
from fractions import Fraction
from typing import Final, Literal, NamedTuple

from fracgpu.errors import QuantityError, RequestError
from fracgpu.names import (
    ANNOTATION_CONTAINER,
    ANNOTATION_GPU_MEMORY,
    ANNOTATION_MIN_GPU_MEMORY,
    DOMAIN,
    PER_CONTAINER_ANNOTATIONS,
    SELECTION_ANNOTATIONS,
    SIZE_ANNOTATIONS,
)
from fracgpu.quantities import MIB_BYTES, parse_quantity

MAX_GPUS: Final = 64
"""More GPUs than any one node has; a larger count is a typing mistake."""
MIN_MEMORY_BYTES: Final = MIB_BYTES
"""A smaller size is a number without its suffix: ``4096`` is 4096 bytes and would pass as one unit."""
MAX_MEMORY_BYTES: Final = 2**44
"""16 TiB, more than any GPU has; keeps 64 GPUs of it, counted in the smallest unit, within the kubelet's int32."""

PlacementPolicy = Literal["binpack", "spread", "fragmentation"]
"""How a pod chooses among the places that fit: the fullest GPU and node, the emptiest, or where it spoils the least of
what others will ask for."""
PLACEMENT_POLICIES: Final[tuple[PlacementPolicy, ...]] = ("binpack", "spread", "fragmentation")

_PREFIX: Final = f"{DOMAIN}/"
_MEANINGS: Final = {
    ANNOTATION_GPU_MEMORY: "the video memory on each GPU",
    ANNOTATION_MIN_GPU_MEMORY: "the video memory that a GPU must have in all",
}


class Written(NamedTuple):
    """An annotation as somebody wrote it."""

    key: str
    text: str

    def __str__(self) -> str:
        """As a sentence about it begins."""
        return f"annotation {self.key} is {self.text[:64]!r}"


Asked = Mapping[str, Written]
"""Annotation without a container's name -> how it was written."""


class PodAnnotations:
    """The annotations of a pod, by the container that they speak of; those that are not fracgpu's are not here."""

    def __init__(self, annotations: Mapping[str, str]) -> None:
        self.of_pod: dict[str, Written] = {}
        self.by_container: dict[str, dict[str, Written]] = {}  # container name -> what names it
        for key, text in annotations.items():
            if key.startswith(_PREFIX):
                base, container = split_key(key)
                place = self.of_pod if container is None else self.by_container.setdefault(container, {})
                place[base] = Written(key, text)

    def about(self, container: str, *, is_target: bool) -> Asked:
        """What is asked for one container.

        Args:
            container: its name.
            is_target: whether a size or count without a container's name is for this one.
        """
        own = self.by_container.get(container)
        if is_target:
            return self.of_pod | own if own else self.of_pod
        shared: Asked = {key: self.of_pod[key] for key in SELECTION_ANNOTATIONS if key in self.of_pod}
        return {**shared, **own} if own else shared

    def target(self, *, apps: Sequence[str], holders: Sequence[str]) -> str:
        """The container that a size or a count without a container's name is for.

        Args:
            apps: names of the app containers.
            holders: names of the containers that hold GPUs, or are to.

        Returns:
            The one that the pod names. Else, where a size has no name, `default_container` of those for which no other
            size is written; and else, where only a count has none, the first app container that holds GPUs, or the
            first that does. Empty where there is none.
        """
        named = self.of_pod.get(ANNOTATION_CONTAINER)
        if named is not None and named.text:
            return named.text
        if has_size(self.of_pod):
            return default_container(apps, [name for name in holders if not has_size(self.by_container.get(name, {}))])
        return next((name for name in apps if name in holders), holders[0] if holders else "")


def has_size(asked: Container[str]) -> bool:
    """Whether one of these annotations is a size."""
    return any(key in asked for key in SIZE_ANNOTATIONS)


def default_container(apps: Sequence[str], holders: Container[str]) -> str:
    """The container that a size without a name is for; empty where there is none.

    It is the first app container, as people count. But one that holds GPUs goes before: it got its limit by an earlier
    look at the pod, and something may have put another container in front since.

    Args:
        apps: names of the app containers.
        holders: names of the containers that hold GPUs already.
    """
    return next((name for name in apps if name in holders), apps[0] if apps else "")


def split_key(key: str) -> tuple[str, str | None]:
    """The annotation, and the container that its name ends with; None where it names none."""
    name, dot, container = key.removeprefix(_PREFIX).partition(".")
    return _PREFIX + name, container if dot else None


def key_for(annotation: str, container: str) -> str:
    """The annotation that speaks of one container.

    Args:
        annotation: one of `PER_CONTAINER_ANNOTATIONS`.
        container: its name.
    """
    if annotation not in PER_CONTAINER_ANNOTATIONS:
        raise ValueError(f"{annotation} is about the pod")
    return f"{annotation}.{container}"


def parse_gpu_count(written: Written) -> int:
    """Read ``fracgpu.io/gpu-count``.

    Raises:
        RequestError: not a whole number from 1 to `MAX_GPUS`.
    """
    digits = written.text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9 and 1 <= int(digits) <= MAX_GPUS):
        raise RequestError(f'{written}; it is the number of GPUs, a whole number from 1 to {MAX_GPUS}, for example "2"')
    return int(digits)


def parse_fraction(written: Written) -> Fraction:
    """Read ``fracgpu.io/gpu-fraction``: an exact number above 0 and at most 1.

    Raises:
        RequestError: anything else.
    """
    try:
        fraction = parse_quantity(written.text.strip())
    except QuantityError:
        fraction = Fraction(0)
    if not 0 < fraction <= 1:
        raise RequestError(f'{written}; it is the part of one GPU, above 0 and at most 1, for example "0.25"')
    return fraction


def parse_memory(written: Written) -> Fraction:
    """Read a size of video memory, in bytes.

    Raises:
        RequestError: not a quantity from `MIN_MEMORY_BYTES` to `MAX_MEMORY_BYTES`.
    """
    text = written.text.strip()
    try:
        size_bytes = parse_quantity(text)
    except QuantityError:
        found = ""
    else:
        if MIN_MEMORY_BYTES <= size_bytes <= MAX_MEMORY_BYTES:
            return size_bytes
        found = ", which is more than any GPU has" if size_bytes > MAX_MEMORY_BYTES else ", which is less than 1 MiB"
    is_bare = text.isascii() and text.isdigit() and len(text) <= 7 and not text.startswith("0")
    raise RequestError(
        f"{written}{found}; it is {_MEANINGS[split_key(written.key)[0]]}, a number with a suffix such as Mi, Gi, M or "
        f'G, from 1Mi to 16Ti, for example "{f"{text}Mi" if is_bare else "4Gi"}"'
    )


def parse_policy(written: Written) -> PlacementPolicy:
    """Read ``fracgpu.io/policy``.

    Raises:
        RequestError: not one of `PLACEMENT_POLICIES`.
    """
    for policy in PLACEMENT_POLICIES:
        if written.text.strip() == policy:
            return policy
    raise RequestError(
        f"{written}; it is how a place is chosen where several fit, one of {', '.join(PLACEMENT_POLICIES)}, for "
        f'example "{PLACEMENT_POLICIES[0]}"'
    )
