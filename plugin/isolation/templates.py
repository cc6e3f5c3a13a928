"""Templates with placeholders, in which an administrator tells a preload library of shares. Pure.

Where a variable's name has ``{n}``, there is one variable for each of the container's GPUs, and the placeholders speak
of that one. Elsewhere they speak of all of them; amounts are then the smallest of any GPU.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from fracgpu.errors import SettingError
from fracgpu.quantities import MIB_BYTES
from plugin.handout import LentShare, Mount
from plugin.isolation.shares import core_percent, in_container_order, smallest_core_percent, smallest_memory

SHARED: Final = ("memory_mib", "memory_bytes", "core_percent", "gpu_count", "gpu_uuids", "gpu_indexes")
"""Placeholders that may stand everywhere."""
PER_GPU: Final = ("n", "gpu_uuid", "gpu_index")
"""Placeholders that only a variable with {n} in its name may have."""

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_NAME: Final = re.compile(r"(?:[A-Za-z_]|\{n\})(?:[A-Za-z0-9_]|\{n\})*")


class EnvTemplate:
    """One variable, or one for each GPU.

    Args:
        text: NAME=TEMPLATE.

    Raises:
        SettingError: it is not of that form, or has a placeholder that does not exist.
    """

    def __init__(self, text: str) -> None:
        self.name, separator, self.value = text.partition("=")
        if not separator or not _NAME.fullmatch(self.name):
            raise SettingError(
                f"preload_env has {text!r}, which has to be NAME=TEMPLATE, for example "
                "CUDA_DEVICE_MEMORY_LIMIT_{n}={memory_mib}m"
            )
        self.per_gpu = "{n}" in self.name
        _check(self.value, setting="preload_env", allowed=(*SHARED, *PER_GPU) if self.per_gpu else SHARED)

    def filled(self, shares: Sequence[LentShare]) -> dict[str, str]:
        """Name -> value for a container with these shares."""
        ordered = in_container_order(shares)
        shared = _of_all(ordered)
        if not self.per_gpu:
            return {self.name: _fill(self.value, shared)}
        values = [{**shared, **_of_one(share, number=number)} for number, share in enumerate(ordered)]
        return {_fill(self.name, one): _fill(self.value, one) for one in values}


class MountTemplate:
    """One bind mount.

    Args:
        text: HOST_PATH:CONTAINER_PATH, read-only, or with ``:rw`` after it.

    Raises:
        SettingError: it is not of that form, or has a placeholder that does not exist.
    """

    def __init__(self, text: str) -> None:
        host, _, rest = text.partition(":")
        container, separator, mode = rest.partition(":")
        if not host.startswith("/") or not container.startswith("/") or (separator and mode not in ("rw", "ro")):
            raise SettingError(
                f"preload_mounts has {text!r}, which has to be HOST_PATH:CONTAINER_PATH, or that and :rw, with "
                "absolute paths"
            )
        self.host, self.container, self.read_only = host, container, mode != "rw"
        for path in (host, container):
            _check(path, setting="preload_mounts", allowed=SHARED)

    def filled(self, shares: Sequence[LentShare]) -> Mount:
        """The mount for a container with these shares."""
        values = _of_all(in_container_order(shares))
        return Mount(_fill(self.host, values), _fill(self.container, values), self.read_only)


def _check(template: str, *, setting: str, allowed: Iterable[str]) -> None:
    names = tuple(allowed)
    unknown = [name for name in _PLACEHOLDER.findall(template) if name not in names]
    if unknown:
        raise SettingError(
            f"{setting} has the placeholder {{{unknown[0]}}} in {template!r}; allowed there are "
            + ", ".join(f"{{{name}}}" for name in names)
            + ("" if "n" in names else " (and with {n} in a variable's name, one for each GPU, more)")
        )


def _fill(template: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def _of_all(shares: Sequence[LentShare]) -> dict[str, str]:
    memory = smallest_memory(shares)
    return {
        "memory_mib": str(memory),
        "memory_bytes": str(memory * MIB_BYTES),
        "core_percent": str(smallest_core_percent(shares)),
        "gpu_count": str(len(shares)),
        "gpu_uuids": ",".join(share.card.uuid for share in shares),
        "gpu_indexes": ",".join(share.card.index_name for share in shares),
    }


def _of_one(share: LentShare, *, number: int) -> dict[str, str]:
    return {
        "n": str(number),
        "memory_mib": str(share.memory),
        "memory_bytes": str(share.memory * MIB_BYTES),
        "core_percent": str(core_percent(share)),
        "gpu_uuid": share.card.uuid,
        "gpu_index": share.card.index_name,
    }
