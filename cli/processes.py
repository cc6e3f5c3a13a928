"""A service as a child process: started with its own log, waited for, stopped or killed."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from fracgpu.errors import UnavailableError
from fracgpu.process.parent import ending_with_us
from fracgpu.process.settings import ENV_PREFIX

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05


class ServiceProcess:
    """One process of ours, run as ``python ARGUMENTS``; it ends with us, however we end.

    Attributes:
        name: for people, and of its log file.
        log: where its output goes.
        urls: name -> URL of all that it serves, as it announced it when it was last waited for.
    """

    def __init__(self, name: str, *, arguments: list[str], directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self.urls: dict[str, str] = {}
        self._arguments = arguments
        self._ready_file = directory / f"{name}.ready"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it; returns at once."""
        self._ready_file.unlink(missing_ok=True)
        arguments = [
            *self._arguments,
            *("--ready-file", str(self._ready_file)),
            *("--exit-with-parent", str(os.getpid())),
        ]
        # Its settings are its flags: nothing of the user's own environment may change what the demo shows.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *ending_with_us(sys.executable, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    async def ready(self) -> str:
        """Wait until it says that it is serving.

        Returns:
            Its URL.

        Raises:
            UnavailableError: it ended, or took too long; with the last lines of its log.
        """
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not self._ready_file.exists():
                    if not self.is_running:
                        raise UnavailableError(f"{self.name} ended at its start:\n{self._last_lines()}")
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as exc:
            raise UnavailableError(
                f"{self.name} was not ready after {_START_SECONDS:.0f} s:\n{self._last_lines()}"
            ) from exc
        self.urls = msgspec.json.decode(self._ready_file.read_bytes(), type=dict[str, str])
        return self.urls["url"]

    async def stop(self) -> None:
        """Ask it to end, and kill it when it does not."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it as a crash would."""
        await self._end(signal.SIGKILL)

    async def _end(self, sig: signal.Signals) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(sig)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _last_lines(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])
