"""A library of the administrator's that every program of a container loads before all others (HAMi-core, for example).

It stands between a program and the CUDA driver. A program that is linked statically, or that talks to the device nodes
by itself, passes it by; and where it comes in by LD_PRELOAD, also one that unsets that. So this is never called
enforced.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from fracgpu.errors import SettingError
from fracgpu.gpunodes import IsolationStatus
from fracgpu.names import GpuUuid
from plugin.handout import Edits, LentShare, Mount
from plugin.isolation.mechanism import StandingIsolation, sentences
from plugin.isolation.templates import EnvTemplate, MountTemplate

LOADER_LIST: Final = "/etc/ld.so.preload"
"""What the loader reads besides LD_PRELOAD, and no program can unset. Where it is mounted, LD_PRELOAD is not set."""

NO_LIBRARY: Final = "it needs a library of your own (preload_library), and none is set"
_MEANING: Final = (
    "{library} is loaded into the programs of containers to keep them within their shares, but a program can pass it "
    "by{override}: this stops mistakes, not malice"
)


class PreloadTemplate:
    """What an administrator has set for the library.

    Args:
        library: its path on the host, and in containers.
        env: variables for it, NAME=TEMPLATE.
        mounts: what it needs besides, HOST_PATH:CONTAINER_PATH[:rw].

    Raises:
        SettingError: one of them cannot be used.
    """

    def __init__(self, library: Path, *, env: Sequence[str], mounts: Sequence[str]) -> None:
        if not library.is_absolute() or any(character in str(library) for character in " :"):
            raise SettingError(
                f"preload_library is {str(library)!r}; it has to be an absolute path on the host, without spaces and "
                "colons, which separate libraries in LD_PRELOAD"
            )
        self.library = str(library)
        self.env = tuple(EnvTemplate(text) for text in env)
        self.mounts = tuple(MountTemplate(text) for text in mounts)

    @property
    def by_loader_list(self) -> bool:
        """Whether the administrator brings the loader's list, so that LD_PRELOAD is not needed."""
        return any(mount.container == LOADER_LIST for mount in self.mounts)


class Preload(StandingIsolation):
    """Brings the library into containers.

    Args:
        template: which, and what it is told.
        why_not_more: why this node has nothing stronger; empty where this was chosen.
    """

    def __init__(self, template: PreloadTemplate, *, why_not_more: str = "") -> None:
        override = "" if template.by_loader_list else ", and a pod can set LD_PRELOAD to something else"
        meaning = _MEANING.format(library=template.library, override=override)
        super().__init__(IsolationStatus("preload", enforced=False, message=sentences(meaning, why_not_more)))
        self._template = template

    def edits(self, shares: Sequence[LentShare], *, neighbours: Mapping[GpuUuid, int]) -> Edits:
        """Mount the library read-only, have it loaded, and tell it the shares."""
        library = self._template.library
        env: dict[str, str] = {} if self._template.by_loader_list else {"LD_PRELOAD": library}
        for variable in self._template.env:
            env.update(variable.filled(shares))
        mounts = (Mount(library, library), *(mount.filled(shares) for mount in self._template.mounts))
        return Edits(env=env, mounts=mounts)
