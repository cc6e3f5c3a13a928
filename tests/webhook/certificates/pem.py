"""Certificates of every kind for these tests, and a client that says which one it was shown."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fracgpu.process.serving import HttpServer
from tests.process.service import app
from webhook.certificates.pairs import Pair, read_pair

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def made_by(authority: trustme.CA, *names: str, key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> Pair:
    """A pair that is valid now, by the real clock."""
    issued = authority.issue_cert(*(names or ("127.0.0.1",)), key_type=key_type)
    return read_pair(
        chain=b"".join(blob.bytes() for blob in issued.cert_chain_pems), key=issued.private_key_pem.bytes()
    )


def certificate_of(authority: trustme.CA) -> x509.Certificate:
    return x509.load_pem_x509_certificate(authority.cert_pem.bytes())


@asynccontextmanager
async def listening(context: ssl.SSLContext) -> AsyncIterator[HttpServer]:
    """Our HTTP server with this context; it answers any GET with the path."""
    server = HttpServer(app, host="127.0.0.1", port=0, tls=context)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Visit:
    """One TLS connection, open until `leave`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def shown(self) -> x509.Certificate:
        """The certificate of the handshake."""
        return x509.load_der_x509_certificate(self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True))

    async def ask(self, path: str) -> bytes:
        """GET something over this connection."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await self._reader.readuntil(b"\r\n\r\n")
        return (await self._reader.readuntil(b"0\r\n\r\n")).split(b"\r\n")[1]  # the app's answers are one chunk

    async def ask_for_text(self, path: str) -> str:
        """GET something of known length over this connection."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return (await self._reader.readexactly(length)).decode()

    async def leave(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def visit(port: int, trusting: ssl.SSLContext | None = None, *, server_name: str = "127.0.0.1") -> Visit:
    """Connect; without `trusting` any certificate will do."""
    if trusting is None:
        trusting = ssl.create_default_context()
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
    return Visit(*await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname=server_name))


def trust_in(*authorities: x509.Certificate) -> ssl.SSLContext:
    """A client's context that trusts these and nobody else."""
    context = ssl.create_default_context()
    for authority in authorities:
        context.load_verify_locations(cadata=authority.public_bytes(Encoding.PEM).decode())
    return context
