"""The extender's replicas, and the Service in front of them: each call goes to the next replica.

As with a Service, a replica that died or froze is not left out at once: one more call goes to it. On request the
Service also does what kube-scheduler does when it heard no answer, all at once: it sends a bind to two replicas, with
the same node or with another.
"""

import asyncio
import contextlib
import itertools
import os
import signal
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import aiohttp
import msgspec
from aiohttp import web

from cli.processes import ServiceProcess
from fracgpu.errors import UnavailableError
from fracgpu.names import NodeName
from playground.cluster import JsonObject

Echo = Literal["same node", "another node"]
"""What the second replica is told of a bind that is sent twice."""

ECHOES: Sequence[Echo] = get_args(Echo)

CONFLICTS = frozenset({"Conflict", "AlreadyClaimed", "NoRoom"})
"""Reason codes of binds that were refused because somebody else was faster."""

_POLL_SECONDS = 0.1


class Replica(ServiceProcess):
    """One extender process.

    Attributes:
        url: where it serves, as far as it has ever been ready.
        is_frozen: whether it was stopped in the middle of what it did.
    """

    def __init__(self, name: str, *, arguments: list[str], directory: Path) -> None:
        super().__init__(name, arguments=arguments, directory=directory)
        self.url = ""
        self.is_frozen = False

    @property
    def is_serving(self) -> bool:
        """Whether it can answer."""
        return self.is_running and not self.is_frozen

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does."""
        if self.is_serving:
            self._signal(signal.SIGSTOP)
            self.is_frozen = True

    def thaw(self) -> None:
        """Let it go on."""
        if self.is_frozen:
            self._signal(signal.SIGCONT)
            self.is_frozen = False

    async def kill(self) -> None:
        """End it as a crash would, frozen or not."""
        await super().kill()
        self.is_frozen = False

    def conflicts(self) -> Counter[str]:
        """Count the binds that it refused because somebody was faster, by reason, from its log."""
        found: Counter[str] = Counter()
        if not self.log.exists():
            return found
        for line in self.log.read_bytes().splitlines():
            with contextlib.suppress(msgspec.DecodeError):
                event = msgspec.json.decode(line)
                if isinstance(event, dict) and event.get("verb") == "bind" and event.get("reason") in CONFLICTS:
                    found[event["reason"]] += 1
        return found

    def _signal(self, sig: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, sig)


class Service:
    """Sends each call to the next of the replicas.

    Args:
        replicas: the extenders; none gets a call before `admit`.
        nodes: where a bind can be sent to.

    Attributes:
        url: where it listens, once started.
    """

    def __init__(self, replicas: Sequence[Replica], *, nodes: Sequence[NodeName]) -> None:
        self.url = ""
        self._replicas = replicas
        self._nodes = nodes
        self._turns = itertools.cycle(replicas)
        self._endpoints: set[Replica] = set()
        self._echoes: deque[Echo] = deque()
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # A caller that hangs up does not take back what it asked: no handler_cancellation.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Hang up on everybody."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    def echo_binds(self, echo: Echo, *, count: int) -> None:
        """Send the next `count` binds to a second replica as well."""
        self._echoes.extend([echo] * count)

    def stop_echoes(self) -> None:
        """Send every bind once."""
        self._echoes.clear()

    def admit_when_ready(self, replica: Replica) -> None:
        """Let calls reach a replica as soon as it says that it can decide; returns at once."""
        self._keep(asyncio.create_task(self._admit(replica), name=f"admit {replica.name}"))

    async def admitted(self) -> None:
        """Return when all replicas that are being waited for can decide, or have ended."""
        while tasks := {task for task in self._tasks if task.get_name().startswith("admit")}:
            await asyncio.wait(tasks)

    def left_out(self) -> list[Replica]:
        """The replicas that get no calls."""
        return [replica for replica in self._replicas if replica not in self._endpoints]

    async def ask(self, replica: Replica, verb: str, args: JsonObject) -> Any:
        """Call one replica and return what it answers.

        Raises:
            UnavailableError: it gives no answer.
        """
        assert self._session is not None
        try:
            async with self._session.post(f"{replica.url}/{verb}", data=msgspec.json.encode(args)) as answer:
                return msgspec.json.decode(await answer.read())
        except (aiohttp.ClientError, OSError, msgspec.DecodeError) as exc:
            raise UnavailableError(f"{replica.name} does not answer: {exc}") from exc

    async def _admit(self, replica: Replica) -> None:
        try:
            replica.url = await replica.ready()
        except UnavailableError:
            return  # it was killed again before it came up
        while replica.is_running and not await self._is_ready(replica):  # noqa: ASYNC110 (another process)
            await asyncio.sleep(_POLL_SECONDS)
        if replica.is_running:
            self._endpoints.add(replica)

    async def _is_ready(self, replica: Replica) -> bool:
        assert self._session is not None
        try:
            async with asyncio.timeout(1), self._session.get(f"{replica.url}/readyz") as answer:
                return answer.ok
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        path = request.match_info["path"]
        sent = self._forward(request.method, path, body)
        if path == "bind" and self._echoes:
            self._keep(asyncio.create_task(self._forward("POST", path, self._echo(body, self._echoes.popleft()))))
        return await sent

    def _echo(self, body: bytes, echo: Echo) -> bytes:
        args = msgspec.json.decode(body)
        if echo == "another node":
            args["Node"] = next((node for node in self._nodes if node != args["Node"]), args["Node"])
        return msgspec.json.encode(args)

    async def _forward(self, method: str, path: str, body: bytes) -> web.Response:
        assert self._session is not None
        replica = self._next()
        if replica is None:
            return web.Response(status=503, text="no endpoints available")
        try:
            async with self._session.request(method, f"{replica.url}/{path}", data=body or None) as answer:
                content = await answer.read()
            return web.Response(status=answer.status, body=content, content_type=answer.content_type)
        except (aiohttp.ClientError, OSError) as exc:
            return web.Response(status=503, text=f"{replica.name}: {exc}")

    def _next(self) -> Replica | None:
        for _ in self._replicas:
            replica = next(self._turns)
            if replica in self._endpoints:
                if not replica.is_serving:
                    self._endpoints.discard(replica)  # noticed by the call that it gets now
                return replica
        return None

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
