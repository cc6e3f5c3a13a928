"""A cluster of the playground with the real service processes, made per test."""

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cli.simulation import SimulatedNode
from tests.system.cluster import Cluster


@pytest.fixture
async def one_gpu() -> AsyncIterator[Cluster]:
    """One node with one GPU of 20 units (10 GiB), 4 seats."""
    async with _cluster(SimulatedNode("node-1", "Test GPU", 10240, 1)) as cluster:
        yield cluster


@pytest.fixture
async def two_nodes() -> AsyncIterator[Cluster]:
    """Two nodes with one GPU of 20 units (10 GiB) each, 4 seats."""
    nodes = (SimulatedNode("node-1", "Test GPU", 10240, 1), SimulatedNode("node-2", "Test GPU", 10240, 1))
    async with _cluster(*nodes) as cluster:
        yield cluster


@contextlib.asynccontextmanager
async def _cluster(*nodes: SimulatedNode) -> AsyncIterator[Cluster]:
    directory = Path(tempfile.mkdtemp(prefix="fg-"))  # tmp_path is too long for Unix sockets
    cluster = Cluster(directory, nodes=nodes)
    await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.stop()
        cluster.assert_never_overcommitted()
        shutil.rmtree(directory)
