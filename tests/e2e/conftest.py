"""One real control plane for all tests of this folder, and one real node for those that need it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio

from tests.e2e.cluster import Cluster
from tests.e2e.node import RealNode
from tests.realcluster import missing_binaries
from tests.realkubelet import missing_for_real_kubelet

_numbers = itertools.count(1)  # no name twice: a claim on a node outlives the node by a moment
_running: list[Cluster] = []  # the one whose logs explain a failure


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of the services' logs with a failed test."""
    report = yield
    if report.failed:
        report.sections += [(f"log of {name}", text) for cluster in _running for name, text in cluster.logs()]
    return report


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def shared_cluster() -> AsyncIterator[Cluster]:
    if missing := missing_binaries("etcd", "kube-apiserver", "kube-scheduler"):
        pytest.skip(missing)
    with TemporaryDirectory(prefix="fg") as folder:  # short: Unix socket paths end at 107 bytes
        cluster = Cluster(Path(folder))
        _running.append(cluster)
        try:
            await cluster.start()
            yield cluster
        finally:
            await cluster.stop()
            _running.remove(cluster)
        cluster.assert_rights_suffice()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def shared_node(shared_cluster: Cluster) -> AsyncIterator[RealNode]:
    if missing := missing_for_real_kubelet():
        pytest.skip(missing)
    with TemporaryDirectory(prefix="fg") as folder:
        node = RealNode(shared_cluster, Path(folder))
        try:
            await node.start()
            yield node
        finally:
            await node.stop()
        assert node.runtime.overcommitted == []


@pytest_asyncio.fixture(loop_scope="package")
async def cluster(shared_cluster: Cluster) -> AsyncIterator[Cluster]:
    """The cluster, without pods."""
    shared_cluster.recorder.calls.clear()
    yield shared_cluster
    await shared_cluster.clean()


@pytest_asyncio.fixture(loop_scope="package")
async def paper(cluster: Cluster) -> AsyncIterator[list[str]]:
    """Three nodes without a kubelet, each with two GPUs of 80 GiB: more than any other node of the cluster has."""
    names = [f"paper-{next(_numbers)}" for _ in range(3)]
    for name in names:
        await cluster.add_paper_node(name, gpu_gib=[80, 80])
    yield names
    await cluster.clean()
    for name in names:
        await cluster.remove_node(name)


@pytest_asyncio.fixture(loop_scope="package")
async def node(cluster: Cluster, shared_node: RealNode) -> AsyncIterator[RealNode]:
    """The real node, without pods."""
    yield shared_node
    await shared_node.clean()
