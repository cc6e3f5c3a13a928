"""What kube-scheduler and the extender say to each other, written down on the way; nothing of it is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp import web

_MAX_BYTES: Final = 64 * 2**20


@dataclass(frozen=True)
class VerbCall:
    """One call, answered or not yet: `answer` is None until then."""

    verb: str
    pod: str
    arguments: dict[str, Any]
    answer: Any = None


class Recorder:
    """Stands before the extender; ``calls`` are in the order in which they began.

    Args:
        extender_url: where the calls go.
    """

    def __init__(self, extender_url: str) -> None:
        self.url = ""
        self.calls: list[VerbCall] = []
        self._extender_url = extender_url
        self._may_bind = asyncio.Event()
        self._may_bind.set()
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        self._session = aiohttp.ClientSession()
        app = web.Application(client_max_size=_MAX_BYTES)
        app.router.add_post("/{verb}", self._pass_on)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        """Close everything; harmless when not started."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    def hold_binds(self) -> Callable[[], None]:
        """Keep back what begins to bind, until the returned function is called; within kube-scheduler's 5 s."""
        self._may_bind.clear()
        return self._may_bind.set

    def of(self, pod: str) -> list[VerbCall]:
        """The calls about a pod."""
        return [call for call in self.calls if call.pod == pod]

    async def _pass_on(self, request: web.Request) -> web.Response:
        assert self._session is not None
        verb, body = request.match_info["verb"], await request.read()
        arguments = msgspec.json.decode(body)
        pod = arguments["PodName"] if verb == "bind" else arguments["Pod"]["metadata"]["name"]
        position = len(self.calls)
        self.calls.append(VerbCall(verb, pod, arguments))
        if verb == "bind":
            await self._may_bind.wait()
        try:
            async with self._session.post(
                f"{self._extender_url}/{verb}", data=body, headers={"Content-Type": "application/json"}
            ) as answer:
                text = await answer.read()
        except aiohttp.ClientError:  # the extender is not there: neither are we
            if request.transport is not None:
                request.transport.abort()
            raise web.HTTPBadGateway from None  # read by nobody
        self.calls[position] = VerbCall(verb, pod, arguments, msgspec.json.decode(text))
        return web.Response(status=answer.status, body=text, content_type="application/json")
