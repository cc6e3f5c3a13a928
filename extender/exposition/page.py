"""The page that Prometheus reads: what was counted, and the cluster at that moment. An ASGI app for ``/metrics``.

A cluster of 5000 nodes has 40 MB of it. So nothing of it is kept, it is made in slices of well under a millisecond,
between which verbs are answered, and it is compressed in a thread. Nodes are views that never change, all of them taken
at the beginning: sums and single GPUs agree, whatever happens meanwhile.
"""

import asyncio
import logging
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from itertools import islice
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, Metric, generate_latest
from prometheus_client.registry import Collector

from extender.exposition.gpus import GPU_HELP, NodeRow, gpu_lines, row_of
from extender.exposition.models import (
    FRAGMENTATION,
    FRAGMENTATION_HELP,
    ModelTotals,
    add_to,
    fragmentation_of,
    model_lines,
)
from extender.exposition.queue import WaitingPods
from extender.exposition.slices import slices
from extender.exposition.text import escaped, head
from extender.index import Index
from extender.ledger.claims import ClaimState
from extender.metrics import Metrics
from extender.reconciler import Reconciler
from fracgpu.process.serving import hang_up

_NODES: Final = 20  # that are looked at in one go
_LINES: Final = 500  # that are made in one go
_CLAIMS: Final = 2000  # that are counted in one go
_BLOCK: Final = 2**19  # bytes that are compressed in one go, in a thread
_AT_ONCE: Final = 3
_UNREAD_SECONDS: Final = 3.0  # for which a reader may leave what it was sent where it is, while others wait
_LONGEST_SECONDS: Final = 30.0  # Prometheus gives up after 10 by default, and others want to read too
_FASTEST: Final = 1
_GZIP: Final = 16 + zlib.MAX_WBITS

_Message = MutableMapping[str, Any]
_logger = logging.getLogger(__name__)


class MetricsPage:
    """Answers GET and HEAD.

    Args:
        metrics: what was counted.
        index: the cluster.
        reconciler: keeps it, and knows the pods.
        seconds: how long a reader may take, those before it included.
    """

    def __init__(
        self, *, metrics: Metrics, index: Index, reconciler: Reconciler, seconds: float = _LONGEST_SECONDS
    ) -> None:
        self._metrics = metrics
        self._index = index
        self._reconciler = reconciler
        self._waiting = WaitingPods(index=index, reconciler=reconciler)
        self._seconds = seconds
        # Few at a time: whoever may read the page may not keep us busy with it.
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def __call__(
        self,
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        """Answer one request."""
        headers = [(b"content-type", CONTENT_TYPE_LATEST.encode()), (b"vary", b"Accept-Encoding")]
        is_compressed = _takes_gzip(scope["headers"])
        if is_compressed:
            headers.append((b"content-encoding", b"gzip"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] != "HEAD":
            try:
                async with asyncio.timeout(self._seconds), self._turns:
                    async for part in _compressed(self.parts()) if is_compressed else self.parts():
                        async with asyncio.timeout(_UNREAD_SECONDS):
                            await send({"type": "http.response.body", "body": part, "more_body": True})
            except TimeoutError:
                _logger.warning("metrics were read too slowly", extra={"address": (scope.get("client") or [""])[0]})
                hang_up(scope)
                await asyncio.sleep(0)  # else the server would take it for an answer that was left unfinished
                return
        await send({"type": "http.response.body", "body": b""})

    async def parts(self) -> AsyncIterator[bytes]:
        """The page in parts, each made in one go."""
        for metric in self._metrics.registry.collect():
            yield generate_latest(_Only(metric))
            await asyncio.sleep(0)
        rows, totals = await self._look_at_nodes()
        yield self._state(rows).encode()
        yield "".join(model_lines(totals)).encode()
        yield (await self._fragmentation(totals)).encode()
        yield (await self._claims()).encode()
        yield (await self._waiting.text([row.view for row in rows if row.is_counted])).encode()
        for name, text in GPU_HELP.items():
            yield head(name, text).encode()
            lines = gpu_lines(name, rows)
            while part := "".join(islice(lines, _LINES)):
                yield part.encode()
                await asyncio.sleep(0)

    async def _look_at_nodes(self) -> tuple[list[NodeRow], dict[str, ModelTotals]]:
        rows: list[NodeRow] = []
        totals: dict[str, ModelTotals] = {}
        async for names in slices(list(self._index.nodes), size=_NODES):
            for name in names:
                node, view = self._index.nodes.get(name), self._index.view(name)
                if node is not None and view is not None:
                    rows.append(row_of(node, view, unit=self._index.unit))
                    add_to(totals, rows[-1])
        return rows, totals

    def _state(self, rows: list[NodeRow]) -> str:
        gauges = {
            "fracgpu_extender_ready": (
                "1 while this replica may decide: it has read the cluster, and the ledger is valid.",
                int(self._reconciler.ready.is_set()),
            ),
            "fracgpu_extender_watches_current": (
                "1 while pods and GPUNodes can be followed at the API server.",
                int(self._reconciler.is_current),
            ),
            "fracgpu_cluster_nodes": ("Nodes with a GPUNode.", len(rows)),
        }
        return "".join(f"{head(name, text)}{name} {value}\n" for name, (text, value) in gauges.items())

    async def _fragmentation(self, totals: dict[str, ModelTotals]) -> str:
        weights = self._index.policies.fills.mix.weights
        text = head(FRAGMENTATION, FRAGMENTATION_HELP)
        for model, found in sorted(totals.items()):
            ratio = fragmentation_of(model, found, weights)
            text += f'{FRAGMENTATION}{{product="{escaped(model)}"}} {ratio:.6g}\n'
            await asyncio.sleep(0)
        return text

    async def _claims(self) -> str:
        counts: Counter[ClaimState] = Counter(dict.fromkeys(ClaimState, 0))
        async for entries in slices(list(self._index.entries.values()), size=_CLAIMS):
            counts.update(entry.claim.state for entry in entries)
        name = "fracgpu_cluster_claims"
        lines = (f'{name}{{state="{state}"}} {count}\n' for state, count in counts.items())
        return head(name, "Claims in the ledger, by how far their pods are.") + "".join(lines)


class _Only(Collector):
    """One metric as a registry of its own."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return [self._metric]


def _takes_gzip(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    accepted = b",".join(value for name, value in headers if name == b"accept-encoding").lower()
    return any(
        part.partition(b";")[0].strip() == b"gzip" and not part.replace(b" ", b"").endswith((b";q=0", b";q=0.0"))
        for part in accepted.split(b",")
    )


async def _compressed(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same parts through gzip, in blocks, so that the thread is worth its while."""
    packer = zlib.compressobj(_FASTEST, zlib.DEFLATED, _GZIP)
    block: list[bytes] = []
    size = 0
    async for part in parts:
        block.append(part)
        size += len(part)
        if size >= _BLOCK:
            packed = await asyncio.to_thread(packer.compress, b"".join(block))
            block, size = [], 0
            if packed:
                yield packed
    yield packer.compress(b"".join(block)) + packer.flush()
