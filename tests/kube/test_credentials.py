"""The service account of a pod, over TLS to a server that only its CA vouches for."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from fracgpu.errors import SettingError
from fracgpu.kube.connection import Connection
from fracgpu.kube.credentials import read_service_account
from fracgpu.kube.errors import KubeError


class TlsServer:
    """Tells what its clients said in their Authorization header."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.seen: list[str | None] = []
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append(request.headers.get("Authorization"))
        return web.json_response({})

    @property
    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert("127.0.0.1").configure_cert(context)
        return context


@pytest.fixture
async def server() -> AsyncIterator[TlsServer]:
    server = TlsServer()
    app = web.Application()
    app.router.add_get("/version", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server.context)
    await site.start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


@pytest.fixture
def account(server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    server.authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("one\n")
    return tmp_path


async def test_a_pods_token_is_sent_and_read_again(
    server: TlsServer, account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = Connection(read_service_account(account))
    await connection.request("GET", "/version", timeout_seconds=5)
    (account / "token").write_text("two\n")
    await connection.request("GET", "/version", timeout_seconds=5)
    monkeypatch.setattr("fracgpu.kube.credentials._CREDENTIALS_SECONDS", 0.0)
    await connection.request("GET", "/version", timeout_seconds=5)
    (account / "token").unlink()
    with pytest.raises(KubeError, match="cannot be renewed"):
        await connection.request("GET", "/version", timeout_seconds=5)
    await connection.close()
    assert server.seen == ["Bearer one", "Bearer one", "Bearer two"]


async def test_a_server_of_another_ca_is_not_told_the_token(server: TlsServer, account: Path) -> None:
    trustme.CA().cert_pem.write_to_path(account / "ca.crt")
    connection = Connection(read_service_account(account))
    with pytest.raises(KubeError, match="certificate"):
        await connection.request("GET", "/version", timeout_seconds=5)
    await connection.close()
    assert server.seen == []


@pytest.mark.parametrize("missing", ["ca.crt", "token"])
def test_without_a_part_of_it_there_is_no_account(account: Path, missing: str) -> None:
    (account / missing).unlink()
    with pytest.raises(SettingError, match="automountServiceAccountToken"):
        read_service_account(account)


def test_an_ipv6_address_is_written_in_brackets(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert read_service_account(account).url == "https://[fd00::1]:443"
