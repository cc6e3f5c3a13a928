"""What of the driver's files a container needs: the libraries of this version, the links to them, the programs.

Folders are searched in the order of NVIDIA's container toolkit; the host's ldconfig cache is not read. Left out:
firmware, configuration of graphics, and the sockets of nvidia-persistenced and nvidia-fabricmanager: a mount of a
socket that is gone keeps every container from starting.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fracgpu.errors import UnavailableError
from plugin.injection.nodes import on_host

LIBRARY_FOLDERS: Final = (
    "usr/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/nvidia/current",
    "usr/lib/aarch64-linux-gnu/nvidia/current",
    "lib64",
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
    "lib/x86_64-linux-gnu/nvidia/current",
    "lib/aarch64-linux-gnu/nvidia/current",
)
PROGRAM_FOLDERS: Final = ("usr/bin", "usr/sbin", "bin", "sbin")
PROGRAMS: Final = (
    "nvidia-smi",
    "nvidia-debugdump",
    "nvidia-persistenced",
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
)


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file of the driver: where it lies on the host, and where a container is to see it."""

    host_path: str
    container_path: str


@dataclass(frozen=True, slots=True)
class Link:
    """A further name in a container of one of the libraries, such as ``libcuda.so.1``."""

    path: str
    library: HostFile


@dataclass(frozen=True, slots=True)
class DriverFiles:
    """What was found of one version of the driver."""

    libraries: tuple[HostFile, ...]
    links: tuple[Link, ...] = ()
    programs: tuple[HostFile, ...] = ()


def find_driver(version: str, *, driver_root: Path, host_root: Path) -> DriverFiles:
    """Look for the files of the driver.

    Args:
        version: the driver's, as NVML tells it, for example ``570.86.15``; its libraries end in it.
        driver_root: where its files lie on the host.
        host_root: where this process sees the host's root folder.

    Raises:
        UnavailableError: its CUDA library is not there.
    """
    seen = on_host(driver_root, host_root=host_root)
    search = _LibrarySearch(driver_root, seen, version)
    libraries = search.libraries()
    cuda = [file for file in libraries if Path(file.host_path).name == f"libcuda.so.{version}"]
    if not cuda:
        raise UnavailableError(
            f"the driver's library libcuda.so.{version} is not in the library folders below {driver_root} of the host "
            f"(seen by this plugin as {seen}), so containers cannot be given it by CDI: nvidia_driver_root has to be "
            "the folder where the driver that is loaded was installed, and this plugin has to see it"
        )
    programs = [
        HostFile(f"{driver_root / folder / name}", f"/{folder}/{name}")
        for name in PROGRAMS
        for folder in PROGRAM_FOLDERS
        if os.access(seen / folder / name, os.X_OK)
    ]
    first = {Path(program.host_path).name: program for program in reversed(programs)}
    return DriverFiles(libraries, search.links(), tuple(first[name] for name in PROGRAMS if name in first))


class _LibrarySearch:
    """Goes through the folders once; a file counts once, under the first name it is found by."""

    def __init__(self, driver_root: Path, seen: Path, version: str) -> None:
        self._by_number: dict[tuple[int, int], HostFile] = {}  # (device, inode) -> library
        self._links: dict[str, Link] = {}  # path in the container -> link
        folders: dict[tuple[int, int], str] = {}  # (device, inode) -> folder below the root
        for folder in LIBRARY_FOLDERS:
            for path in (folder, f"{folder}/vdpau"):
                try:
                    status = (seen / path).stat()
                except OSError:
                    continue
                folders.setdefault((status.st_dev, status.st_ino), path)  # /lib is often a link to /usr/lib
        symlinks: list[tuple[str, str]] = []
        for folder in folders.values():
            for entry in _entries(seen / folder):
                if entry.is_symlink():
                    symlinks.append((folder, entry.name))
                elif _belongs(entry.name, version) and entry.is_file():
                    self._add(driver_root, seen, folder, entry.name)
        for folder, name in symlinks:
            if _belongs(name, version):
                self._add(driver_root, seen, folder, name)
        for folder, name in symlinks:
            self._link(seen, folder, name)
        self._complete(version)

    def libraries(self) -> tuple[HostFile, ...]:
        return tuple(self._by_number.values())

    def links(self) -> tuple[Link, ...]:
        return tuple(self._links[path] for path in sorted(self._links))

    def _add(self, driver_root: Path, seen: Path, folder: str, name: str) -> None:
        number = _number(seen / folder / name)
        if number is not None:
            self._by_number.setdefault(number, HostFile(f"{driver_root / folder / name}", f"/{folder}/{name}"))

    def _link(self, seen: Path, folder: str, name: str) -> None:
        number = _number(seen / folder / name)
        library = None if number is None else self._by_number.get(number)
        path = f"/{folder}/{name}"
        if library is not None and library.container_path != path:
            self._links[path] = Link(path, library)

    def _complete(self, version: str) -> None:
        """Add the names that programs open, where the host has them not, or as links that lead out of what we see."""
        names = {
            f"libcuda.so.{version}": ("libcuda.so.1", "libcuda.so"),
            f"libnvidia-ml.so.{version}": ("libnvidia-ml.so.1",),
        }
        for library in self._by_number.values():
            folder, _, name = library.container_path.rpartition("/")
            for alias in names.get(name, ()):
                path = f"{folder}/{alias}"
                self._links.setdefault(path, Link(path, library))


def _belongs(name: str, version: str) -> bool:
    """Whether a file is a library of this driver; one of NVVM has a version of its own."""
    return name.startswith("lib") and (name.endswith(f".so.{version}") or name.startswith("libnvidia-nvvm70.so."))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return []


def _number(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # a link to nowhere, or to a place that this process does not see
    return status.st_dev, status.st_ino
