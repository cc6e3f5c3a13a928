"""Who may call the verbs: over real TLS, with certificates of real authorities."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import trustme
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from extender.callers import Guard, TokenFile
from extender.settings import ExtenderSettings
from fracgpu.errors import SettingError
from fracgpu.process.serving import HttpServer
from fracgpu.process.tls import ServerCertificate

TOKEN = "0123456789abcdef0123"


async def _answer(_: Request) -> PlainTextResponse:
    return PlainTextResponse("let through")


ANSWER = Starlette(routes=[Route("/{path:path}", _answer, methods=["POST", "GET"])])


class Files:
    """A server's certificate, its clients' CA and a token, as files."""

    def __init__(self, folder: Path) -> None:
        self.cert, self.key = folder / "tls.crt", folder / "tls.key"
        self.client_ca, self.token = folder / "ca.crt", folder / "token"
        self.authority = trustme.CA()
        self.clients = trustme.CA()
        self.write_server(self.authority)
        self.clients.cert_pem.write_to_path(self.client_ca)
        self.token.write_text(f"{TOKEN}\n")

    def write_server(self, authority: trustme.CA) -> None:
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(self.key)
        self.cert.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))

    def client(self, name: str = "", *, by: trustme.CA | None = None) -> ssl.SSLContext:
        """A client that trusts the server, with a certificate for this name, or with none."""
        context = ssl.create_default_context(cadata=self.authority.cert_pem.bytes().decode())
        if name:
            (by or self.clients).issue_cert("client.example", common_name=name).configure_cert(context)
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@asynccontextmanager
async def serving(
    app: ASGIApp, files: Files, *, clients: ssl.VerifyMode = ssl.CERT_REQUIRED
) -> AsyncIterator[tuple[str, ServerCertificate]]:
    certificate = ServerCertificate(cert=files.cert, key=files.key, client_ca=files.client_ca, clients=clients)
    server = HttpServer(app, host="127.0.0.1", port=0, tls=certificate.context)
    await server.start()
    try:
        yield server.url, certificate
    finally:
        await server.stop()


async def call(url: str, context: ssl.SSLContext, *, path: str = "/bind", **headers: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + path, ssl=context, data=b"{}", headers=headers) as answer,
    ):
        return answer.status, await answer.text()


async def test_a_certificate_of_the_right_authority_opens(files: Files) -> None:
    async with serving(Guard(ANSWER, asks_certificate=True), files) as (url, _):
        assert await call(url, files.client("system:kube-scheduler")) == (200, "let through")
        for stranger in (files.client(), files.client("system:kube-scheduler", by=trustme.CA())):
            with pytest.raises(aiohttp.ClientError):
                await call(url, stranger)


async def test_of_an_authority_that_signs_others_too_only_the_name_opens(files: Files) -> None:
    guard = Guard(ANSWER, asks_certificate=True, names=frozenset({"system:kube-scheduler"}))
    async with serving(guard, files) as (url, _):
        assert (await call(url, files.client("system:kube-scheduler")))[0] == 200
        status, text = await call(url, files.client("system:node:node-1"))
        assert status == 403
        assert "system:node:node-1" in text
        assert "system:kube-scheduler may call" in text


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("", 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
        (f"Bearer {TOKEN}0", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (f"Token {TOKEN}", 401),
        (aiohttp.encode_basic_auth("kube-scheduler", TOKEN), 200),
        (aiohttp.encode_basic_auth(TOKEN, ""), 401),
        ("Basic é", 401),
        ("Basic %%%", 401),
    ],
)
async def test_a_token_opens_too(files: Files, header: str, status: int) -> None:
    guard = Guard(ANSWER, asks_certificate=True, token=TokenFile(files.token))
    async with serving(guard, files, clients=ssl.CERT_OPTIONAL) as (url, _):
        headers = {"Authorization": header} if header else {}
        found, text = await call(url, files.client(), **headers)
        assert found == status
        assert (status == 200) or "a client certificate or a token" in text
        assert (await call(url, files.client("anybody")))[0] == 200


async def test_probes_are_for_anybody_and_nothing_else_is(files: Files) -> None:
    guard = Guard(ANSWER, asks_certificate=True, token=TokenFile(files.token))
    async with serving(guard, files, clients=ssl.CERT_OPTIONAL) as (url, _):
        assert (await call(url, files.client(), path="/readyz"))[0] == 200
        for path in ("/readyz/../bind", "/readyz/", "//readyz", "/READYZ", "/"):
            assert (await call(url, files.client(), path=path))[0] == 401


async def test_a_renewed_certificate_and_a_replaced_authority_are_used_without_a_restart(files: Files) -> None:
    async with serving(Guard(ANSWER, asks_certificate=True), files) as (url, certificate):
        before = files.client("a")
        assert (await call(url, before))[0] == 200

        files.cert.write_text("half of a file")
        certificate.look()  # not usable: what there was stays
        assert (await call(url, before))[0] == 200

        replaced = trustme.CA()
        files.write_server(files.authority)
        replaced.cert_pem.write_to_path(files.client_ca)
        certificate.look()
        assert (await call(url, files.client("b", by=replaced)))[0] == 200
        with pytest.raises(aiohttp.ClientError):
            await call(url, files.client("a"))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_is_not_resumed_past_a_replaced_authority(files: Files, version: ssl.TLSVersion) -> None:
    async with serving(Guard(ANSWER, asks_certificate=True), files) as (url, certificate):
        port = int(url.rpartition(":")[2])
        context = files.client("a")
        context.maximum_version = version
        if version is ssl.TLSVersion.TLSv1_2:
            with pytest.raises(ssl.SSLError):
                await asyncio.to_thread(_tls_session, port, context)
            return
        session = await asyncio.to_thread(_tls_session, port, context)
        trustme.CA().cert_pem.write_to_path(files.client_ca)
        certificate.look()
        with pytest.raises(OSError, match=r"alert|reset|EOF|closed"):
            await asyncio.to_thread(_tls_session, port, context, session)


def test_a_new_token_is_read_and_a_broken_file_changes_nothing(files: Files) -> None:
    now = 0.0
    token = TokenFile(files.token, clock=lambda: now)
    files.token.write_text("fedcba9876543210")
    assert token.is_equal_to(TOKEN.encode())
    now = 10.0
    assert not token.is_equal_to(TOKEN.encode())
    assert token.is_equal_to(b"fedcba9876543210")
    files.token.unlink()
    now = 20.0
    assert token.is_equal_to(b"fedcba9876543210")


def test_a_short_token_is_refused_without_being_shown(files: Files) -> None:
    files.token.write_text("secret")
    with pytest.raises(SettingError, match="holds 6 characters; a token has at least 16") as refused:
        TokenFile(files.token)
    assert "secret" not in str(refused.value).replace(str(files.token), "")


CERTIFIED = ["--tls-cert=c", "--tls-key=k"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--host=0.0.0.0"], "--host is 0.0.0.0, which other machines reach, and there is no certificate"),
        (["--pages-host=0.0.0.0"], "--pages-host is 0.0.0.0, which other machines reach, and there is no certificate"),
        (["--host=::", *CERTIFIED], "whoever does could bind pods; give --tls-client-ca or --token-file"),
        (["--tls-cert=c"], "belong together"),
        (["--tls-client-ca=a"], "needs TLS"),
        (["--tls-client-names=a"], "give their CA with --tls-client-ca"),
    ],
)
def test_what_would_be_open_to_others_is_refused_at_the_start(flags: list[str], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        ExtenderSettings.load(flags)


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--host=localhost"],
        ["--host=::1", "--pages-host=127.0.0.2"],
        ["--host=0.0.0.0", "--pages-host=0.0.0.0", "--tls-client-ca=a", *CERTIFIED],
        ["--host=0.0.0.0", "--token-file=t", *CERTIFIED],
        ["--host=0.0.0.0", "--pages-host=0.0.0.0", "--insecure"],
    ],
)
def test_what_is_protected_or_asked_for_starts(flags: list[str]) -> None:
    assert ExtenderSettings.load(flags).port == 8080


def _tls_session(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSession | None:
    """Make one request; returns what a later connection may resume."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as connection,
    ):
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        if not connection.recv(100).startswith(b"HTTP/1.1 200"):
            raise OSError("closed")
        return connection.session
