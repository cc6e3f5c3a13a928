from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from playground.api.apiserver import ApiServer
from tests.plugin.node import SimulatedNode


@pytest.fixture
async def node() -> AsyncIterator[SimulatedNode]:
    """A node with its kubelet running, without the plugin."""
    # Not tmp_path: the path of a Unix socket ends at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="frac") as folder:
        api = ApiServer()
        await api.start()
        simulated = SimulatedNode(api, Path(folder))
        await simulated.kubelet.start()
        yield simulated
        await simulated.kubelet.stop()
        await api.stop()
