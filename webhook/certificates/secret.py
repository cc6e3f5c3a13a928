"""The self-made certificate, which all replicas share through one Secret.

Any replica that finds it missing, broken or due renews it. They need no leader: the write holds only if nobody wrote
since the Secret was read, so of several one wins and the others learn of it by their watch. The Secret itself comes
with the manifests, so that nobody needs a right to create Secrets.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Final

from cryptography.x509 import Certificate

from fracgpu.errors import UnavailableError
from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.kube.reflector import Reflector
from fracgpu.trouble import TroubleLog
from webhook.certificates.happenings import Happening, OnHappening, unnoticed
from webhook.certificates.objects import FIELD_MANAGER, SECRETS, Secret, secret_body
from webhook.certificates.renewing import Finding, Offer, content_of, examine, renewed

_CONFLICT: Final = 409

_logger = logging.getLogger(__name__)


class CertificateSecret:
    """Follows the Secret, and renews what is in it.

    Args:
        kube: the API server.
        namespace: the Secret's.
        name: the Secret's.
        names: the DNS names and IP addresses that the certificate has to have.
        changed: set whenever there is something new to look at.
        now: the time.
        on_happening: is told when a certificate was issued.
    """

    def __init__(
        self,
        kube: KubeClient,
        *,
        namespace: str,
        name: str,
        names: Collection[str],
        changed: asyncio.Event,
        now: Callable[[], datetime],
        on_happening: OnHappening = unnoticed,
    ) -> None:
        self._kube = kube
        self._on_happening = on_happening
        self._subject = f"the Secret {namespace}/{name}"
        self._names = names
        self._now = now
        self._trouble = TroubleLog(_logger, subject=f"renewing {self._subject}", clock=time.monotonic)
        self._written: tuple[str, Offer] | None = None  # the version that we replaced, and by what
        self._reflector = Reflector(
            kube,
            SECRETS.in_namespace(namespace),
            on_change=lambda _: changed.set(),
            field_selector=f"metadata.name={name}",  # without it a right to one name is none to list and watch
            on_progress=lambda _: changed.set(),
        )

    async def first(self) -> None:
        """Nothing is known at the start."""

    async def run(self) -> None:
        """Follow the Secret until cancelled."""
        await self._reflector.run()

    async def newest(self, *, trusted: tuple[Certificate, ...]) -> Offer | None:
        """What the Secret holds, renewed where it has to be; None before it was read.

        Args:
            trusted: CAs that stay in the bundle, whatever the Secret says, until they end.

        Raises:
            UnavailableError: it holds nothing usable, and could not be renewed.
        """
        if not self._reflector.synced.is_set():
            return None
        found = next(iter(self._reflector.objects.values()), None)
        if found is None:
            raise UnavailableError(
                f"{self._subject} does not exist; apply deploy/kustomize/webhook/secret.yaml, which makes it empty, or "
                "name another one by --tls-secret"
            )
        if self._written is not None and self._written[0] == found.metadata.resource_version:
            return self._written[1]  # our own write, of which the watch has not told yet
        finding = examine(found.content, names=self._names, now=self._now())
        return await self._renew(found, finding, trusted) if finding.due else finding.offer

    async def _renew(self, found: Secret, finding: Finding, trusted: tuple[Certificate, ...]) -> Offer | None:
        made = renewed(finding, names=self._names, trusted=trusted, now=self._now())
        meta = found.metadata
        try:
            await self._kube.apply(
                SECRETS,
                meta.name,
                secret_body(found, content_of(made)),
                field_manager=FIELD_MANAGER,
                namespace=meta.namespace,
            )
        except KubeError as exc:
            if exc.status == _CONFLICT:  # another replica was faster; the watch tells what it wrote
                return finding.offer
            self._trouble.failed(exc)
            if finding.offer is None:
                raise UnavailableError(f"{self._subject} holds no usable certificate ({finding.due}): {exc}") from exc
            return finding.offer
        self._trouble.succeeded()
        self._on_happening(Happening.ISSUED)
        _logger.info(
            "certificate issued",
            extra={"reason": finding.due, "names": sorted(made.pair.names), "expires": made.pair.expires.isoformat()},
        )
        self._written = meta.resource_version, made
        return made
