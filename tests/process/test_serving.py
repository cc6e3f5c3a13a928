"""The HTTP server inside a running loop."""

import asyncio
import contextlib
import json
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from fracgpu.errors import SettingError, UnavailableError
from fracgpu.process.running import announce_ready
from fracgpu.process.serving import HttpServer
from fracgpu.process.tls import ServerCertificate
from tests.process.service import app


def make_server(*, app: Any = app, port: int = 0, tls: ssl.SSLContext | None = None) -> HttpServer:
    return HttpServer(app, host="127.0.0.1", port=port, tls=tls)


async def test_port_0_takes_a_free_port_and_tells_it() -> None:
    server = make_server()
    await server.start()
    assert server.port > 0
    assert server.url == f"http://127.0.0.1:{server.port}"
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/hello") as response:
        assert await response.text() == "/hello"
        assert "server" not in response.headers
    await server.stop()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(server.url)


async def test_signals_stay_with_the_service() -> None:
    before = signal.getsignal(signal.SIGTERM)
    server = make_server()
    await server.start()
    assert signal.getsignal(signal.SIGTERM) is before
    await server.stop()


async def test_stop_without_start_is_harmless() -> None:
    await make_server().stop()


async def test_a_taken_port_is_a_setting_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingError, match=f"cannot listen on 127.0.0.1 port {port}: .*in use"):
            await make_server(port=port).start()


async def test_an_app_that_fails_to_start() -> None:
    async def broken(scope: dict[str, Any], receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    server = make_server(app=broken)
    with pytest.raises(UnavailableError, match="failed to start"):
        await server.start()


def issue(directory: Path, name: str) -> tuple[Path, Path, trustme.CA]:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    return cert, key, authority


async def test_tls(tmp_path: Path) -> None:
    cert, key, authority = issue(tmp_path, "one")
    server = make_server(tls=ServerCertificate(cert=cert, key=key).context)
    await server.start()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with aiohttp.ClientSession() as session, session.get(server.url, ssl=context) as response:
        assert (server.url[:5], response.status) == ("https", 200)
    await server.stop()


def test_tls_files_that_do_not_work(tmp_path: Path) -> None:
    cert, key, _ = issue(tmp_path, "one")
    _, other_key, _ = issue(tmp_path, "two")
    with pytest.raises(SettingError, match=r"one.pem and key .*two.key cannot be used together"):
        ServerCertificate(cert=cert, key=other_key)
    with pytest.raises(SettingError, match="absent"):
        ServerCertificate(cert=tmp_path / "absent", key=key)


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nX-Long: ", b"a" * 4096),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\n", b"X-Many: a\r\n" * 400),
        (b"GET /", b"a" * 4096),
        (b"POST /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: a\r\n" * 400),
        (b"POST /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a" * 4096),
    ],
    ids=["a header", "headers", "a path", "trailers", "a chunk's extension"],
)
async def test_what_never_ends_is_hung_up_on(beginning: bytes, piece: bytes) -> None:
    server = make_server()
    await server.start()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(beginning)
        with pytest.raises(ConnectionError):
            await _flood(writer, piece)
    finally:
        writer.close()
        await server.stop()


async def test_who_asks_on_without_reading_answers_is_hung_up_on() -> None:
    asked = 0

    async def slow(scope: dict[str, Any], receive: Any, send: Any) -> None:
        nonlocal asked
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        asked += 1
        await asyncio.Event().wait()

    server = make_server(app=slow)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        assert asked == 1
    finally:
        writer.close()
        await server.stop()


async def test_some_requests_at_once_are_answered() -> None:
    server = make_server()
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        last = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n" * 8 + last)
        assert (await reader.read()).count(b"200 OK") == 9
    finally:
        writer.close()
        await server.stop()


@pytest.mark.parametrize("beginning", [b"", b"GET / HTTP/1.1\r\nHost"])
async def test_who_asks_nothing_is_hung_up_on(beginning: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fracgpu.process.serving._FIRST_HEAD_SECONDS", 0.2)
    server = make_server()
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(beginning)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    finally:
        writer.close()
        await server.stop()


async def _flood(writer: asyncio.StreamWriter, piece: bytes) -> None:
    for _ in range(5000):  # 20 MB: far more than the system's own buffers take
        writer.write(piece)
        await writer.drain()


async def test_a_long_body_in_small_pieces_is_read() -> None:
    async def counting(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        request = Request(scope, receive)
        size = len(await request.body())
        await PlainTextResponse(str(size))(scope, receive, send)

    server = make_server(app=counting)
    await server.start()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b"x" * 1000

    try:
        async with aiohttp.ClientSession() as session, session.post(server.url, data=pieces()) as response:
            assert await response.text() == "300000"
    finally:
        await server.stop()


def test_ready_is_a_file_that_appears_whole(tmp_path: Path) -> None:
    announce_ready("http://127.0.0.1:1", ready_file=tmp_path / "ready")
    assert json.loads((tmp_path / "ready").read_text()) == {"url": "http://127.0.0.1:1"}
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]
    with pytest.raises(SettingError, match="cannot be written"):
        announce_ready("http://127.0.0.1:1", ready_file=tmp_path / "absent" / "ready")
