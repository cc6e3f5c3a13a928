"""The picture of the cluster for many readers at once: whole, or as it changes.

A large cluster's picture takes a third of a second to draw, and kube-scheduler waits in the same event loop: so it is
drawn node by node with pauses, only while somebody looks, and a change is drawn once for all who look. What a slow
reader has not taken yet is replaced by what is newer.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final

import msgspec

from extender.index import Index
from extender.picture import Reasons, age, is_waiting, node_picture, waiting_picture
from fracgpu.names import NodeName
from fracgpu.pods import Pod

MAX_READERS: Final = 32
"""Who may look at the same time."""

_TICK_SECONDS: Final = 1.0
_REASONS_TICKS: Final = 5  # until it is asked again why the same pods wait
_PAUSE_SECONDS: Final = 0.005  # after a walk over all nodes, which takes as long: kube-scheduler's requests go first
_ALIVE_SECONDS: Final = 15.0  # between two signs of life: proxies close what is silent for a minute
_NODES: Final = 20  # nodes drawn in one go: some 1 ms
_BREATH_SECONDS: Final = 0.001  # after that, of a whole picture
_PODS: Final = 500  # pods looked at in one go
_CHUNK_BYTES: Final = 64 * 2**10
_logger = logging.getLogger(__name__)


class Reader:
    """One who looks at the cluster."""

    def __init__(self) -> None:
        self.is_new = True  # and has not been told who waits, but by the picture
        self.nodes: dict[NodeName, bytes | None] = {}  # node -> how it looks now; None where it is gone
        self.waiting: bytes | None = None  # who waits now; None where that has not changed
        self.news = asyncio.Event()

    def take(self) -> bytes:
        """What has changed since the last time, as JSON."""
        self.news.clear()
        drawn = b",".join(drawn for drawn in self.nodes.values() if drawn is not None)
        gone = msgspec.json.encode([name for name, drawn in self.nodes.items() if drawn is None])
        waiting = self.waiting or b"null"
        self.nodes, self.waiting = {}, None
        return b'{"nodes":[%b],"gone":%b,"waiting":%b}' % (drawn, gone, waiting)


class Feed:
    """Draws the cluster for those who look at it.

    Args:
        index: the cluster.
        pods: those that ask for GPUs.
    """

    def __init__(self, index: Index, *, pods: Callable[[], Iterable[Pod]]) -> None:
        self._index = index
        self._pods = pods
        self._readers: set[Reader] = set()
        self._waiting: bytes = b""  # as it was told last
        self._waiting_pods: list[Pod] = []  # of whom that was
        self._ticks = 0  # since then
        self._pen = asyncio.Lock()  # whoever draws: all of them together leave half of the time to others
        self._closing = asyncio.Event()

    @property
    def readers(self) -> int:
        """How many look."""
        return len(self._readers)

    def join(self) -> Reader | None:
        """Be one of those who look, until `leave`; None where there is no room for one more."""
        if len(self._readers) >= MAX_READERS:
            return None
        reader = Reader()
        self._readers.add(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        """Make room for another."""
        self._readers.discard(reader)

    async def run(self) -> None:
        """Tell the readers of changes, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            touched = set(self._index.touched)
            self._index.touched.clear()
            if self._readers:
                try:
                    await self._tell(touched)
                except Exception:  # whatever is wrong with a picture, pods are placed without it
                    _logger.exception("defect", extra={"nodes": len(touched)})

    def close(self) -> None:
        """End what readers follow, so that the server can stop."""
        self._closing.set()
        for reader in self._readers:
            reader.news.set()

    async def picture(self) -> AsyncIterator[bytes]:
        """The whole cluster as JSON (see `extender.picture.Picture`), in pieces."""
        part = bytearray(b'{"memoryUnitMiB":%d,"nodes":[' % self._index.unit)
        separator = b""
        names = sorted(self._index.nodes)
        for begin in range(0, len(names), _NODES):
            async with self._pen:
                for drawn in map(self._draw, names[begin : begin + _NODES]):
                    if drawn is not None:
                        part += separator + drawn
                        separator = b","
                await asyncio.sleep(_BREATH_SECONDS)
            if len(part) > _CHUNK_BYTES:
                yield bytes(part)
                part.clear()
        part += b'],"waiting":'
        part += await self._draw_waiting(await self._find_waiting())
        part += b"}"
        yield bytes(part)

    async def changes(self, reader: Reader) -> AsyncIterator[bytes]:
        """Server-sent events: the whole picture, then what changes, as long as anybody reads.

        The reader has joined before, so that nothing is lost that changes while the picture is drawn.
        """
        yield b"retry: 2000\nevent: picture\ndata: "
        async for part in self.picture():
            yield part
        yield b"\n\n"
        while not self._closing.is_set():
            try:
                async with asyncio.timeout(_ALIVE_SECONDS):
                    await reader.news.wait()
            except TimeoutError:
                yield b": alive\n\n"
                continue
            if not self._closing.is_set():
                yield b"event: change\ndata: %b\n\n" % reader.take()

    async def _tell(self, touched: set[NodeName]) -> None:
        for count, name in enumerate(sorted(touched), start=1):
            drawn = self._draw(name)
            for reader in self._readers:
                reader.nodes[name] = drawn
            if count % _NODES == 0:
                await asyncio.sleep(0)
        is_new = await self._draw_waiting_again()
        for reader in self._readers:
            if is_new or reader.is_new:
                reader.waiting, reader.is_new = self._waiting, False
                reader.news.set()
            if touched:
                reader.news.set()

    def _draw(self, name: NodeName) -> bytes | None:
        node = self._index.nodes.get(name)
        return None if node is None else msgspec.json.encode(node_picture(self._index, node))

    async def _draw_waiting_again(self) -> bool:
        """Draw who waits, if that has changed or some time has passed; whether it looks different."""
        found = await self._find_waiting()
        self._ticks += 1
        if self._waiting and found == self._waiting_pods and self._ticks < _REASONS_TICKS:
            return False
        drawn = await self._draw_waiting(found)
        is_new = drawn != self._waiting
        self._waiting, self._waiting_pods, self._ticks = drawn, found, 0
        return is_new

    async def _find_waiting(self) -> list[Pod]:
        """The pods that wait, the oldest first."""
        found = []
        for count, pod in enumerate(list(self._pods()), start=1):
            if is_waiting(self._index, pod):
                found.append(pod)
            if count % _PODS == 0:
                await asyncio.sleep(0)
        return sorted(found, key=age)

    async def _draw_waiting(self, pods: Sequence[Pod]) -> bytes:
        reasons = Reasons(self._index)
        drawn = []
        for count, pod in enumerate(pods, start=1):
            known = len(reasons)
            async with self._pen:
                drawn.append(waiting_picture(self._index, pod, reasons=reasons))
                if len(reasons) > known:
                    await asyncio.sleep(_PAUSE_SECONDS)
            if count % _PODS == 0:
                await asyncio.sleep(0)
        return msgspec.json.encode(drawn)
