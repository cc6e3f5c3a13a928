"""A host's file system in a folder: the driver's files, its device nodes, /proc and the folders of CDI."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from fracgpu.names import GpuUuid
from fracgpu.quantities import Mib
from plugin.gpus.cards import Card, MigPlace
from plugin.injection.injector import Injector
from plugin.settings import DeviceListStrategy

VERSION = "570.86.15"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
HOOK = "/usr/bin/nvidia-cdi-hook"


def make_card(letter: str, *, index: int = 0, minor: int | None = None, problem: str = "") -> Card:
    minor = index if minor is None else minor
    return Card(GpuUuid(f"GPU-{letter}"), index, "NVIDIA L4", Mib(23034), minor=minor, problem=problem)


def make_mig(letter: str, *, parent: Card, position: int = 0, instance: int = 1) -> Card:
    place = MigPlace(parent.uuid, position, gpu_instance=instance, compute_instance=0)
    return Card(GpuUuid(f"MIG-{letter}"), parent.index, "MIG", Mib(9856), minor=parent.minor, mig=place)


class Host:
    """A host that starts empty."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = root / "proc"
        self.static_cdi = root / "etc/cdi"
        self.cdi = root / "run/cdi"

    def add(self, *paths: str, content: str = "", mode: int = 0o755) -> None:
        for path in paths:
            target = self.root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
            target.chmod(mode)

    def add_driver(self, *, root: str = "", version: str = VERSION, hook: bool = True) -> None:
        names = (f"libcuda.so.{version}", f"libnvidia-ml.so.{version}", f"libnvidia-ptxjitcompiler.so.{version}")
        self.add(*(f"{root}/{LIBRARIES}/{name}" for name in names), f"{root}/usr/bin/nvidia-smi")
        folder = self.root / root.lstrip("/") / LIBRARIES
        (folder / "libcuda.so.1").symlink_to(f"libcuda.so.{version}")
        (folder / "libnvidia-ptxjitcompiler.so.1").symlink_to(f"libnvidia-ptxjitcompiler.so.{version}")
        if hook:
            self.add(HOOK)

    def add_nodes(self, *names: str, root: str = "") -> None:
        self.add(*(f"{root}/dev/{name}" for name in names))

    def add_foreign(self, *names: str, file: str = "nvidia.json", kind: str = "nvidia.com/gpu") -> None:
        self.static_cdi.mkdir(parents=True, exist_ok=True)
        (self.static_cdi / file).write_text(json.dumps(foreign(*names, kind=kind)))

    def own(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.cdi / "fracgpu.io-gpu.json").read_text())
        return found

    def injector(
        self,
        *strategies: DeviceListStrategy,
        ids: Literal["uuid", "index"] = "uuid",
        nodes: bool = False,
        root: str = "/",
        spec_dir: Path | None = None,
        dirs: Collection[Path] | None = None,
    ) -> Injector:
        return Injector(
            strategies=strategies,
            id_strategy=ids,
            pass_device_specs=nodes,
            driver_root=Path(root),
            cdi_spec_dir=spec_dir or self.cdi,
            cdi_hook_path=Path(HOOK),
            host_root=self.root,
            proc_root=self.proc,
            cdi_dirs=tuple(dirs) if dirs is not None else (self.static_cdi, self.cdi),
        )


def foreign(*names: str, kind: str = "nvidia.com/gpu") -> dict[str, Any]:
    edits = {"deviceNodes": [{"path": "/dev/nvidia0"}]}
    return {"cdiVersion": "0.5.0", "kind": kind, "devices": [{"name": name, "containerEdits": edits} for name in names]}
