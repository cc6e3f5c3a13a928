"""CDI specifications on the disk: our own, and what others have put there.

Of the others' only what is needed to know which devices a runtime can resolve; the runtime checks more.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from fracgpu.errors import UnavailableError
from fracgpu.names import CDI_KIND
from plugin.injection.specification import OWN_KIND, Specification

OWN_FILE: Final = f"{OWN_KIND.replace('/', '-')}.json"
"""The name of our file."""


class OwnSpecFile:
    """Our specification in one folder."""

    def __init__(self, folder: Path) -> None:
        self.path: Final = folder / OWN_FILE

    def read(self) -> Specification | None:
        """What it says; None where there is none, or none that can be read."""
        try:
            found = msgspec.json.decode(self.path.read_bytes())
        except (OSError, msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def write(self, wanted: Specification) -> None:
        """Replace it in one step.

        Raises:
            UnavailableError: that did not work; the old one is still there.
        """
        # Not .json: a runtime would read a draft that a crash left behind.
        draft = self.path.with_name(f"{OWN_FILE}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(wanted), indent=2) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        except OSError as exc:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise UnavailableError(
                f"the CDI specification {self.path} cannot be written ({exc.strerror}), and without it the container "
                "runtime does not know this node's GPUs: that folder (cdi_spec_dir) has to be writable and have free "
                "space; it is tried again"
            ) from exc

    def remove(self) -> None:
        """Take it away.

        Raises:
            UnavailableError: that did not work.
        """
        try:
            self.path.unlink(missing_ok=True)
        except OSError as exc:
            raise UnavailableError(
                f"the CDI specification {self.path}, which is no longer needed, cannot be removed ({exc.strerror}): "
                "that folder (cdi_spec_dir) has to be writable; it is tried again"
            ) from exc


@dataclass(frozen=True, slots=True)
class Provided:
    """Devices of NVIDIA's kind that a runtime can resolve, and the files that it cannot read."""

    names: frozenset[str]
    unreadable: tuple[str, ...] = ()


def find_provided(folders: Iterable[Path]) -> Provided:
    """Look for devices of the kind ``nvidia.com/gpu``.

    As in a runtime: files of a folder itself that end in .json or .yaml; one that is malformed counts for nothing; a
    device that two files of one folder define is nobody's.
    """
    names: set[str] = set()
    contested: set[str] = set()
    unreadable: list[str] = []
    for folder in folders:
        counted: Counter[str] = Counter()
        for path in _files(folder):
            found = _devices(path)
            if found is None:
                unreadable.append(str(path))
            else:
                counted.update(found)
        names.update(counted)
        contested.update(name for name, times in counted.items() if times > 1)
    return Provided(frozenset(names - contested), tuple(unreadable))


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in (".json", ".yaml") and path.is_file())
    except OSError:
        return []


def _devices(path: Path) -> list[str] | None:
    """The devices of NVIDIA's kind in a file; None where it is no specification."""
    spec = _load(path)
    if not isinstance(spec, dict) or not isinstance(spec.get("cdiVersion"), str):
        return None
    devices = spec.get("devices")
    if not isinstance(devices, list) or not devices:
        return None
    names: list[str] = []
    for device in devices:
        if not isinstance(device, dict) or not isinstance(device.get("name"), str):
            return None
        edits = device.get("containerEdits")
        if not isinstance(edits, dict) or not edits:
            return None
        names.append(device["name"])
    if len(set(names)) < len(names):
        return None
    return names if spec.get("kind") == CDI_KIND else []


def _load(path: Path) -> Any:
    try:
        text = path.read_bytes()
        if path.suffix == ".json":
            return msgspec.json.decode(text)
        # Not the loader of libyaml, which is faster: deep nesting makes it crash the process.
        return yaml.safe_load(text)
    except (OSError, msgspec.DecodeError, yaml.YAMLError, ValueError, RecursionError):
        return None
