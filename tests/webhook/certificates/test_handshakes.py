"""Real TLS handshakes with certificates that change underneath."""

import ssl
from datetime import UTC, datetime

import pytest
import trustme

from tests.webhook.certificates.pem import certificate_of, listening, made_by, trust_in, visit
from webhook.certificates.handshakes import Handshakes
from webhook.certificates.issuing import issue
from webhook.certificates.pairs import CertificateError, Pair


async def test_new_connections_get_the_new_certificate_and_old_ones_go_on() -> None:
    old, new = (made_by(trustme.CA()) for _ in range(2))
    handshakes = Handshakes(old)
    async with listening(handshakes.context) as server:
        before = await visit(server.port)
        assert await before.ask("/one") == b"/one"

        handshakes.use(new)

        after = await visit(server.port)
        assert (before.shown, after.shown) == (old.leaf, new.leaf)
        assert await before.ask("/two") == b"/two"
        assert await after.ask("/three") == b"/three"
        await before.leave()
        await after.leave()


@pytest.mark.parametrize("ciphers", ["ECDHE+aRSA", "ECDHE+ECDSA", "ALL"])
async def test_a_key_of_another_kind_leaves_nothing_of_the_old_one(ciphers: str) -> None:
    """A client that prefers RSA must not get the old RSA certificate any more: cert-manager can change the kind."""
    old, new = made_by(trustme.CA(), key_type=trustme.KeyType.RSA), made_by(trustme.CA())
    handshakes = Handshakes(old)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.maximum_version = ssl.TLSVersion.TLSv1_2  # where the client's ciphers choose the kind of certificate
    client.set_ciphers(ciphers)
    async with listening(handshakes.context) as server:
        handshakes.use(new)
        if ciphers == "ECDHE+aRSA":
            with pytest.raises((ssl.SSLError, ConnectionError)):  # whichever the client meets first
                await visit(server.port, client)
        else:
            after = await visit(server.port, client)
            assert after.shown == new.leaf
            await after.leave()


async def test_a_client_that_names_no_server_is_served_too() -> None:
    """kube-apiserver names none where it calls an IP address."""
    authority = trustme.CA()
    pair = made_by(authority, "127.0.0.1")
    async with listening(Handshakes(pair).context) as server:
        trusting = trust_in(certificate_of(authority))
        visitor = await visit(server.port, trusting, server_name="127.0.0.1")
        assert visitor.shown == pair.leaf
        await visitor.leave()


async def test_what_we_make_is_verified_by_its_ca_alone() -> None:
    pair, authority = issue(["127.0.0.1", "webhook.test.svc"], now=datetime.now(UTC))
    _, stranger = issue(["127.0.0.1", "webhook.test.svc"], now=datetime.now(UTC))
    async with listening(Handshakes(pair).context) as server:
        for name in ("127.0.0.1", "webhook.test.svc"):
            visitor = await visit(server.port, trust_in(stranger, authority), server_name=name)
            assert await visitor.ask("/") == b"/"
            await visitor.leave()
        with pytest.raises(ssl.SSLCertVerificationError):
            await visit(server.port, trust_in(stranger))
        with pytest.raises(ssl.SSLCertVerificationError, match=r"[Mm]ismatch"):
            await visit(server.port, trust_in(authority), server_name="other.test.svc")


async def test_a_pair_that_openssl_refuses_changes_nothing() -> None:
    good, other = (made_by(trustme.CA()) for _ in range(2))
    handshakes = Handshakes(good)
    async with listening(handshakes.context) as server:
        with pytest.raises(CertificateError, match="OpenSSL does not accept"):
            handshakes.use(Pair(good.chain, other.key, good.leaf))

        visitor = await visit(server.port)
        assert visitor.shown == good.leaf
        await visitor.leave()
