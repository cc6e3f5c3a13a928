"""A stand-in for kube-apiserver, made to cost little: ``python -m bench.apiserver --nodes 5000``.

Lists (limit and continue), watches (bookmarks, timeoutSeconds), reads of one pod, creating pods, Bindings, and events,
of a cluster from `bench.cluster`, over plain HTTP/1.1. The objects are encoded once and a Binding costs some 50 µs, so
that what is measured is the extender. Left out: everything else, which is answered 404; the playground has a faithful
one.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator
from typing import Final, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import httptools
import msgspec
from pydantic import Field

from bench.cluster import Fill
from bench.store import Collection, Refusal, Store
from fracgpu.process.running import announce_ready, prepare_process, run_service
from fracgpu.process.settings import ServiceSettings

_BOOKMARK_SECONDS: Final = 30.0  # a client takes a watch that says nothing for 90 s for dead
_BINDING_DONE: Final = b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":201}'


class ApiServerSettings(ServiceSettings):
    """Stand-in for kube-apiserver, for benchmarks."""

    nodes: int = Field(100, ge=0)
    """How many nodes the cluster has."""

    fill: Fill = Fill.USUAL
    """How full it is: usual or tight."""


class _Connection(asyncio.Protocol):
    """One client's connection; requests are answered at once, in their order."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._body: list[bytes] = []
        self._end_watch: Callable[[], None] = lambda: None
        self._transport: asyncio.Transport

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # a TCP server makes no other; uvloop has its own class

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_watch()

    # httptools' side.

    def on_message_begin(self) -> None:
        self._target = b""
        self._body.clear()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        split = urlsplit(self._target.decode())
        query = dict(parse_qsl(split.query))
        collection = self._store.collections.get(split.path)
        try:
            if collection is not None and query.get("watch") == "true":
                self._watch(collection, query)
            elif collection is not None:
                self._answer(200, _list(self._store, collection, query))
            else:
                self._answer(*self._one_object(split.path))
        except Refusal as exc:
            self._answer(exc.code, _status(exc))

    def _one_object(self, path: str) -> tuple[int, bytes]:
        method = self._parser.get_method()
        parts = unquote(path).split("/")
        match method, parts:
            case b"GET", ["", "readyz"]:
                return 200, b"ok"
            case b"POST", ["", "api", "v1", "namespaces", _, "pods"]:
                return 201, self._store.create_pod(b"".join(self._body))
            case b"GET", ["", "api", "v1", "namespaces", namespace, "pods", name]:
                return 200, self._store.pod(f"{namespace}/{name}")
            case b"POST", ["", "api", "v1", "namespaces", namespace, "pods", name, "binding"]:
                self._store.bind(f"{namespace}/{name}", b"".join(self._body))
                return 201, _BINDING_DONE
            case b"PATCH", ["", "api", "v1", "namespaces", _, "events", _]:
                return 200, b"".join(self._body)  # as if it were kept
        raise Refusal(404, "NotFound", f"the stand-in API server does not know {method.decode()} {path}")

    def _answer(self, status: int, body: bytes) -> None:
        head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.writelines((head.encode(), body))

    def _watch(self, collection: Collection, query: dict[str, str]) -> None:
        loop = asyncio.get_running_loop()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        self._transport.write(head)
        for line in collection.changes_after(int(query.get("resourceVersion") or self._store.version)):
            self._tell(line)
        collection.watchers.add(self._tell)
        timers = set[asyncio.TimerHandle]()

        def remind() -> None:
            self._tell(collection.bookmark(self._store.version))
            timers.add(loop.call_later(_BOOKMARK_SECONDS, remind))

        def end() -> None:
            self._end_watch()
            self._transport.write(b"0\r\n\r\n")

        def forget() -> None:
            collection.watchers.discard(self._tell)
            for timer in timers:
                timer.cancel()
            self._end_watch = lambda: None

        self._end_watch = forget
        timers.add(loop.call_later(_BOOKMARK_SECONDS, remind))
        timers.add(loop.call_later(int(query.get("timeoutSeconds", "3600")), end))

    def _tell(self, line: bytes) -> None:
        self._transport.writelines((f"{len(line):x}\r\n".encode(), line, b"\r\n"))


def _list(store: Store, collection: Collection, query: dict[str, str]) -> bytes:
    named = dict(_equalities(query.get("fieldSelector", "")))
    if named:
        key = "/".join(filter(None, (named.get("metadata.namespace"), named.get("metadata.name"))))
        return collection.only([key], resource_version=store.version)
    start, limit = int(query.get("continue", "0")), int(query.get("limit", "0"))
    return collection.page(start=start, limit=limit, resource_version=store.version)


def _equalities(selector: str) -> Iterator[tuple[str, str]]:
    """What a field selector demands; that a pod has not ended is true of all pods here."""
    for term in filter(None, selector.split(",")):
        field, _, value = term.partition("=")
        if field in ("metadata.name", "metadata.namespace"):
            yield field, value
        elif not term.startswith("status.phase!="):
            raise Refusal(400, "BadRequest", f"the stand-in API server cannot select by {term}")


def _status(refusal: Refusal) -> bytes:
    answer = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    return msgspec.json.encode({**answer, "code": refusal.code, "reason": refusal.reason, "message": str(refusal)})


async def _serve(stop: asyncio.Event) -> None:
    settings = ApiServerSettings.load(sys.argv[1:])
    prepare_process(settings)
    store = Store(settings.nodes, fill=settings.fill)
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(store), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    announce_ready(f"http://127.0.0.1:{port}", ready_file=settings.ready_file)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    sys.exit(run_service(_serve))
