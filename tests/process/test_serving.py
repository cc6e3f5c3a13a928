"""The HTTP server inside a running loop."""

import json
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from fracgpu.errors import SettingError, UnavailableError
from fracgpu.process.running import announce_ready
from fracgpu.process.serving import HttpServer
from tests.process.service import app


def make_server(*, app: Any = app, port: int = 0, cert: Path | None = None, key: Path | None = None) -> HttpServer:
    return HttpServer(app, host="127.0.0.1", port=port, tls_cert=cert, tls_key=key)


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
    server = make_server(cert=cert, key=key)
    await server.start()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with aiohttp.ClientSession() as session, session.get(server.url, ssl=context) as response:
        assert (server.url[:5], response.status) == ("https", 200)
    await server.stop()


async def test_tls_files_that_do_not_work(tmp_path: Path) -> None:
    cert, key, _ = issue(tmp_path, "one")
    _, other_key, _ = issue(tmp_path, "two")
    with pytest.raises(SettingError, match=r"one.pem and key .*two.key cannot be used together"):
        await make_server(cert=cert, key=other_key).start()
    with pytest.raises(SettingError, match="absent"):
        await make_server(cert=tmp_path / "absent", key=key).start()
    with pytest.raises(SettingError, match="only one of them is set"):
        await make_server(cert=cert).start()


def test_ready_is_a_file_that_appears_whole(tmp_path: Path) -> None:
    announce_ready("http://127.0.0.1:1", ready_file=tmp_path / "ready")
    assert json.loads((tmp_path / "ready").read_text()) == {"url": "http://127.0.0.1:1"}
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]
    with pytest.raises(SettingError, match="cannot be written"):
        announce_ready("http://127.0.0.1:1", ready_file=tmp_path / "absent" / "ready")
