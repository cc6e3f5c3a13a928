"""The plugin's process: reads what it was told, finds the GPUs, and lives one life of the device plugin after another.

A life ends when the process is to end, or when something has changed that only another life can follow: a setting, the
GPUs or their driver, the isolation. The next one is prepared while the old one goes on; where it cannot be, the old one
stays, and it is tried again. What outlasts them: the kubelet's view of us, the watch over the GPUs, metrics and probes.
Grants are in the journal, containers run on.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from fracgpu.errors import FracgpuError
from fracgpu.process.running import errors_in
from fracgpu.trouble import TroubleLog
from plugin.gpus.session import RETRY_SECONDS
from plugin.lasting import Lasting
from plugin.life import Life, first_of
from plugin.settings import PluginSettings
from plugin.sharing.file import PluginFile

_logger = logging.getLogger(__name__)


async def serve(argv: Sequence[str], settings: PluginSettings, file: PluginFile, stop: asyncio.Event) -> None:
    """Run the device plugin until `stop` is set.

    Args:
        argv: the command line, by which a changed file is read.
        settings: what it and the file said.
        file: the file.
        stop: set when the process is to end.

    Raises:
        SettingError: a setting cannot be used on this node.
        UnavailableError: NVML does not answer.
    """
    lasting = Lasting()
    trouble = TroubleLog(_logger, subject="following a change; what was before stays in force", clock=time.monotonic)
    life: Life | None = None
    try:
        while True:
            if life is not None:
                await first_of(stop, life.over, life.changed, lasting.gpus.changed, lasting.gpus.broken)
                life.raise_for_defect()
            if stop.is_set():
                break
            following = Life(argv, *(life.next if life else (settings, file)), lasting)
            try:
                is_prepared = await _done_unless(stop, following.prepare(is_first=life is None))
            except (FracgpuError, ExceptionGroup) as exc:
                await following.end()
                errors = list(errors_in(exc))
                if life is None or not all(isinstance(error, FracgpuError) for error in errors):
                    raise
                trouble.failed(FracgpuError("; ".join(map(str, errors))))
                await life.reconsider(stop, seconds=RETRY_SECONDS)
                continue
            except BaseException:
                await following.end()
                raise
            if not is_prepared:
                await following.end()
                break
            trouble.succeeded()
            if life is not None:
                await life.end()
            life = following
            await life.serve()
    finally:
        if life is not None:
            await life.end()
        await lasting.close()


async def _done_unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do some work; whether it was done before the process is to end."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
        return working.done()
    finally:
        stopping.cancel()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
