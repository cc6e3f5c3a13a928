"""The life of the webhook's certificate: find the newest, have it trusted, then serve with it, for as long as we run.

The order matters. kube-apiserver must know a CA before the first handshake with what it signed, and learns of it by a
watch of its own, at a moment that we cannot see. So while the certificate in use still holds, a newer one waits until
its CA has been in caBundle for a while; every replica waits for itself. A process that has none yet waits for nothing:
it would only be refused in another way.
"""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from cryptography.x509 import Certificate

from fracgpu.errors import FracgpuError, SettingError, UnavailableError
from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.trouble import Backoff, TroubleLog
from webhook.certificates.files import CertificateFiles
from webhook.certificates.handshakes import Handshakes
from webhook.certificates.happenings import Happening, OnHappening, unnoticed
from webhook.certificates.issuing import issue
from webhook.certificates.pairs import CertificateError
from webhook.certificates.registrations import Registrations
from webhook.certificates.renewing import Offer, is_overdue
from webhook.certificates.secret import CertificateSecret
from webhook.settings import WebhookSettings

SETTLE_SECONDS: Final = 60.0
"""How long a CA has been in caBundle before it is relied on. kube-apiserver takes up a change within a second; a
minute is enough for one of several that is just connecting anew."""

_LOOK_SECONDS: Final = 5.0  # between two looks at files and clock; what the API server has, its watch tells at once
_QUIET_SECONDS: Final = 60.0  # without a write or trouble, after which pauses are short again
_WARNING_SECONDS: Final = 3600.0  # between two warnings about a certificate that ends, or has ended

_logger = logging.getLogger(__name__)


class Source(Protocol):
    """Where the certificate comes from."""

    async def first(self) -> Offer | None:
        """What is there at the start; raises a SettingError where that cannot be used."""
        ...

    async def run(self) -> None:
        """Follow changes until cancelled."""
        ...

    async def newest(self, *, trusted: tuple[Certificate, ...]) -> Offer | None:
        """What is there now, None where that is not known yet; raises CertificateError or UnavailableError."""
        ...


def certificates_of(
    settings: WebhookSettings, *, kube: KubeClient | None, on_happening: OnHappening = unnoticed
) -> "Certificates":
    """Make what the settings say.

    Args:
        settings: the webhook's.
        kube: the API server, where `settings.certificate_needs_kube`.
        on_happening: is told what happens to the certificate.
    """
    changed = asyncio.Event()
    registrations = (
        None if kube is None else Registrations(kube, changed=changed, now=_utc_now, on_happening=on_happening)
    )
    source: Source
    if kube is not None and settings.tls_secret:
        namespace, _, name = settings.tls_secret.partition("/")
        source = CertificateSecret(
            kube,
            namespace=namespace,
            name=name,
            names=settings.tls_names,
            changed=changed,
            now=_utc_now,
            on_happening=on_happening,
        )
    elif settings.tls_cert is not None and settings.tls_key is not None:
        source = CertificateFiles(cert=settings.tls_cert, key=settings.tls_key, ca=settings.tls_ca)
        registrations = registrations if settings.tls_ca is not None else None
    else:
        raise ValueError("a certificate in a Secret needs the API server")
    return Certificates(source, registrations=registrations, changed=changed, on_happening=on_happening)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Certificates:
    """Gives a server its certificate, between `start` and the end of `run`.

    Args:
        source: where the certificate comes from.
        registrations: where kube-apiserver is told whom to trust; None where that is somebody else's part.
        changed: set whenever source or registrations have something new.
        now: the time, by which certificates begin and end.
        clock: seconds that only grow, by which we wait.
        settle_seconds: how long a CA has been in caBundle before it is relied on.
        look_seconds: how often to look without being told of a change.
        on_happening: is told what happens to the certificate.
    """

    def __init__(
        self,
        source: Source,
        *,
        registrations: Registrations | None,
        changed: asyncio.Event,
        now: Callable[[], datetime] = _utc_now,
        clock: Callable[[], float] = time.monotonic,
        settle_seconds: float = SETTLE_SECONDS,
        look_seconds: float = _LOOK_SECONDS,
        on_happening: OnHappening = unnoticed,
    ) -> None:
        self._source = source
        self._registrations = registrations
        self._changed = changed
        self._now = now
        self._clock = clock
        self._settle_seconds = settle_seconds
        self._look_seconds = look_seconds
        self._on_happening = on_happening
        self._trouble = TroubleLog(_logger, subject="the webhook's certificate", clock=clock)
        self._problem = "the API server has not answered yet"
        self._served: Offer | None = None
        self._trusted: tuple[Offer, float] | None = None  # what waits to be served, and since when it is trusted
        self._handshakes: Handshakes | None = None
        self._warned: float | None = None  # when it was last said that the certificate served ends, or has ended

    @property
    def context(self) -> ssl.SSLContext:
        """What to listen with; there after `start`."""
        if self._handshakes is None:
            raise RuntimeError("the certificates have not been started")
        return self._handshakes.context

    async def start(self) -> None:
        """Take the first certificate, or one that nobody trusts, so that probes get an answer until there is one.

        Raises:
            SettingError: what we were told to serve with cannot be used.
        """
        first = await self._source.first()
        placeholder, _ = issue(["localhost"], now=self._now())
        self._handshakes = Handshakes(placeholder)
        if first is not None:
            try:
                self._serve(first)
            except CertificateError as exc:
                raise SettingError(str(exc)) from exc

    async def run(self) -> None:
        """Keep certificate and trust current until cancelled; trouble is logged and tried again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._source.run(), name="following the certificate")
            if self._registrations is not None:
                tasks.create_task(self._registrations.run(), name="following the registrations")
            await self._keep()

    def missing(self) -> str:
        """Say what keeps kube-apiserver from calling us; empty where nothing does."""
        if self._served is None:
            return f"there is no certificate yet: {self._problem}"
        pair = self._served.pair
        if not pair.is_valid_at(self._now()):
            return f"the certificate holds from {pair.leaf.not_valid_before_utc} to {pair.expires} only"
        if self._registrations is None:
            return ""
        return self._registrations.distrust(self._served.authorities) or self._registrations.misnamed(pair)

    @property
    def expires(self) -> datetime | None:
        """When the certificate in use ends; None while there is none."""
        return None if self._served is None else self._served.pair.leaf.not_valid_after_utc

    @property
    def is_trusted(self) -> bool | None:
        """Whether caBundle holds the CA of the certificate in use; None where that is not ours to keep."""
        if self._registrations is None:
            return None
        return self._served is not None and not self._registrations.distrust(self._served.authorities)

    async def _keep(self) -> None:
        pauses = Backoff()
        disturbed = self._clock()
        while True:
            self._changed.clear()
            is_quiet = False
            try:
                is_quiet = not await self._look()
            except (CertificateError, UnavailableError, KubeError) as exc:
                self._problem = str(exc)
                self._trouble.failed(exc)
                self._on_happening(Happening.TROUBLE)
            else:
                self._trouble.succeeded()
            self._warn_of_end()
            if not is_quiet:
                # Somebody may undo each of our writes: what they and we write must not become a storm.
                disturbed = self._clock()
                await asyncio.sleep(pauses.next_seconds())
            elif self._clock() - disturbed > _QUIET_SECONDS:
                pauses.reset()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_seconds):
                    await self._changed.wait()

    async def _look(self) -> bool:
        """Do what is to be done now; whether something was written."""
        trusted = () if self._served is None else self._served.authorities
        trouble: FracgpuError | None = None
        try:
            newest = await self._source.newest(trusted=trusted)
        except (CertificateError, UnavailableError) as exc:
            newest, trouble = None, exc
        offer = newest or self._served  # whatever is wrong with the next one, ours has to stay trusted
        has_written = False
        if offer is not None:
            if self._registrations is not None:
                has_written = await self._registrations.introduce(offer.authorities)
            self._take_up(offer)
        if trouble is not None:
            raise trouble
        return has_written

    def _warn_of_end(self) -> None:
        if self._served is None or not is_overdue(self._served.pair, now=self._now()):
            self._warned = None
        elif self._warned is None or self._clock() - self._warned >= _WARNING_SECONDS:
            self._warned = self._clock()
            _logger.warning(
                "certificate not renewed",
                extra={
                    "names": sorted(self._served.pair.names),
                    "expires": self._served.pair.expires.isoformat(),
                    "ended": not self._served.pair.is_valid_at(self._now()),
                },
            )

    def _take_up(self, offer: Offer) -> None:
        served = self._served
        if served is not None and served.pair == offer.pair:
            self._served = offer  # its CAs may be others
        elif served is None or not served.pair.is_valid_at(self._now()) or self._has_settled(offer):
            self._serve(offer)

    def _has_settled(self, offer: Offer) -> bool:
        if self._registrations is None:
            return True
        if self._registrations.distrust(offer.authorities):
            self._trusted = None
            return False
        if self._trusted is None or self._trusted[0].pair != offer.pair:
            self._trusted = offer, self._clock()
        return self._clock() - self._trusted[1] >= self._settle_seconds

    def _serve(self, offer: Offer) -> None:
        if self._handshakes is None:
            raise RuntimeError("the certificates have not been started")
        self._handshakes.use(offer.pair)
        self._served = offer
        self._on_happening(Happening.SERVED)
        _logger.info(
            "certificate in use",
            extra={"names": sorted(offer.pair.names), "expires": offer.pair.expires.isoformat()},
        )
