"""What people and monitoring read: the web page, the picture behind it, why a pod waits, metrics, probes.

Everything here is read-only. Verbs are `extender.app`'s part, on another port.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, Protocol

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.datastructures import MutableHeaders
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from extender.callers import PROBES
from extender.pages.feed import MAX_READERS, Feed, Reader
from extender.pages.limits import RateLimit
from extender.placement.explaining import Explanation
from extender.probes import Readiness, add_probes
from fracgpu.errors import UnavailableError
from fracgpu.process.serving import hang_up

_STATIC: Final = Path(__file__).parent / "static"
_HEADERS: Final = {
    # The page loads nothing from elsewhere, runs no inline script, and cannot be put into a frame.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_PER_SECOND: Final = 50.0
_BURST: Final = 500.0
_UNREAD_SECONDS: Final = 30.0  # for which a reader may leave what it was sent where it is


class Explaining(Readiness, Protocol):
    """What can say why a pod waits (see `extender.verbs.Extender`)."""

    async def explain(self, namespace: str, name: str) -> Explanation | None:
        """Where a pod is or why it waits; None for a pod that is not there or asks for no GPU."""
        ...


def create_pages(extender: Explaining, *, feed: Feed, metrics: ASGIApp, limit: RateLimit | None = None) -> ASGIApp:
    """Build the app of the pages port.

    Args:
        extender: what explains pods.
        feed: draws the cluster.
        metrics: what monitoring reads.
        limit: how often one address may ask; None for the usual.
    """
    app = FastAPI(title="fracgpu extender", docs_url=None, redoc_url=None)
    add_probes(app, extender)
    app.mount("/static", StaticFiles(directory=_STATIC))
    app.router.routes.append(Route("/metrics", metrics, methods=["GET"]))
    _add_picture(app, feed)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_STATIC / "index.html")

    @app.get("/v1/explain/{namespace}/{name}")
    async def explain(namespace: str, name: str) -> JSONResponse:
        """Say where a pod is, or why it waits."""
        try:
            found = await extender.explain(namespace, name)
        except UnavailableError as exc:
            return JSONResponse({"error": str(exc)}, status_code=503)
        if found is None:
            return JSONResponse({"error": f"no pod {namespace}/{name} that asks for a GPU"}, status_code=404)
        answer = {"pod": f"{namespace}/{name}", "reason": found.reason, "roomOn": list(found.room_on)}
        return JSONResponse(answer)

    return _Doorman(app, limit=limit or RateLimit(per_second=_PER_SECOND, burst=_BURST))


def create_probes(extender: Readiness) -> ASGIApp:
    """Build the app of the pages port where pages are closed."""
    app = FastAPI(title="fracgpu extender", openapi_url=None)
    add_probes(app, extender)
    return app


def _add_picture(app: FastAPI, feed: Feed) -> None:
    @app.get("/v1/cluster")
    async def cluster() -> Response:
        """Who has which part of which GPU, and who waits and why."""
        return _look(feed, lambda _: feed.picture(), media_type="application/json")

    @app.get("/v1/cluster/changes")
    async def changes() -> Response:
        """The same, and what changes of it, as server-sent events."""
        return _look(feed, feed.changes, media_type="text/event-stream")


def _look(feed: Feed, parts: Callable[[Reader], AsyncIterator[bytes]], *, media_type: str) -> Response:
    reader = feed.join()
    if reader is None:
        sentence = f"{MAX_READERS} readers are there already, which is all that there is room for; try again"
        return JSONResponse({"error": sentence}, status_code=503, headers={"retry-after": "30"})
    return _Stream(parts(reader), on_end=lambda: feed.leave(reader), media_type=media_type)


class _Stream(StreamingResponse):
    """An answer in parts, to somebody who has to read them; `on_end` is called when it ends, however it does."""

    def __init__(self, parts: AsyncIterator[bytes], *, on_end: Callable[[], None], media_type: str) -> None:
        super().__init__(parts, media_type=media_type)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(_UNREAD_SECONDS):
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            hang_up(scope)
            await asyncio.sleep(0)  # else the server would take it for an answer that was left unfinished
        finally:
            self._on_end()


class _Doorman:
    """Lets each address ask so often, and gives every answer the headers that keep the page to itself."""

    def __init__(self, app: ASGIApp, *, limit: RateLimit) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address = scope["client"][0] if scope.get("client") else ""
        answer: ASGIApp = self._app
        if scope["path"] not in PROBES and not self._limit.allows(address, now=time.monotonic()):
            sentence = f"too many requests from {address}; {self._limit.per_second:g} a second are answered"
            answer = JSONResponse({"error": sentence}, status_code=429, headers={"retry-after": "1"})

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await answer(scope, receive, send_with_headers)
