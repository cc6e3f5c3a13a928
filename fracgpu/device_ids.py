"""Device IDs: the names under which the kubelet counts shares. They name the GPU, so an ID alone tells the truth.

``<GPU UUID>::m17`` is memory unit 17 of a GPU, ``<GPU UUID>::r3`` its seat 3. The numbers mean nothing beyond
telling the IDs of one GPU apart.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fracgpu.errors import DeviceIdError
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid

_KIND_OF_RESOURCE = {RESOURCE_MEMORY: "m", RESOURCE_REPLICA: "r"}
_RESOURCE_OF_KIND = {kind: resource for resource, kind in _KIND_OF_RESOURCE.items()}
_ID = re.compile(r"(.+)::([mr])(0|[1-9]\d{0,8})", re.ASCII)


@dataclass(frozen=True, slots=True)
class DeviceId:
    """A device ID taken apart: the resource it counts for, its GPU, and its number on that GPU."""

    gpu: GpuUuid
    resource: str
    number: int

    def __str__(self) -> str:
        """The ID as the kubelet knows it."""
        return f"{self.gpu}::{_KIND_OF_RESOURCE[self.resource]}{self.number}"


def parse_device_id(text: str) -> DeviceId:
    """Take a device ID apart.

    Raises:
        DeviceIdError: the ID is not of fracgpu's making.
    """
    match = _ID.fullmatch(text)
    if match is None:
        raise DeviceIdError(f"device ID {text!r} is not one of fracgpu's (<GPU UUID>::m17 or <GPU UUID>::r3)")
    uuid, kind, number = match.groups()
    return DeviceId(GpuUuid(uuid), _RESOURCE_OF_KIND[kind], int(number))


def count_by_gpu(ids: Iterable[str]) -> dict[GpuUuid, int]:
    """How many of these IDs lie on each GPU.

    Raises:
        DeviceIdError: one of them is not of fracgpu's making.
    """
    return dict(Counter(parse_device_id(text).gpu for text in ids))
