"""Asks NVML which GPUs this node has. The only module that imports pynvml.

Left out: events, processes and MIG.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from fracgpu.errors import UnavailableError
from fracgpu.names import GpuUuid
from fracgpu.quantities import Mib
from plugin.gpus.cards import Card

with warnings.catch_warnings():
    # The package "pynvml" depends on nvidia-ml-py, which brings the module, and warns of its own name.
    warnings.simplefilter("ignore", FutureWarning)
    import pynvml

_MIB_BYTES = 2**20
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found: the GPUs, and a sentence for each that could not even be named."""

    cards: tuple[Card, ...]
    nameless: tuple[str, ...] = ()


def discover() -> Discovery:
    """List the GPUs of this node, in NVML's order.

    A GPU that does not answer is listed with its `problem`, or among the `nameless` where not even its UUID can be
    read. It never keeps the others from being used.

    Raises:
        UnavailableError: there is no driver, or NVML does not answer at all.
    """
    with _session():
        cards: list[Card] = []
        nameless: list[str] = []
        for index in range(_required(pynvml.nvmlDeviceGetCount)):
            try:
                cards.append(_card(index))
            except pynvml.NVMLError as exc:
                nameless.append(
                    f"GPU {index} of this node cannot be used: NVML says {str(exc)!r} when asked for its UUID"
                )
        return Discovery(tuple(cards), tuple(nameless))


def _card(index: int) -> Card:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    uuid = GpuUuid(pynvml.nvmlDeviceGetUUID(handle))
    try:
        product = str(pynvml.nvmlDeviceGetName(handle))
        memory = Mib(pynvml.nvmlDeviceGetMemoryInfo(handle).total // _MIB_BYTES)
    except pynvml.NVMLError as exc:
        return Card(uuid, index, product="", memory=Mib(0), problem=f"NVML says {str(exc)!r} when asked about {uuid}")
    return Card(uuid, index, product, memory, numa_node=_numa_node(handle))


def _numa_node(handle: object) -> int | None:
    try:
        return int(pynvml.nvmlDeviceGetNumaNodeId(handle))
    except pynvml.NVMLError:
        return None  # most machines: the driver does not know, or the function is newer than the driver


@contextmanager
def _session() -> Iterator[None]:
    _required(pynvml.nvmlInit)
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _required(function: Callable[[], _T]) -> _T:
    try:
        return function()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded) as exc:
        raise UnavailableError(
            f"no NVIDIA driver on this node (NVML says {str(exc)!r}): install the driver, check with nvidia-smi, and "
            "run this plugin in the NVIDIA runtime (or with the driver's libraries mounted) on GPU nodes only"
        ) from exc
    except pynvml.NVMLError as exc:
        raise UnavailableError(f"NVML does not answer on this node: {exc}; check with nvidia-smi") from exc
