"""The webhook as the process that a cluster runs, on one core, and the floor beside it on the same; we have the others.

They take turns, so the one that is not asked sleeps. Linux only.
"""

import contextlib
import os
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import trustme

from bench.lab import Measured
from bench.webhook.client import CONNECTIONS, Connection
from bench.webhook.reviews import UNIT_MIB


class Rig:
    """The two processes; made by `open`.

    Attributes:
        webhook: the process under measurement.
        floor: the one that it is compared with.
        url: where the webhook answers.
        authority: who signed their certificate.
        directory: for files.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        issued = self.authority.issue_cert("127.0.0.1")
        cert, key = directory / "tls.crt", directory / "tls.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        tls = ["--tls-cert", str(cert), "--tls-key", str(key)]
        flags = ["-m", "webhook", "--port", "0", "--metrics-port", "0", "--memory-unit-mib", str(UNIT_MIB), *tls]
        self.webhook = Measured("webhook", arguments=flags, directory=directory)
        self.floor = Measured("floor", arguments=["-m", "bench.webhook.floor", *tls], directory=directory)
        self.url = ""
        self._floor_url = ""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, *, is_pinned: bool = True) -> AsyncIterator["Rig"]:
        """Start both; they end with the context, until when we stay off their core if they are pinned to one."""
        async with contextlib.AsyncExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fgb")))
            rig = cls(directory)
            cores = os.sched_getaffinity(0)
            theirs = {max(cores)} if is_pinned else cores
            with _on(theirs):  # inherited by who is started now
                for process in (rig.webhook, rig.floor):
                    await process.start()
                    stack.push_async_callback(process.stop)
            rig.url, rig._floor_url = await rig.webhook.ready(), await rig.floor.ready()
            stack.enter_context(_on(cores - theirs or cores))
            yield rig

    def cpu_seconds_of_others(self) -> float:
        """CPU time of this machine that went neither to the two processes nor to us: whether it is quiet."""
        _cpu, *ticks = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        user, nice, system, _idle, _waiting, *interrupts = map(int, ticks[:8])
        busy = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
        return busy - self.webhook.cpu_seconds() - self.floor.cpu_seconds() - time.process_time()

    @contextlib.contextmanager
    def connections(self, count: int = CONNECTIONS) -> Iterator[list[Connection]]:
        """Connections to the webhook."""
        with self._connected(self.url, count) as found:
            yield found

    @contextlib.contextmanager
    def floor_connections(self, count: int = CONNECTIONS) -> Iterator[list[Connection]]:
        """Connections to the floor."""
        with self._connected(self._floor_url, count) as found:
            yield found

    @contextlib.contextmanager
    def _connected(self, url: str, count: int) -> Iterator[list[Connection]]:
        trusting = ssl.create_default_context()
        self.authority.configure_trust(trusting)
        with contextlib.ExitStack() as stack:
            found = []
            for _ in range(count):
                found.append(Connection(url, tls=trusting))
                stack.callback(found[-1].close)
            yield found


@contextlib.contextmanager
def _on(cores: set[int]) -> Iterator[None]:
    """Run on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
