"""When a self-made certificate has to be renewed, and what the Secret then holds. Pure.

The Secret holds three keys, named as cert-manager names them: the certificate, its key, and the CAs to trust, the
newest first. CAs that are still in force stay in there: other replicas serve with what they signed until they have
seen the new one.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography.x509 import Certificate

from webhook.certificates.issuing import issue
from webhook.certificates.pairs import (
    CertificateError,
    Pair,
    in_force,
    lacking,
    newest,
    read_bundle,
    read_pair,
    write_bundle,
)

CHAIN: Final = "tls.crt"
KEY: Final = "tls.key"
AUTHORITIES: Final = "ca.crt"

_RENEWED_AT: Final = 2 / 3
"""The part of its life after which a certificate is renewed: weeks to notice that it cannot be."""

_OVERDUE_AT: Final = 5 / 6
"""The part after which it should have been renewed, by whomever; cert-manager does it at two thirds as well."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A certificate to serve with, and what has to be trusted for it.

    Attributes:
        pair: the certificate and its key.
        authorities: the CAs that caBundle is to hold; none where it is kept by somebody else.
    """

    pair: Pair
    authorities: tuple[Certificate, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found in the Secret.

    Attributes:
        offer: what can be served; None where nothing can.
        due: why it has to be renewed; empty where it does not.
        authorities: the CAs found that are in force.
    """

    offer: Offer | None
    due: str = ""
    authorities: tuple[Certificate, ...] = ()


def examine(content: Mapping[str, bytes], *, names: Collection[str], now: datetime) -> Finding:
    """Look at what the Secret holds.

    Args:
        content: key -> value.
        names: the DNS names and IP addresses that the certificate has to have.
        now: the time.
    """
    if not any(content.get(key) for key in (CHAIN, KEY, AUTHORITIES)):
        return Finding(None, "there is none yet")
    authorities = in_force(read_bundle(content.get(AUTHORITIES, b"")), now=now)
    try:
        pair = read_pair(chain=content.get(CHAIN, b""), key=content.get(KEY, b""))
    except CertificateError as exc:
        return Finding(None, str(exc), authorities)
    if not pair.is_valid_at(now):
        return Finding(
            None, f"it holds from {pair.leaf.not_valid_before_utc} to {pair.expires}, and now is {now}", authorities
        )
    if not pair.is_issued_by_one_of(authorities):
        return Finding(None, f"none of the CAs in {AUTHORITIES} that are in force signed it", authorities)
    offer = Offer(pair, authorities)
    if missing := sorted(set(names) - pair.names):
        return Finding(offer, f"it is not for {', '.join(missing)}", authorities)
    if now >= _after(_RENEWED_AT, pair.leaf):
        return Finding(offer, f"it ends at {pair.expires}", authorities)
    return Finding(offer, authorities=authorities)


def renewed(finding: Finding, *, names: Iterable[str], trusted: Iterable[Certificate], now: datetime) -> Offer:
    """Make what takes the place of what was found.

    Args:
        finding: what was found.
        names: the DNS names and IP addresses that the certificate has to have. Where the one before had others that
            were missing some, it gets those too, so that replicas of different settings do not renew it in turns.
        trusted: CAs to go on trusting besides those found, because we serve with what they signed.
        now: the time.
    """
    wanted = set(names)
    if finding.offer is not None and not wanted <= finding.offer.pair.names:
        wanted |= finding.offer.pair.names
    pair, authority = issue(wanted, now=now)
    kept = finding.authorities + lacking(finding.authorities, trusted)
    return Offer(pair, (authority, *newest(in_force(kept, now=now))))


def content_of(offer: Offer) -> dict[str, bytes]:
    """What the Secret is to hold: key -> value."""
    return {CHAIN: offer.pair.chain, KEY: offer.pair.key, AUTHORITIES: write_bundle(offer.authorities)}


def is_overdue(pair: Pair, *, now: datetime) -> bool:
    """Whether a certificate has ended, or will soon and ought to have been replaced."""
    return now >= _after(_OVERDUE_AT, pair.leaf)


def _after(part: float, certificate: Certificate) -> datetime:
    """When that part of a certificate's life is over."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin + (end - begin) * part
