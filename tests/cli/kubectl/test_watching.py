"""`kubectl fracgpu top -w` where not everything can be read: it follows what it may, and says what is wrong."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from playground.api.apiserver import ApiServer
from tests.cli.kubectl.kubectl import binary, environment

GPUNODES = "/apis/fracgpu.io/v1alpha1/gpunodes"
WAITS = {
    "metadata": {"name": "late", "namespace": "team-b"},
    "spec": {"containers": [{"name": "main", "image": "a", "resources": {"limits": {"fracgpu.io/memory": "8"}}}]},
}


@contextlib.asynccontextmanager
async def top(kubeconfig: Path, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`top -w` until the block ends, as a person ends it."""
    process = await asyncio.create_subprocess_exec(
        *(binary(), "fracgpu", "top", "-w", *words),
        env=environment(kubeconfig),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            yield process
    finally:
        process.send_signal(signal.SIGINT)
        code = await process.wait()
    assert code == 130


async def line_with(stream: asyncio.StreamReader | None, wanted: str) -> str:
    """The first line that has it; the stream may not end before."""
    assert stream is not None
    while line := (await stream.readline()).decode():
        if wanted in line:
            return line
    raise AssertionError(f"it ended before it said {wanted!r}")


async def test_an_object_that_cannot_be_read_keeps_nothing_else_from_view(tmp_path: Path) -> None:
    """It is no sign that only one namespace may be listed."""
    api = ApiServer()
    await api.start()
    try:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(api.kubeconfig())
        gpu = {"uuid": "GPU-1", "index": 0, "product": "NVIDIA L4", "memoryMiB": 23034, "units": 44, "replicas": 4}
        for name, unit in (("node-1", 512), ("node-2", "many")):
            spec = {"memoryUnitMiB": unit, "gpus": [gpu]}
            await api.cluster.create("gpunodes", {"metadata": {"name": name}, "spec": spec})
        async with top(kubeconfig) as process:
            assert "cannot be read and is left out" in await line_with(process.stderr, "warning")
            await api.cluster.create("pods", WAITS)
            await line_with(process.stdout, "team-b/late")
    finally:
        await api.stop()


class Moody:
    """An API server that answers each list once; then it refuses what `refused` begins the path of.

    A watch of anything else stays open, and tells of nothing.
    """

    def __init__(self, *, refused: str, watches_only: bool) -> None:
        self._refused = refused
        self._watches_only = watches_only
        self._listed: set[str] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path, _, query = (await reader.readuntil(b"\r\n\r\n")).decode().split()[1].partition("?")
        is_watch = "watch=" in query
        status, said = 200, json.dumps({"metadata": {"resourceVersion": "1"}, "items": []})
        if path == self._refused and (is_watch if self._watches_only else path in self._listed):
            status, said = 500, json.dumps({"kind": "Status", "reason": "InternalError", "message": "etcd is away"})
        elif is_watch:
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            await reader.read()  # until it goes away
            writer.close()
            return
        self._listed.add(path)
        body = said.encode()
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()
        writer.close()


@pytest.mark.parametrize("watches_only", [False, True])
async def test_who_is_told_nothing_is_told_why(tmp_path: Path, watches_only: bool) -> None:
    """Once where no list is had to begin with, and where none of its changes are told."""
    server = await asyncio.start_server(Moody(refused=GPUNODES, watches_only=watches_only).answer, "127.0.0.1", 0)
    config: dict[str, Any] = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
    }
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    async with top(kubeconfig) as process:
        line = await line_with(process.stderr, "warning")
    server.close()

    assert "does not tell of changes" in line
    assert "500 InternalError: etcd is away" in line
