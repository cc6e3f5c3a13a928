"""What is found in the Secret, when it has to be renewed, and what takes its place: pure, by an invented clock."""

from base64 import b64encode
from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.webhook.certificates.pem import NOW
from webhook.certificates.issuing import BACKDATED, LIFETIME, issue
from webhook.certificates.pairs import CertificateError, lacking, read_bundle, read_pair, write_bundle
from webhook.certificates.renewing import Finding, Offer, content_of, examine, renewed

NAMES = ("fracgpu-webhook.fracgpu-system.svc", "10.0.0.1")
NOTHING = Finding(None)
DAY = timedelta(days=1)

Content = dict[str, bytes]


def fresh() -> Content:
    """What a first issue at NOW writes."""
    return content_of(renewed(NOTHING, names=NAMES, trusted=(), now=NOW))


CASES: dict[str, tuple[Callable[[Content], Content], timedelta, bool, str]] = {
    "fresh": (lambda c: c, timedelta(0), True, ""),
    "seen by a clock that is hours behind": (lambda c: c, -timedelta(hours=5), True, ""),
    "seen by a clock that is days behind": (lambda c: c, -DAY, False, "it holds from"),
    "middle-aged": (lambda c: c, 59 * DAY, True, ""),
    "less than a third left": (lambda c: c, 61 * DAY, True, "it ends at"),
    "its last hour": (lambda c: c, LIFETIME - timedelta(hours=1), True, "it ends at"),
    "ended": (lambda c: c, LIFETIME, False, "it holds from"),
    "empty": (lambda c: {}, timedelta(0), False, "there is none yet"),
    "empty values": (lambda c: dict.fromkeys(c, b""), timedelta(0), False, "there is none yet"),
    "without its key": (lambda c: c | {"tls.key": b""}, timedelta(0), False, "the key cannot be read"),
    "another key": (lambda c: c | {"tls.key": fresh()["tls.key"]}, timedelta(0), False, "not that of the certificate"),
    "another CA": (lambda c: c | {"ca.crt": fresh()["ca.crt"]}, timedelta(0), False, "none of the CAs in ca.crt"),
    "without its CA": (lambda c: c | {"ca.crt": b""}, timedelta(0), False, "none of the CAs in ca.crt"),
    "half a certificate": (lambda c: c | {"tls.crt": c["tls.crt"][:200]}, timedelta(0), False, "certificate cannot be"),
    "noise": (lambda c: dict.fromkeys(c, b"\xff\x00noise"), timedelta(0), False, "certificate cannot be"),
    "noise between the CAs": (lambda c: c | {"ca.crt": b"# ours\n" + c["ca.crt"] + b"\xff"}, timedelta(0), True, ""),
}  # case -> what was done to a fresh one, how long after its issue, whether it can be served, why it has to be renewed


@pytest.mark.parametrize(("change", "age", "want_usable", "want_due"), CASES.values(), ids=CASES)
def test_what_is_found(change: Callable[[Content], Content], age: timedelta, want_usable: bool, want_due: str) -> None:
    finding = examine(change(fresh()), names=NAMES, now=NOW + age)

    assert (finding.offer is not None) is want_usable
    assert want_due in finding.due
    assert bool(finding.due) is bool(want_due)
    assert "PRIVATE KEY-----" not in finding.due


def test_other_names_are_a_reason_and_fewer_are_none() -> None:
    content = fresh()

    assert examine(content, names=NAMES[:1], now=NOW).due == ""
    other = examine(content, names=(*NAMES, "b.example", "a.example"), now=NOW)
    assert (other.due, other.offer is not None) == ("it is not for a.example, b.example", True)


def test_replicas_of_different_settings_do_not_renew_in_turns() -> None:
    """During a rollout that changes --tls-names, both of them have to be content with one certificate."""
    old, new = ("old.svc",), ("new.svc",)
    first = renewed(NOTHING, names=old, trusted=(), now=NOW)

    second = renewed(examine(content_of(first), names=new, now=NOW), names=new, trusted=(), now=NOW)

    assert second.pair.names == {"old.svc", "new.svc"}
    assert [examine(content_of(second), names=names, now=NOW).due for names in (old, new)] == ["", ""]
    at_its_time = NOW + 70 * DAY
    third = renewed(examine(content_of(second), names=new, now=at_its_time), names=new, trusted=(), now=at_its_time)
    assert third.pair.names == {"new.svc"}


def test_the_bundle_has_the_new_ca_and_those_in_force() -> None:
    """Two rotations, the second after the first CA has ended."""
    first = renewed(NOTHING, names=NAMES, trusted=(), now=NOW)
    soon, late = NOW + 61 * DAY, NOW + 95 * DAY

    second = renewed(examine(content_of(first), names=NAMES, now=soon), names=NAMES, trusted=(), now=soon)
    third = renewed(examine(content_of(second), names=NAMES, now=late), names=NAMES, trusted=(), now=late)

    assert [len(offer.authorities) for offer in (first, second, third)] == [1, 2, 2]
    assert second.authorities[1:] == first.authorities
    assert third.authorities[1:] == second.authorities[:1]
    for offer in (first, second, third):
        assert offer.pair.is_issued_by_one_of(offer.authorities[:1]), "the newest is the first"
        assert read_bundle(content_of(offer)["ca.crt"]) == offer.authorities


@pytest.mark.parametrize("wiped", [{}, {"tls.key": b""}], ids=["everything was deleted", "only the key was"])
def test_what_replicas_serve_with_stays_trusted_although_the_secret_lost_it(wiped: Content) -> None:
    served = renewed(NOTHING, names=NAMES, trusted=(), now=NOW)
    left = content_of(served) | wiped if wiped else {}

    offer = renewed(examine(left, names=NAMES, now=NOW), names=NAMES, trusted=served.authorities, now=NOW)

    assert offer.authorities[1:] == served.authorities


def test_whoever_empties_the_secret_again_and_again_does_not_make_it_grow_without_end() -> None:
    content = fresh()
    for _ in range(40):
        content = content_of(
            renewed(examine({"ca.crt": content["ca.crt"]}, names=NAMES, now=NOW), names=NAMES, trusted=(), now=NOW)
        )

    assert len(read_bundle(content["ca.crt"])) == 33
    assert examine(content, names=NAMES, now=NOW).offer is not None


def test_a_certificate_of_a_version_that_nobody_knows_is_passed_over() -> None:
    """The library has an error of its own for it: it must not end the process."""
    content = fresh()
    (leaf,) = read_bundle(content["tls.crt"])
    broken = leaf.public_bytes(Encoding.DER).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03", 1)
    pem = b"-----BEGIN CERTIFICATE-----\n" + b64encode(broken) + b"\n-----END CERTIFICATE-----\n"

    assert read_bundle(pem + content["ca.crt"]) == read_bundle(content["ca.crt"])
    assert examine(content | {"tls.crt": pem}, names=NAMES, now=NOW).offer is None


def test_each_rotation_has_a_ca_of_its_own_and_its_key_is_nowhere() -> None:
    first, second = (renewed(NOTHING, names=NAMES, trusted=(), now=NOW) for _ in range(2))

    assert first.authorities[0].subject != second.authorities[0].subject
    written = content_of(first)
    assert sum(value.count(b"BEGIN PRIVATE KEY") for value in written.values()) == 1
    with pytest.raises(CertificateError, match="not that of the certificate"):
        read_pair(chain=write_bundle(first.authorities), key=written["tls.key"])


def test_a_pair_does_not_show_its_key() -> None:
    pair, authority = issue(NAMES, now=NOW)

    body = pair.key.split(b"\n")[1].decode()
    assert body not in repr(pair) + str(pair) + repr(Offer(pair, (authority,)))


def test_lifetimes_begin_in_the_past() -> None:
    pair, authority = issue(NAMES, now=NOW)

    for certificate in (pair.leaf, authority):
        assert certificate.not_valid_before_utc == NOW - BACKDATED
        assert certificate.not_valid_after_utc == NOW + LIFETIME


def test_an_encrypted_key_is_refused_without_asking_anybody() -> None:
    pair, _ = issue(NAMES, now=NOW)
    locked = load_pem_private_key(pair.key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )

    with pytest.raises(CertificateError, match="the key is encrypted"):
        read_pair(chain=pair.chain, key=locked)


def test_what_lacks_is_told_whatever_the_order() -> None:
    authorities = tuple(issue(NAMES, now=NOW)[1] for _ in range(3))

    assert lacking(authorities, authorities[::-1]) == ()
    assert lacking(authorities[:1], authorities) == authorities[1:]
    assert read_bundle(b"nothing") == ()
