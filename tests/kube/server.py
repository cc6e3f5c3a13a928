"""A scripted API server on loopback: it lists what the test put in, and each watch is in the test's hands."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

JsonObject = dict[str, Any]


def make_pod(uid: str, *, version: int, name: str = "", **more: Any) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name or uid, "namespace": "default", "uid": uid, "resourceVersion": str(version)},
        "spec": {"nodeName": "", "containers": [{"name": "main"}]},
        **more,
    }


def status(code: int, reason: str, message: str = "") -> JsonObject:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # lower-case name -> value
    body: bytes


class Watch:
    """One connected watch; the test says what comes through it."""

    def __init__(self, query: dict[str, str]) -> None:
        self.query = query
        self._outbox: asyncio.Queue[bytes | type[ConnectionError] | None] = asyncio.Queue()

    def send(self, kind: str, obj: JsonObject) -> None:
        self.send_bytes(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

    def bookmark(self, version: int) -> None:
        self.send("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": str(version), "creationTimestamp": None}})

    def send_bytes(self, data: bytes) -> None:
        self._outbox.put_nowait(data)

    def end(self) -> None:
        """End the answer properly, as at timeoutSeconds."""
        self._outbox.put_nowait(None)

    def cut(self) -> None:
        """Break the connection after what has been sent."""
        self._outbox.put_nowait(ConnectionError)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        while isinstance(data := await self._outbox.get(), bytes):
            await response.write(data)
        if data is not None and request.transport is not None:
            request.transport.close()
        return response


@dataclass
class Server:
    """What the server knows and what it has seen."""

    url: str = ""
    version: int = 1
    pods: list[JsonObject] = field(default_factory=list)
    refusals: deque[tuple[str, int, bytes]] = field(default_factory=deque)  # (kind of request, status, body)
    seen: list[Seen] = field(default_factory=list)
    watches: asyncio.Queue[Watch] = field(default_factory=asyncio.Queue)
    answers: deque[JsonObject] = field(default_factory=deque)  # bodies for what is neither list nor watch
    hang: asyncio.Event | None = None  # while it is there and not set, requests get no answer

    def refuse(self, what: str, code: int, reason: str = "", *, body: bytes | None = None, times: int = 1) -> None:
        """Refuse the next requests of this kind: "list", "watch" or a method."""
        answer = json.dumps(status(code, reason)).encode() if body is None else body
        self.refusals.extend([(what, code, answer)] * times)

    def count(self, what: str) -> int:
        return sum(_kind(seen.method, seen.query) == what for seen in self.seen)

    def kubeconfig(self, directory: Path, *, url: str = "") -> Path:
        path = directory / "kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "clusters": [{"name": "test", "cluster": {"server": url or self.url}}],
                    "users": [{"name": "test", "user": {"token": "secret"}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                }
            )
        )
        return path

    async def answer(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.method, request.path, query, headers, await request.read()))
        if self.hang is not None:
            await self.hang.wait()
        what = _kind(request.method, query)
        if self.refusals and self.refusals[0][0] == what:
            _, code, body = self.refusals.popleft()
            return web.Response(status=code, body=body, content_type="application/json")
        if what == "watch":
            watch = Watch(query)
            self.watches.put_nowait(watch)
            return await watch.serve(request)
        return web.json_response(self._list(query) if what == "list" else self.answers.popleft())

    def _list(self, query: dict[str, str]) -> JsonObject:
        start, limit = int(query.get("continue", "0")), int(query["limit"])
        following = str(start + limit) if start + limit < len(self.pods) else ""
        metadata = {"resourceVersion": str(self.version), "continue": following}
        return {"kind": "PodList", "metadata": metadata, "items": self.pods[start : start + limit]}


def _kind(method: str, query: dict[str, str]) -> str:
    if method != "GET":
        return method
    return "watch" if "watch" in query else "list" if "limit" in query else "GET"


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()
