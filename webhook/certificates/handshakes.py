"""TLS handshakes with whatever pair of certificate and key is the newest, given to OpenSSL without a file."""

import os
import ssl
from typing import Final

from fracgpu.process.tls import NewestContext
from webhook.certificates.pairs import CertificateError, Pair

_KEY_FILE: Final = "fracgpu-webhook-tls"  # a name for people who look into /proc; no such file exists anywhere


class Handshakes:
    """The TLS side of a server.

    Args:
        pair: the first certificate.

    Attributes:
        context: what the server is to listen with.

    Raises:
        CertificateError: OpenSSL does not accept the first certificate.
    """

    def __init__(self, pair: Pair) -> None:
        self._newest = NewestContext(_context(pair))
        self.context = self._newest.context

    def use(self, pair: Pair) -> None:
        """Serve new connections with this certificate.

        Raises:
            CertificateError: OpenSSL does not accept it; the one before stays.
        """
        self._newest.use(_context(pair))


def _context(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # OpenSSL reads from files only. This one is memory that nobody else can open, and is gone when it is closed.
    file = os.memfd_create(_KEY_FILE)
    try:
        with os.fdopen(file, "wb", closefd=False) as pem:
            pem.write(pair.key.rstrip() + b"\n" + pair.chain)
        context.load_cert_chain(f"/proc/self/fd/{file}", password=_no_password)
    except OSError as exc:  # ssl.SSLError is one
        raise CertificateError(f"OpenSSL does not accept the certificate: {exc}") from exc
    finally:
        os.close(file)
    return context


def _no_password() -> str:
    raise CertificateError("the key is encrypted")  # else OpenSSL would ask at the terminal
