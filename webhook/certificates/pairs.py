"""A certificate with its key, and bundles of CAs: read from PEM, checked, and compared. Pure.

Nothing here prints a key, and no error quotes what could be a piece of one.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import Certificate

from fracgpu.errors import InputError

_PEM_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_MAX_KEPT: Final = (
    32  # CAs beside the newest: some 20 KB; a renewal a month needs 4, and replicas know the newest within minutes
)


class CertificateError(InputError):
    """A certificate or its key cannot be used."""

    reason = "InvalidCertificate"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain and the key of its first certificate, which belong together.

    Attributes:
        chain: PEM, the server's own certificate first.
        key: PEM, not encrypted.
        leaf: the server's own certificate.
    """

    chain: bytes
    key: bytes = field(repr=False)
    leaf: Certificate

    @property
    def expires(self) -> datetime:
        """When the server's own certificate ends."""
        return self.leaf.not_valid_after_utc

    def is_valid_at(self, now: datetime) -> bool:
        """Whether the server's own certificate is in force."""
        return self.leaf.not_valid_before_utc <= now < self.expires

    @property
    def names(self) -> frozenset[str]:
        """The DNS names and IP addresses of the server's own certificate."""
        try:
            found = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, ValueError):  # the latter: an extension that cannot be read
            return frozenset()
        return frozenset(found.get_values_for_type(x509.DNSName)) | frozenset(
            map(str, found.get_values_for_type(x509.IPAddress))
        )

    def is_for(self, name: str) -> bool:
        """Whether a client that calls the server by this DNS name or IP address finds it in the certificate."""
        _, dot, domain = name.partition(".")
        return name in self.names or f"*{dot}{domain}" in self.names

    def is_issued_by_one_of(self, authorities: Iterable[Certificate]) -> bool:
        """Whether one of these signed the server's own certificate."""
        return any(_issued(self.leaf, authority) for authority in authorities)

    def leads_to(self, authorities: Collection[Certificate]) -> bool:
        """Whether a client that trusts these finds the way to one of them, over the intermediate CAs of the chain."""
        path, others = [self.leaf], [certificate for certificate in read_bundle(self.chain) if certificate != self.leaf]
        for link in path:
            if link in authorities or any(_issued(link, authority) for authority in authorities):
                return True
            path += [issuer for issuer in others if issuer not in path and _issued(link, issuer)]
        return False


def read_pair(*, chain: bytes, key: bytes) -> Pair:
    """Read a certificate and its key, both PEM.

    Raises:
        CertificateError: one of them cannot be read, or they do not belong together.
    """
    certificates = read_bundle(chain)
    if not certificates:
        raise CertificateError("the certificate cannot be read: there is no readable PEM block CERTIFICATE")
    try:
        private = load_pem_private_key(key, password=None)
    except TypeError as exc:  # what cryptography raises for a key that needs a password
        raise CertificateError(
            "the key is encrypted; there is nobody to ask for its password, so store it plain"
        ) from exc
    except Exception as exc:  # of many kinds, by format and algorithm; their texts may quote what they read
        raise CertificateError("the key cannot be read: it must be a PEM block PRIVATE KEY, not encrypted") from exc
    try:
        ours, theirs = (
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            for public in (private.public_key(), certificates[0].public_key())
        )
    except Exception as exc:  # an algorithm that cryptography does not know
        raise CertificateError("the certificate is for a kind of key that cannot be used") from exc
    if ours != theirs:
        raise CertificateError("the key is not that of the certificate")
    return Pair(chain, key, certificates[0])


def read_bundle(pem: bytes) -> tuple[Certificate, ...]:
    """The certificates in a PEM text, in its order; what is none, or cannot be read, is passed over."""
    found = []
    for block in _PEM_CERTIFICATE.findall(pem):
        try:
            found.append(x509.load_pem_x509_certificate(block))
        except (ValueError, x509.InvalidVersion):
            continue
    return tuple(found)


def newest(certificates: Iterable[Certificate]) -> tuple[Certificate, ...]:
    """The first of these CAs, which are listed with the newest first, as many as are ever needed.

    Each renewal leaves one behind, and who undoes our renewals again and again must not make objects grow without end.
    """
    return tuple(islice(certificates, _MAX_KEPT))


def write_bundle(certificates: Iterable[Certificate]) -> bytes:
    """Write certificates as PEM."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def in_force(certificates: Iterable[Certificate], *, now: datetime) -> tuple[Certificate, ...]:
    """Those that have not ended."""
    return tuple(certificate for certificate in certificates if now < certificate.not_valid_after_utc)


def lacking(present: Collection[Certificate], wanted: Iterable[Certificate]) -> tuple[Certificate, ...]:
    """What of `wanted` is not in `present`."""
    return tuple(certificate for certificate in wanted if certificate not in present)


def _issued(certificate: Certificate, authority: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # names that differ, a signature that is not its own, an algorithm that is not known
        return False
    return True
