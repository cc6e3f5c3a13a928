"""The plugin's file: settings and rules of sharing in one YAML document, in our own form or in NVIDIA's.

`parse_file` is pure; `load_settings` reads. What the rules come to on a node is decided in `resolving`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fracgpu.errors import SettingError
from fracgpu.process.configfile import parse_config, read_config, shown
from fracgpu.process.settings import file_key
from fracgpu.sharing import SharingSpec
from plugin.settings import PluginSettings
from plugin.sharing.nvidia import read_nvidia
from plugin.sharing.reading import read_specs

OWN_VERSION: Final = "v1alpha1"
NVIDIA_VERSION: Final = "v1"
UNDER_SHARING: Final = ("replicas", "reserved_mib", "isolation")
"""Settings that a flag gives for the whole node, and a file under `sharing` only, where it can say for which GPUs."""


@dataclass(frozen=True, slots=True)
class PluginFile:
    """What a file says.

    Attributes:
        settings: key in camelCase -> value, not yet checked.
        sharing: rules of sharing; of equally specific ones the first wins.
        messages: a sentence for each field that has no meaning here; to be logged.
        digest: of its content, to notice changes; empty where there is no file.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    sharing: tuple[SharingSpec, ...] = ()
    messages: tuple[str, ...] = ()
    digest: str = ""


def load_settings(argv: Sequence[str]) -> tuple[PluginSettings, PluginFile]:
    """Read flags, environment and the file that they name.

    `replicas`, `reserved_mib` and `isolation` of the settings are None where neither flag nor variable gave them.

    Args:
        argv: the command line without the program's name.

    Raises:
        SettingError: one line for each setting that is missing or unusable.
        SystemExit: after ``--help``.
    """
    file = PluginFile()

    def read(path: Path) -> Mapping[str, Any]:
        nonlocal file
        content = read_config(path)
        try:
            file = parse_file(content)
        except SettingError as exc:
            raise SettingError(f"{path} cannot be used: {exc}") from exc
        return file.settings

    settings = PluginSettings.load(argv, read=read, not_in_file=UNDER_SHARING)
    return settings, file


def parse_file(content: bytes) -> PluginFile:
    """Read a file's content.

    Raises:
        SettingError: it is in neither form, or its rules cannot be. The sentence does not name the file.
    """
    document = parse_config(content)
    version = document.get("version")
    messages: tuple[str, ...] = ()
    if version == OWN_VERSION:
        settings, sharing = _read_own(document)
    elif version == NVIDIA_VERSION:
        settings, sharing, messages = read_nvidia(document)
    else:
        raise SettingError(
            f"version is {'missing' if version is None else shown(version)}; it must be {OWN_VERSION} (fracgpu's form) "
            f"or {NVIDIA_VERSION} (that of NVIDIA's device plugin)"
        )
    return PluginFile(settings, sharing, messages, digest_of(content))


def digest_of(content: bytes) -> str:
    """What tells one content from another."""
    return hashlib.sha256(content).hexdigest()


def _read_own(document: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[SharingSpec, ...]]:
    settings = {key: value for key, value in document.items() if key not in ("version", "sharing")}
    misplaced = {file_key(name).lower(): file_key(name) for name in UNDER_SHARING}
    for key in settings:
        if key.lower() in misplaced:
            name = misplaced[key.lower()]
            raise SettingError(f"{key} has no place at the top level; put it under sharing: [{{{name}: ...}}]")
    sharing = document.get("sharing")
    return settings, () if sharing is None else read_specs(sharing, at="sharing")
