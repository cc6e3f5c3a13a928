"""A server in the extender's place, for what a real cluster does not do on demand: any picture, any size, any failure.

It serves the page's real files, under the real Content-Security-Policy, and the stream that the page reads. The
test on a real extender is in test_cluster.py.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
from aiohttp import web

import extender.pages
from extender.picture import NodePicture, Picture, WaitingPicture

STATIC = Path(extender.pages.__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class StandIn:
    """Serves one picture, which tests change.

    Attributes:
        picture: what a page gets when it connects.
        path: below which everything is, as behind `kubectl proxy`.
        refusal: while set, the stream is refused with this sentence.
        streams: of each page that follows the changes, the events to send it.
    """

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.path = "/"
        self.refusal = ""
        self.streams: list[asyncio.Queue[bytes | None]] = []
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self._port}{self.path}"

    async def start(self) -> None:
        """Listen; on the port of before where it was started already."""
        app = web.Application()
        app.router.add_get(self.path, self._page)
        app.router.add_static(f"{self.path}static", STATIC)
        app.router.add_get(f"{self.path}v1/cluster/changes", self._changes)
        app.on_response_prepare.append(_set_headers)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        assert site._server is not None
        self._port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]

    async def stop(self) -> None:
        """Close the port and every connection."""
        self.hang_up()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def hang_up(self) -> None:
        """End every stream."""
        for stream in self.streams:
            stream.put_nowait(None)

    def change(
        self,
        *nodes: NodePicture,
        gone: Sequence[str] = (),
        waiting: Sequence[WaitingPicture] | None = None,
    ) -> None:
        """Tell every page of a change."""
        body = msgspec.json.encode({"nodes": nodes, "gone": gone, "waiting": waiting})
        for stream in self.streams:
            stream.put_nowait(_event("change", body))

    async def _page(self, _: web.Request) -> web.FileResponse:
        return web.FileResponse(STATIC / "index.html")

    async def _changes(self, request: web.Request) -> web.StreamResponse:
        if self.refusal:
            return web.json_response({"error": self.refusal}, status=503)
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        events: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.streams.append(events)
        try:
            await answer.write(_event("picture", msgspec.json.encode(self.picture)))
            while (event := await events.get()) is not None:
                await answer.write(event)
        except ConnectionResetError:
            pass  # the page is gone
        finally:
            self.streams.remove(events)
        return answer


def _event(name: str, body: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), body)


async def _set_headers(_: web.Request, answer: web.StreamResponse) -> None:
    answer.headers["content-security-policy"] = POLICY
    answer.headers["cache-control"] = "no-cache"
