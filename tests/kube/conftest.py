"""One scripted API server and a client of it for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fracgpu.kube.client import KubeClient
from tests.kube.server import Server, serving


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving(Server()) as running:
        yield running


@pytest.fixture
async def client(server: Server, tmp_path: Path) -> AsyncIterator[KubeClient]:
    connected = await KubeClient.connect(kubeconfig=server.kubeconfig(tmp_path))
    yield connected
    await connected.close()
