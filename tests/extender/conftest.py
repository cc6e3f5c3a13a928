"""Extender replicas on a real Redis and the playground's API server, served over real HTTP, in this process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from extender.index import Index
from extender.ledger.connecting import connect
from extender.ledger.embedded import EmbeddedRedis
from extender.ledger.ledger import Ledger
from playground.api.apiserver import ApiServer
from tests.extender.replica import Replica
from tests.redisservers import RedisServer, ServerBinary, server_binaries


@pytest.fixture(params=server_binaries(), ids=str)
def binary(request: pytest.FixtureRequest) -> ServerBinary:
    """Each Redis and Valkey of this machine."""
    found: ServerBinary = request.param
    return found


@pytest.fixture
async def server(binary: ServerBinary, tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A server of each kind, on a TCP port."""
    async with RedisServer.running(binary, tmp_path) as running:
        yield running


@pytest.fixture
def redis_binary() -> Path | None:
    """The server to run; none for the one that the extender embeds. A module may override it with params."""
    return None


@pytest.fixture
async def redis(tmp_path: Path, redis_binary: Path | None) -> AsyncIterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path / "redis", binary=redis_binary)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    server = ApiServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def replicas(redis: EmbeddedRedis, api: ApiServer, tmp_path: Path) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas on an empty ledger; a test chooses whom to ask."""
    first_life = Ledger(connect(redis.url), reader=Index())
    token = await first_life.begin_rebuild(lifetime_seconds=5)
    assert token is not None
    assert await first_life.commit_rebuild(token, [])
    await first_life.close()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(api.kubeconfig())
    async with contextlib.AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(Replica.running(redis_url=redis.url, kubeconfig=kubeconfig))
            for _ in range(2)
        ]
        async with asyncio.timeout(20):
            await first.reconciler.ready.wait()
            await second.reconciler.ready.wait()
        yield first, second
