"""The certificate from files that somebody else renews, as cert-manager renews a Secret that is mounted as a volume.

The kubelet swaps a whole folder at once, others write file by file. So files are compared by content, and read until
they fit together; which of them was written first does not matter.
"""

import asyncio
from pathlib import Path

from cryptography.x509 import Certificate

from fracgpu.errors import SettingError
from webhook.certificates.pairs import CertificateError, read_bundle, read_pair
from webhook.certificates.renewing import Offer


class CertificateFiles:
    """Reads the certificate, its key and perhaps its CA from files.

    Args:
        cert: PEM file with the certificate chain.
        key: PEM file with its key.
        ca: PEM file with the CAs that caBundle is to hold; None where somebody else keeps it.
    """

    def __init__(self, *, cert: Path, key: Path, ca: Path | None) -> None:
        self._cert = cert
        self._key = key
        self._ca = ca
        self._last: tuple[tuple[bytes, ...], Offer] | None = None  # what was read, and what it means

    async def first(self) -> Offer:
        """Read the files at the start, when whoever set us up is there to repair them.

        Raises:
            SettingError: they cannot be used.
        """
        try:
            return await self.newest()
        except CertificateError as exc:
            raise SettingError(str(exc)) from exc

    async def run(self) -> None:
        """Nothing goes on between two readings."""

    async def newest(self, *, trusted: tuple[Certificate, ...] = ()) -> Offer:
        """Read the files as they are now.

        Raises:
            CertificateError: they cannot be read, or do not fit together; perhaps not all are written yet.
        """
        files = (self._cert, self._key) if self._ca is None else (self._cert, self._key, self._ca)
        try:
            read = await asyncio.to_thread(lambda: tuple(file.read_bytes() for file in files))
        except OSError as exc:
            raise CertificateError(
                f"the TLS certificate {self._cert} and key {self._key} cannot be used together: {exc}"
            ) from exc
        if self._last is None or self._last[0] != read:
            self._last = read, self._offer(*read)
        return self._last[1]

    def _offer(self, cert: bytes, key: bytes, ca: bytes | None = None) -> Offer:
        try:
            pair = read_pair(chain=cert, key=key)
        except CertificateError as exc:
            raise CertificateError(
                f"the TLS certificate {self._cert} and key {self._key} cannot be used together: {exc}"
            ) from exc
        authorities = () if ca is None else read_bundle(ca)
        if ca is not None and not authorities:
            raise CertificateError(f"the file {self._ca} holds no CA: there is no readable PEM block CERTIFICATE")
        if authorities and not pair.leads_to(authorities):
            raise CertificateError(
                f"none of the CAs in {self._ca} signed the TLS certificate {self._cert}, so kube-apiserver would not "
                "trust it"
            )
        return Offer(pair, authorities)
