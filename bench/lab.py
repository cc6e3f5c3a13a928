"""What is measured, as processes of their own: Redis, the stand-in API server, extenders, the floor.

The extender runs as it does in a cluster: ``python -m extender`` with default settings. Linux only: costs are read
from /proc.
"""

import asyncio
import contextlib
import json
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.client import Lane
from bench.cluster import NAMESPACE, Fill, Node, make_cluster
from bench.objects import JsonObject
from cli.processes import ServiceProcess
from extender.ledger.embedded import EmbeddedRedis
from fracgpu.errors import UnavailableError

_PATIENCE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a process in MB: now, and the most it ever had."""

    rss_mb: float
    peak_mb: float


class Measured(ServiceProcess):
    """A process of ours whose costs can be read."""

    @property
    def pid(self) -> int:
        """Its process ID."""
        assert self._process is not None  # noqa: S101 (asked of running processes only)
        return self._process.pid

    def cpu_seconds(self) -> float:
        """CPU time that all its threads have used: its POSIX CPU clock, which counts nanoseconds and not ticks."""
        return time.clock_gettime((~self.pid << 3) | 2)  # as clock_getcpuclockid(3) makes it on Linux

    def memory(self) -> Memory:
        """Its resident memory."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        sizes = dict(line.split(":", 1) for line in lines if line.startswith("Vm"))  # name -> "  1234 kB"
        return Memory(*(round(int(sizes[name].split()[0]) / 1000, 1) for name in ("VmRSS", "VmHWM")))


class Lab:
    """A cluster of one size under measurement; made by `open`.

    Attributes:
        nodes: what the API server was filled with.
        api_url: the stand-in API server.
        redis: the ledger's server.
        extenders: those that were started, by `start_extender`.
    """

    def __init__(self, directory: Path, *, nodes: list[Node], api_url: str, redis: EmbeddedRedis) -> None:
        self.nodes = nodes
        self.api_url = api_url
        self.redis = redis
        self.extenders: list[Extender] = []
        self.directory = directory
        self.kubeconfig = directory / "kubeconfig"
        self.kubeconfig.write_text(_kubeconfig(api_url))

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, *, nodes: int, fill: Fill = Fill.USUAL) -> AsyncIterator["Lab"]:
        """Start API server and Redis; everything ends with the context."""
        async with contextlib.AsyncExitStack() as stack:
            # A short path: Unix sockets allow 107 bytes.
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fgb")))
            redis = EmbeddedRedis(directory / "redis")
            await redis.start()
            stack.push_async_callback(redis.stop)
            arguments = ["-m", "bench.apiserver", "--nodes", str(nodes), "--fill", fill]
            api = Measured("apiserver", arguments=arguments, directory=directory)
            await api.start()
            stack.push_async_callback(api.stop)
            lab = cls(directory, nodes=make_cluster(nodes, fill=fill), api_url=await api.ready(), redis=redis)
            stack.push_async_callback(lab.stop_extenders)
            yield lab

    @property
    def names(self) -> list[str]:
        """The names of all nodes."""
        return [node.name for node in self.nodes]

    async def start_extender(self, *flags: str) -> "Extender":
        """Start one more replica; returns when it decides."""
        return await start_extender(
            self.extenders,
            directory=self.directory,
            flags=("--kubeconfig", str(self.kubeconfig), "--redis-url", self.redis.url, *flags),
        )

    async def stop_extenders(self) -> None:
        """End all replicas."""
        while self.extenders:
            await self.extenders.pop().process.stop()

    async def create_pods(self, pods: Sequence[JsonObject]) -> None:
        """Create waiting pods; returns when every extender has seen them."""
        lane = await Lane.open(self.api_url)
        for pod in pods:
            await lane.post(f"/api/v1/namespaces/{NAMESPACE}/pods", json.dumps(pod).encode())
        lane.close()
        last = pods[-1]["metadata"]["name"]
        for extender in self.extenders:
            await extender.until_ok(f"/v1/explain/{NAMESPACE}/{last}")


class Extender:
    """One replica under measurement.

    Attributes:
        process: it.
        url: where it answers kube-scheduler, once it was started.
        pages_url: where it answers others.
        start_seconds: from exec until it was ready to decide.
    """

    def __init__(self, process: Measured) -> None:
        self.process = process
        self.url = ""
        self.pages_url = ""
        self.start_seconds = 0.0

    async def until_ok(self, path: str) -> None:
        """Wait until it answers 200 to this path.

        Raises:
            UnavailableError: it ended.
            TimeoutError: it does not.
        """
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not await asyncio.to_thread(_is_ok, f"{self.pages_url}{path}"):
                if not self.process.is_running:
                    raise UnavailableError(f"{self.process.name} ended: {self.process.log.read_text()[-2000:]}")
                await asyncio.sleep(_POLL_SECONDS)


async def start_extender(running: list[Extender], *, directory: Path, flags: Sequence[str]) -> Extender:
    """Start a replica, wait until it decides, and add it to those that run."""
    process = Measured(
        f"extender-{len(running)}",
        arguments=["-m", "extender", "--port", "0", "--pages-port", "0", *flags],
        directory=directory,
    )
    extender = Extender(process)
    running.append(extender)
    began = time.monotonic()
    await process.start()
    extender.url = await process.ready()
    extender.pages_url = process.urls["pages_url"]
    await extender.until_ok("/readyz")
    extender.start_seconds = time.monotonic() - began
    return extender


def _is_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 (http, ours)
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _kubeconfig(url: str) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": url}}],
            "users": [{"name": "bench", "user": {}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        }
    )
