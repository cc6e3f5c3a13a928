"""Where the plugin's probes and metrics are served, over TLS or without."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import trustme

from fracgpu.errors import SettingError
from fracgpu.process.serving import HttpServer
from fracgpu.process.tls import ServerCertificate
from plugin.lasting import Lasting
from plugin.settings import PluginSettings


@pytest.fixture
async def lasting() -> AsyncIterator[Lasting]:
    made = Lasting()
    yield made
    await made.close()


def certificate(folder: Path, authority: trustme.CA) -> tuple[Path, Path]:
    issued = authority.issue_cert("127.0.0.1")
    chain, key = folder / "tls.crt", folder / "tls.key"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return chain, key


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


async def test_with_a_certificate_it_is_tls_alone(lasting: Lasting, tmp_path: Path) -> None:
    authority = trustme.CA()
    chain, key = certificate(tmp_path, authority)
    server = await lasting.serve_http(PluginSettings(node_name="n", port=0, tls_cert=chain, tls_key=key))
    assert server.url.startswith("https://127.0.0.1:")
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{server.url}/metrics", ssl=trusting(authority)) as response:
            assert "fracgpu_plugin_grants" in await response.text()
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(f"{server.url}/metrics")
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"{server.url.replace('https', 'http')}/metrics")


async def test_tls_comes_to_the_same_port_while_we_live(lasting: Lasting, tmp_path: Path) -> None:
    authority = trustme.CA()
    chain, key = certificate(tmp_path, authority)
    port = free_port()
    plain = await lasting.serve_http(PluginSettings(node_name="n", port=port))
    assert plain.url == f"http://127.0.0.1:{port}"
    again = await lasting.serve_http(PluginSettings(node_name="another", port=port))
    assert again is plain
    server = await lasting.serve_http(PluginSettings(node_name="n", port=port, tls_cert=chain, tls_key=key))
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"https://127.0.0.1:{port}/livez", ssl=trusting(authority)) as response,
    ):
        assert (server.url, response.status) == (f"https://127.0.0.1:{port}", 200)


async def test_a_certificate_that_cannot_be_used_changes_nothing(lasting: Lasting, tmp_path: Path) -> None:
    chain, key = certificate(tmp_path, trustme.CA())
    key.write_text("no key")
    port = free_port()
    plain = await lasting.serve_http(PluginSettings(node_name="n", port=port))
    with pytest.raises(SettingError, match="cannot be used together"):
        await lasting.serve_http(PluginSettings(node_name="n", port=port, tls_cert=chain, tls_key=key))
    async with aiohttp.ClientSession() as session, session.get(f"{plain.url}/livez") as response:
        assert response.status == 200


async def test_an_address_that_was_lost_is_listened_on_later(
    lasting: Lasting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else takes the port while another certificate is followed, and lets go of it again."""
    port = free_port()
    thieves: list[socket.socket] = []

    class Robbed(HttpServer):
        async def stop(self) -> None:
            await super().stop()
            if not thieves:
                thieves.append(socket.create_server(("127.0.0.1", port)))

    monkeypatch.setattr("plugin.lasting.HttpServer", Robbed)
    authority = trustme.CA()
    chain, key = certificate(tmp_path, authority)
    before = PluginSettings(node_name="n", port=port)
    await lasting.serve_http(before)
    with pytest.raises(SettingError, match=str(port)):
        await lasting.serve_http(PluginSettings(node_name="n", port=port, tls_cert=chain, tls_key=key))
    thieves[0].close()
    server = await lasting.serve_http(before)
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/livez") as response:
        assert response.status == 200


async def test_a_certificate_that_is_no_longer_followed_is_told(
    lasting: Lasting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = asyncio.Event()

    class Defective(ServerCertificate):
        async def run(self) -> None:
            asyncio.get_running_loop().call_soon(told.set)
            raise ZeroDivisionError

    monkeypatch.setattr("plugin.lasting.ServerCertificate", Defective)
    chain, key = certificate(tmp_path, trustme.CA())
    await lasting.serve_http(PluginSettings(node_name="n", port=0, tls_cert=chain, tls_key=key))
    await told.wait()
    assert [(record.name, record.message) for record in caplog.records] == [("plugin.lasting", "defect")]
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize(
    ("flags", "want"),
    [
        (["--host", "0.0.0.0"], "--host is 0.0.0.0, which other machines reach"),
        (["--host", "::"], "--host is ::, which other machines reach"),
        (["--host", "node-1"], "--host is node-1, which other machines reach"),
        (["--tls-cert", "a.crt"], "--tls-cert and --tls-key belong together"),
        (["--tls-key", "a.key"], "--tls-cert and --tls-key belong together"),
    ],
)
def test_plain_text_beyond_this_machine_is_refused(flags: list[str], want: str) -> None:
    with pytest.raises(SettingError) as caught:
        PluginSettings.load(["--node-name", "n", *flags])
    assert want in str(caught.value)


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--host", "::1"],
        ["--host", "localhost"],
        ["--host", "127.0.0.2"],
        ["--host", "0.0.0.0", "--insecure"],
        ["--host", "0.0.0.0", "--tls-cert", "a.crt", "--tls-key", "a.key"],
    ],
)
def test_what_is_allowed(flags: list[str]) -> None:
    assert PluginSettings.load(["--node-name", "n", *flags]).node_name == "n"
