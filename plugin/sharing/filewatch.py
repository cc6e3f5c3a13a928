"""Notices that the plugin's file has changed, and reads it again.

The content is compared, not the file's dates: a ConfigMap's mount swaps symbolic links. A file that cannot be used
changes nothing, and is told once. Which of the settings take effect without a restart is the caller's business.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from fracgpu.errors import SettingError
from fracgpu.process.configfile import read_config
from plugin.settings import PluginSettings
from plugin.sharing.file import PluginFile, digest_of, load_settings

CHECK_SECONDS: Final = 1.0


class FileWatch:
    """Watches the file that settings were read from.

    Args:
        argv: the command line that `load_settings` was called with.
        path: the file.
        file: what it said then.
        changed: called with settings and file when it says something else that can be used, and when it can be used
            again.
        failed: called with a sentence when it cannot be used, for whatever was read before to stay in force.
        check_seconds: between two looks at the file.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        path: Path,
        file: PluginFile,
        changed: Callable[[PluginSettings, PluginFile], None],
        failed: Callable[[str], None],
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._argv = argv
        self._path = path
        self._seen = file.digest  # of the content, or why there is none
        self._changed = changed
        self._failed = failed
        self._check_seconds = check_seconds

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(self._check_seconds)
            await self.check()

    async def check(self) -> None:
        """Look at the file once."""
        seen = await asyncio.to_thread(self._look)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            settings, file = await asyncio.to_thread(load_settings, self._argv)
        except SettingError as exc:
            self._failed(f"{exc}; what was read before stays in force")
        else:
            self._seen = file.digest  # it may have changed once more since
            self._changed(settings, file)

    def _look(self) -> str:
        try:
            return digest_of(read_config(self._path))
        except SettingError as exc:
            return str(exc)
