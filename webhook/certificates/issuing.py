"""Self-made certificates: a CA that signs one certificate, and is gone. Pure, but for the draw of the keys.

No CA key is ever stored or shown: it is made, signs once, and is forgotten when `issue` returns. So whoever steals the
serving key can play the webhook until that certificate ends, and can never make another one.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import Certificate
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from webhook.certificates.pairs import Pair

LIFETIME: Final = timedelta(days=90)
"""How long a certificate and its CA hold."""

BACKDATED: Final = timedelta(hours=6)
"""How long before its making a certificate begins, for clocks that are behind ours."""

_COMMON_NAME: Final = "fracgpu-webhook"


def issue(names: Iterable[str], *, now: datetime) -> tuple[Pair, Certificate]:
    """Make a certificate for a server, and the CA that it is verified by.

    Args:
        names: DNS names and IP addresses, without wildcards.
        now: when it is made.
    """
    signer, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    begin, end = now - BACKDATED, now + LIFETIME
    # The name of a CA tells it from the one before: verifiers look up an issuer by its name.
    issuer = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"{_COMMON_NAME}-ca-{x509.random_serial_number():x}"[:64])]
    )
    identity = x509.SubjectKeyIdentifier.from_public_key(signer.public_key())
    authority = (
        _begun(issuer, issuer, signer.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identity, critical=False)
        .sign(signer, hashes.SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _COMMON_NAME)])
    leaf = (
        _begun(subject, issuer, key.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in sorted(set(names))]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identity), critical=False)
        .sign(signer, hashes.SHA256())
    )
    written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(leaf.public_bytes(Encoding.PEM), written, leaf), authority


def _begun(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
