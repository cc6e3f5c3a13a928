"""A playground API server and an HTTP client for it, fresh for every test that asks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from playground.api.apiserver import ApiServer


@pytest.fixture
async def apiserver() -> AsyncIterator[ApiServer]:
    server = ApiServer(bookmark_seconds=0.05)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def http(apiserver: ApiServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(apiserver.url) as session:
        yield session
