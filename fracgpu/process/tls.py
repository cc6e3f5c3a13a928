"""TLS of a server whose certificate is renewed while it serves, and who may be its client.

Each certificate gets a context of its own, complete before a handshake sees it, and each handshake is handed the newest
one; connections that are open go on with theirs. To load into the context that is listening would leave a moment with
the certificate of one pair and the key of another, and would never forget a client CA that was replaced.
"""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final

from fracgpu.errors import SettingError

_LOOK_SECONDS: Final = 10.0  # the kubelet itself takes a minute to bring a changed Secret into a mounted volume
_logger = logging.getLogger(__name__)


class NewestContext:
    """Hands every TLS handshake the newest context.

    Args:
        first: what to begin with. Its `verify_mode` says for all of them whether clients have to show a certificate;
            which ones are good says each context's own CA.

    Attributes:
        context: what the server is to listen with.
    """

    def __init__(self, first: ssl.SSLContext) -> None:
        self._newest = first
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # OpenSSL asks by this one, and verifies by the CAs of the context that is handed over.
        self.context.verify_mode = first.verify_mode
        if first.verify_mode != ssl.CERT_NONE:
            # A resumed session would not be asked for a certificate again; older versions resume without tickets too.
            self.context.minimum_version = ssl.TLSVersion.TLSv1_3
            self.context.num_tickets = 0
        self.context.sni_callback = self._hand_over  # called at every handshake, whether or not it names a server

    def use(self, context: ssl.SSLContext) -> None:
        """Serve new connections with this one."""
        self._newest = context

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest


class ServerCertificate:
    """A server's certificate from files, read again when they change.

    Args:
        cert: PEM file with the certificate chain.
        key: PEM file with its key, not encrypted.
        client_ca: PEM file with the CAs of clients' certificates; None where clients show none.
        clients: whether a client has to show one, where there is a `client_ca`.

    Attributes:
        context: what the server is to listen with.

    Raises:
        SettingError: the files cannot be used, at the start.
    """

    def __init__(
        self,
        *,
        cert: Path,
        key: Path,
        client_ca: Path | None = None,
        clients: ssl.VerifyMode = ssl.CERT_REQUIRED,
    ) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._clients = clients
        try:
            self._last = self._read()
            first = self._load()
        except OSError as exc:  # ssl.SSLError is one
            raise SettingError(self._explain(exc)) from exc
        self._newest = NewestContext(first)
        self.context = self._newest.context

    async def run(self) -> None:
        """Follow the files until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Use the files as they are now, if they have changed; where they do not fit together the old ones stay."""
        try:
            found = self._read()
            if found == self._last:
                return
            context = self._load()
            if self._read() != found:
                return  # being written; what was loaded may be of both
        except OSError as exc:
            _logger.warning("certificate not renewed", extra={"error": self._explain(exc)})
            return
        self._last = found
        self._newest.use(context)
        _logger.info("certificate renewed", extra={"file": str(self._cert)})

    def _read(self) -> tuple[bytes, ...]:
        files = (self._cert, self._key, self._client_ca)
        return tuple(file.read_bytes() for file in files if file is not None)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._cert, self._key, password=_no_password)
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = self._clients
        return context

    def _explain(self, exc: OSError) -> str:
        beside = f" beside the clients' CA {self._client_ca}" if self._client_ca is not None else ""
        return f"the TLS certificate {self._cert} and key {self._key} cannot be used together{beside}: {exc}"


def _no_password() -> str:
    """OpenSSL would else ask for the password of an encrypted key on the terminal."""
    raise ssl.SSLError("the key is encrypted; there is nobody to ask for its password, so store it plain")
