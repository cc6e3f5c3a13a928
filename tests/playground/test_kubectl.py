"""kubectl, unchanged, against the playground's API server."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from playground.api.apiserver import ApiServer

KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="no kubectl on PATH")

MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: main, image: "web:1"}]}
---
apiVersion: fracgpu.io/v1alpha1
kind: GPUNode
metadata: {name: n1}
spec: {unitMiB: 512}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
"""

Run = Callable[..., Awaitable[str]]


@pytest.fixture
def kubectl(apiserver: ApiServer, tmp_path: Path) -> Run:
    config = tmp_path / "kubeconfig"
    config.write_text(apiserver.kubeconfig())

    async def run(*args: str) -> str:
        assert KUBECTL is not None
        process = await asyncio.create_subprocess_exec(
            KUBECTL,
            *args,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
            env={**os.environ, "KUBECONFIG": str(config), "HOME": str(tmp_path)},
        )
        async with asyncio.timeout(30):
            output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()

    return run


async def test_the_everyday_commands(kubectl: Run, tmp_path: Path) -> None:
    manifest = tmp_path / "all.yaml"
    manifest.write_text(MANIFEST)
    assert "pod/web created\ngpunode.fracgpu.io/n1 created" in await kubectl("apply", "-f", "all.yaml")
    assert "pod/web unchanged" in await kubectl("apply", "-f", "all.yaml")
    manifest.write_text(MANIFEST.replace("web:1", "web:2"))
    assert "pod/web configured" in await kubectl("apply", "-f", "all.yaml")
    names = await kubectl("get", "pods,gpunodes,nodes", "-o", "name")
    assert names.split() == ["pod/web", "gpunode.fracgpu.io/n1", "node/n1"]
    image = await kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={..image}")
    assert image == "web:2"
    assert "serverside-applied" in await kubectl("apply", "--server-side", "-f", "all.yaml")
    assert 'pod "web" deleted' in await kubectl("delete", "pod", "web")
    assert (await kubectl("get", "pods", "-A")).strip() == "No resources found"
