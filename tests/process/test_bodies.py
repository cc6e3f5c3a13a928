"""Clients that send bodies without an end, on a real server: what they cost it is bounded, and others are answered."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from fracgpu.process.bodies import MAX_BODY_BYTES, Bodies
from fracgpu.process.serving import HttpServer
from tests.webhook.builders import pod, review
from webhook.app import create_app
from webhook.policy import Policy

FULL = 20  # bodies of the largest size that are read at the same time


class Caller:
    """One connection that sends what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def begin(self, *, length: int, sent: bytes) -> None:
        """Announce a body of so many bytes, and send only these."""
        head = f"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        self._writer.write(head.encode() + sent)
        await self._writer.drain()

    async def answer(self) -> tuple[int, str]:
        """Status, and the reason in the body."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = json.loads(await self._reader.readexactly(length))
        return int(head.split()[1]), body.get("reason", "")

    async def is_hung_up_on(self) -> bool:
        """Whether the server ends the connection; waits for that."""
        return await self._reader.read() == b""

    async def leave(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):  # the server may have been faster
            await self._writer.wait_closed()


@asynccontextmanager
async def serving(bodies: Bodies) -> AsyncIterator[HttpServer]:
    app = create_app(Policy(), bodies=bodies)
    server = HttpServer(app, host="127.0.0.1", port=0)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def calling(server: HttpServer) -> AsyncIterator[Caller]:
    caller = Caller(*await asyncio.open_connection("127.0.0.1", server.port))
    try:
        yield caller
    finally:
        await caller.leave()


def small_review() -> bytes:
    return json.dumps(review(pod({"gpu-memory": "4Gi"}))).encode()


async def test_a_body_that_does_not_come_is_given_up() -> None:
    async with serving(Bodies(seconds=0.05)) as server, calling(server) as caller:
        await caller.begin(length=1000, sent=b"{")

        assert await caller.answer() == (408, "Timeout")
        assert await caller.is_hung_up_on()


async def test_large_bodies_share_what_there_is_and_small_ones_do_not_wait() -> None:
    """Whoever reaches the port may send them, without ever finishing one."""
    unfinished = b" " * (MAX_BODY_BYTES - 1)
    async with serving(Bodies()) as server, AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(calling(server)) for _ in range(FULL + 2)]

        async def refused(caller: Caller) -> bool:
            """Whether it is told that there is no room, or is hung up on while it still sends; else this waits."""
            try:
                await caller.begin(length=MAX_BODY_BYTES, sent=unfinished)
                return await caller.answer() == (503, "ServiceUnavailable")
            except (ConnectionError, asyncio.IncompleteReadError):
                return True

        asking = [asyncio.create_task(refused(caller)) for caller in callers]

        done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)

        assert all(task.result() for task in done)
        async with calling(server) as usual:
            body = small_review()
            await usual.begin(length=len(body), sent=body)
            assert await usual.answer() == (200, "")
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def test_room_is_free_again_when_a_body_has_ended() -> None:
    padded = small_review().ljust(MAX_BODY_BYTES)
    async with serving(Bodies()) as server:
        for _ in range(FULL + 2):
            async with calling(server) as caller:
                await caller.begin(length=MAX_BODY_BYTES, sent=padded)
                assert await caller.answer() == (200, "")


async def test_a_client_that_goes_away_leaves_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with serving(Bodies()) as server:
        async with calling(server) as caller:
            await caller.begin(length=1000, sent=b"{")
        async with calling(server) as other:  # answered after the first was let go
            body = small_review()
            await other.begin(length=len(body), sent=body)
            assert await other.answer() == (200, "")
    assert caplog.text == ""
