"""The kubelets under test: the playground's, and a real one where the binary is present."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio

from tests.conformance.lab import Lab
from tests.nodebench import NodeBench, StubBench
from tests.realkubelet import RealBench, missing_for_real_kubelet


@pytest_asyncio.fixture(
    scope="package", loop_scope="package", params=["stub", pytest.param("real", marks=pytest.mark.e2e)]
)
async def node(request: pytest.FixtureRequest) -> AsyncIterator[NodeBench]:
    if request.param == "real" and (missing := missing_for_real_kubelet()):
        pytest.skip(missing)
    with TemporaryDirectory(prefix="fg") as folder:  # short: Unix socket paths end at 107 bytes
        bench = RealBench(Path(folder)) if request.param == "real" else StubBench(Path(folder))
        try:
            await bench.start()
            yield bench
        finally:
            await bench.stop()


@pytest_asyncio.fixture(loop_scope="package")
async def lab(node: NodeBench) -> AsyncIterator[Lab]:
    lab = Lab(node)
    yield lab
    await lab.clean()
