"""Which device nodes belong to which GPU, as they lie on this node now.

Left out: the nodes of graphics (``/dev/dri``), of NVSwitch and of IMEX channels, which computing in a share of one GPU
does not need.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fracgpu.names import GpuUuid
from plugin.gpus.cards import Card
from plugin.handout import DeviceNode

CONTROL_NODES: Final = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
"""Nodes of the driver that every container with a GPU gets; not every node has all of them."""


@dataclass(frozen=True, slots=True)
class NodeTable:
    """The device nodes that were found.

    Attributes:
        control: those that belong to no single GPU.
        of_gpu: those of each GPU that has all it needs.
        problems: of every other GPU, what is missing, as a sentence.
    """

    control: tuple[DeviceNode, ...] = ()
    of_gpu: Mapping[GpuUuid, tuple[DeviceNode, ...]] = field(default_factory=dict)
    problems: Mapping[GpuUuid, str] = field(default_factory=dict)


def find_nodes(cards: Iterable[Card], *, driver_root: Path, host_root: Path, proc_root: Path) -> NodeTable:
    """Look for the nodes of these GPUs.

    Args:
        cards: the GPUs.
        driver_root: where the driver's files lie on the host; its ``dev`` is used where it holds NVIDIA's nodes (the
            driver container's does), else the host's own.
        host_root: where this process sees the host's root folder.
        proc_root: where it sees ``/proc``, which numbers the capabilities of MIG instances.
    """
    folder = driver_root / "dev"
    if not is_on_host(folder / "nvidiactl", host_root=host_root):
        folder = Path("/dev")
    search = _Search(folder, host_root, proc_root)
    control = tuple(node for name in CONTROL_NODES if (node := search.node(name)) is not None)
    of_gpu: dict[GpuUuid, tuple[DeviceNode, ...]] = {}
    problems: dict[GpuUuid, str] = {}
    for card in cards:
        found = search.of_card(card)
        if isinstance(found, str):
            problems[card.uuid] = found
        else:
            of_gpu[card.uuid] = found
    return NodeTable(control, of_gpu, problems)


def is_on_host(path: Path, *, host_root: Path) -> bool:
    """Whether there is something on the host at `path`."""
    return os.path.exists(on_host(path, host_root=host_root))


def on_host(path: Path, *, host_root: Path) -> Path:
    """Where this process finds what lies on the host at `path`."""
    return host_root / path.relative_to("/")


@dataclass(frozen=True, slots=True)
class _Search:
    folder: Path  # the folder of device nodes, as the host calls it
    host_root: Path
    proc_root: Path

    def node(self, name: str) -> DeviceNode | None:
        path = self.folder / name
        if not is_on_host(path, host_root=self.host_root):
            return None
        return DeviceNode(str(path), f"/dev/{name}")

    def of_card(self, card: Card) -> tuple[DeviceNode, ...] | str:
        """The nodes of a GPU, or why there are none."""
        if card.minor is None:
            return f"the driver does not tell which /dev/nvidiaN is GPU {card.uuid}, so no container can be given it"
        names = [f"nvidia{card.minor}"]
        if card.mig is not None:
            instance = f"gi{card.mig.gpu_instance}"
            for capability in (instance, f"{instance}/ci{card.mig.compute_instance}"):
                minor = self._capability_minor(card.minor, capability)
                if minor is None:
                    return (
                        f"the driver knows no capability gpu{card.minor}/{capability} for MIG instance {card.uuid} "
                        f"(in {self.proc_root}/driver/nvidia-caps/mig-minors or {self.proc_root}/driver/nvidia/"
                        "capabilities), so no container can be given it: was the instance destroyed?"
                    )
                names.append(f"nvidia-caps/nvidia-cap{minor}")
        found: list[DeviceNode] = []
        for name in names:
            node = self.node(name)
            if node is None:
                return (
                    f"the device node {self.folder / name} of GPU {card.uuid} does not exist on this node, so no "
                    "container can be given it: load the driver and create its nodes there (nvidia-modprobe, or "
                    "nvidia-smi run once by root), and let this plugin see the host's /dev"
                )
            found.append(node)
        return tuple(found)

    def _capability_minor(self, gpu_minor: int, capability: str) -> int | None:
        """The number of a MIG capability's node: one file lists all of them, and each has a file of its own."""
        try:
            lines = (self.proc_root / "driver/nvidia-caps/mig-minors").read_text().splitlines()
        except (OSError, UnicodeError):
            lines = []
        for line in lines:
            name, _, minor = line.partition(" ")
            if name == f"gpu{gpu_minor}/{capability}/access" and minor.strip().isdigit():
                return int(minor)
        try:
            text = (self.proc_root / f"driver/nvidia/capabilities/gpu{gpu_minor}/mig/{capability}/access").read_text()
        except (OSError, UnicodeError):
            return None
        for line in text.splitlines():
            name, _, minor = line.partition(":")
            if name.strip() == "DeviceFileMinor" and minor.strip().isdigit():
                return int(minor)
        return None
