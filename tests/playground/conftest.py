"""A playground API server and an HTTP client for it, fresh for every test that asks; and either it or a real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from playground.api.apiserver import ApiServer
from tests.playground.controlplanes import Api, custom_resources
from tests.realcluster import RealControlPlane, missing_binaries


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


@pytest.fixture(scope="session")
def real_control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealControlPlane]:
    absent = missing_binaries("etcd", "kube-apiserver")
    if absent:
        pytest.skip(absent)
    plane = RealControlPlane(tmp_path_factory.mktemp("control-plane"))
    plane.start()
    for definition in custom_resources():
        plane.define(definition)
    yield plane
    plane.stop()


@pytest.fixture(params=["playground", "real"])
def plane(request: pytest.FixtureRequest) -> RealControlPlane | None:
    if request.param == "playground":
        return None
    found: RealControlPlane = request.getfixturevalue("real_control_plane")
    return found


@pytest.fixture
async def server(plane: RealControlPlane | None) -> AsyncIterator[ApiServer | None]:
    if plane is not None:
        yield None
        return
    server = ApiServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def api(plane: RealControlPlane | None, server: ApiServer | None) -> AsyncIterator[Api]:
    if server is not None:
        connector, headers, url = aiohttp.TCPConnector(), {}, server.url
    else:
        assert plane is not None
        connector = aiohttp.TCPConnector(ssl=plane.client_ssl())
        headers, url = {"Authorization": f"Bearer {plane.token}"}, plane.url
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        api = Api(url, session)
        await api.send("POST", "/api/v1/namespaces", {"metadata": {"name": api.namespace}})
        yield api
        await connector.close(abort_ssl=True)
