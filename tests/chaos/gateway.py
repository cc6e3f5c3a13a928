"""The way from the services to the API server, on which things go wrong: for each client apart, and by choice.

Every client has a URL of its own (``URL/<client>``). Its requests can be slow, refused, cut off, answered but not
heard of, or delivered long after the client has given up; its watches can lag, resource by resource, and tell events
twice. One watch keeps its order, as Kubernetes promises; two watches promise each other nothing, so what one of them
holds back reorders the events of pods against those of GPUNodes, and of one replica against another.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import aiohttp
from aiohttp import web

from playground.cluster import JsonObject

BindingFault = Literal["refused", "unheard", "late"]
"""What happens to a Binding: answered with 500 and not done; done and not answered; done after `LATE_SECONDS`."""

BINDING_FAULTS: Sequence[BindingFault] = get_args(BindingFault)

LATE_SECONDS = 1.6  # beyond the client's patience of 1 s, within the 2 s that the extender allows for
_LINE_LIMIT = 2**22  # bytes of a watch event


@dataclass(eq=False, slots=True)
class Client:
    """One client's way, and what goes wrong on it.

    Attributes:
        bindings: what is to happen to its next Bindings.
    """

    bindings: deque[BindingFault] = field(default_factory=deque)
    delay_seconds: float = 0
    refusals: int = 0
    is_doubling: bool = False
    is_cut: bool = False
    lagging: set[str] = field(default_factory=set)  # plural names of resources
    connections: set[asyncio.Transport] = field(default_factory=set)  # with a request under way
    moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    def slow_down(self, *, seconds: float) -> None:
        """From now on delay every request but watches."""
        self.delay_seconds = seconds

    def refuse(self, *, count: int) -> None:
        """Answer the next requests, watches aside, with 500."""
        self.refusals += count

    def double(self) -> None:
        """From now on tell every event twice."""
        self.is_doubling = True

    async def lag(self, *resources: str) -> None:
        """From now on hold back the events of these resources, and of no others."""
        async with self.moved:
            self.lagging = set(resources)
            self.moved.notify_all()

    def cut(self) -> None:
        """Break all connections, and let none in."""
        self.is_cut = True
        for connection in list(self.connections):
            connection.abort()

    async def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.delay_seconds, self.refusals, self.is_doubling, self.is_cut = 0, 0, False, False
        self.bindings.clear()
        await self.lag()


class Gateway:
    """Forwards requests to an API server.

    Args:
        clients: their names.
        server_url: tells where the API server is, at every request.

    Attributes:
        url: where it listens, once started; a client's own URL is `client_url`.
        clients: name -> its way.
    """

    def __init__(self, *clients: str, server_url: Callable[[], str]) -> None:
        self.clients: Mapping[str, Client] = {name: Client() for name in clients}
        self.url = ""
        self._server_url = server_url
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._late: set[asyncio.Task[web.Response]] = set()

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        self._session = aiohttp.ClientSession(
            read_bufsize=_LINE_LIMIT, connector=aiohttp.TCPConnector(limit=0), auto_decompress=False
        )
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{client}/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Hang up on everybody."""
        for client in self.clients.values():
            client.cut()
        for task in self._late:
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    def kubeconfig(self, client: str) -> str:
        """The text of a kubeconfig for a client."""
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "chaos",
                "clusters": [{"name": "chaos", "cluster": {"server": f"{self.url}/{client}"}}],
                "users": [{"name": "chaos", "user": {}}],
                "contexts": [{"name": "chaos", "context": {"cluster": "chaos", "user": "chaos"}}],
            }
        )

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        client = self.clients[request.match_info["client"]]
        connection = request.transport
        if client.is_cut or connection is None:
            return _abort(request)
        client.connections.add(connection)
        try:
            if "watch" in request.query:
                return await self._watch(request, client)
            return await self._ask(request, client)
        except (aiohttp.ClientError, ConnectionError):
            return _abort(request)
        finally:
            client.connections.discard(connection)

    async def _ask(self, request: web.Request, client: Client) -> web.Response:
        body = await request.read()
        if client.delay_seconds:
            await asyncio.sleep(client.delay_seconds)
        if client.refusals:
            client.refusals -= 1
            return _refusal()
        is_binding = request.match_info["path"].endswith("/binding")
        fault = client.bindings.popleft() if is_binding and client.bindings else None
        if fault == "refused":
            return _refusal()
        if fault == "late":
            # A task of its own: the client gives up, and the request arrives all the same.
            task = asyncio.create_task(self._deliver_late(request, body))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            return await asyncio.shield(task)
        answer = await self._deliver(request, body)
        return _abort(request) if fault == "unheard" else answer

    async def _deliver_late(self, request: web.Request, body: bytes) -> web.Response:
        await asyncio.sleep(LATE_SECONDS)
        return await self._deliver(request, body)

    async def _deliver(self, request: web.Request, body: bytes) -> web.Response:
        async with self._send(request, body) as answer:
            content = await answer.read()
        return web.Response(status=answer.status, body=content, content_type=answer.content_type)

    async def _watch(self, request: web.Request, client: Client) -> web.StreamResponse:
        resource = request.match_info["path"].rpartition("/")[2]
        async with self._send(request, b"") as answer:
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
            await response.prepare(request)
            async for line in answer.content:
                async with client.moved:
                    await client.moved.wait_for(lambda: resource not in client.lagging)
                await response.write(line)
                if client.is_doubling:
                    await response.write(line)
            await response.write_eof()
        return response

    def _send(self, request: web.Request, body: bytes) -> aiohttp.client._RequestContextManager:
        assert self._session is not None
        url = f"{self._server_url()}/{request.match_info['path']}"
        return self._session.request(
            request.method,
            url,
            params=request.query,
            data=body or None,
            headers={"Content-Type": request.headers.get("Content-Type", "application/json")},
            timeout=aiohttp.ClientTimeout(total=None),
        )


def _abort(request: web.Request) -> web.Response:
    """Close the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _refusal() -> web.Response:
    status: JsonObject = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": "InternalError",
        "message": "etcdserver: request timed out",
        "code": 500,
    }
    return web.json_response(status, status=500)
