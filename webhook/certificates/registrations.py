"""Keeps `caBundle` in our webhook configurations: the CAs by which kube-apiserver verifies us.

CAs are added, and those that have ended are dropped on that occasion; one that is in force is never taken away. So a
replica that has not yet seen the newest certificate does no harm to one that has, and in whatever order replicas write,
all of them stay trusted. Somebody else's edit is put right as soon as the watch tells of it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from cryptography.x509 import Certificate

from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.kube.reflector import Reflector
from webhook.certificates.happenings import Happening, OnHappening, unnoticed
from webhook.certificates.objects import CONFIGURATION, CONFIGURATIONS, FIELD_MANAGER, Configuration, configuration_body
from webhook.certificates.pairs import Pair, in_force, lacking, newest, read_bundle, write_bundle

_CONFLICT: Final = 409

_logger = logging.getLogger(__name__)


class Registrations:
    """The two webhook configurations named `CONFIGURATION`; either may be absent.

    Args:
        kube: the API server.
        changed: set whenever there is something new to look at.
        now: the time.
        on_happening: is told when caBundle was written.
    """

    def __init__(
        self,
        kube: KubeClient,
        *,
        changed: asyncio.Event,
        now: Callable[[], datetime],
        on_happening: OnHappening = unnoticed,
    ) -> None:
        self._kube = kube
        self._on_happening = on_happening
        self._now = now
        self._absent: set[str] = set()  # kinds whose absence was logged
        self._reflectors = {
            kind: Reflector(
                kube,
                resource,
                on_change=lambda _: changed.set(),
                field_selector=f"metadata.name={CONFIGURATION}",
                on_progress=lambda _: changed.set(),
            )
            for kind, resource in CONFIGURATIONS.items()
        }  # kind -> its one object

    async def run(self) -> None:
        """Follow the configurations until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for kind, reflector in self._reflectors.items():
                tasks.create_task(reflector.run(), name=f"following {kind}")

    def distrust(self, authorities: Sequence[Certificate]) -> str:
        """Say where kube-apiserver would not trust a certificate of these CAs; empty where it would."""
        wanted = in_force(authorities, now=self._now())
        for kind, reflector in self._reflectors.items():
            if not reflector.synced.is_set():
                return f"the {kind} {CONFIGURATION} has not been read yet"
            for found in reflector.objects.values():
                if _bundles(found, wanted, now=self._now()):
                    return f"caBundle in the {kind} {CONFIGURATION} lacks the CA of our certificate"
        return ""

    def misnamed(self, pair: Pair) -> str:
        """Say by which name kube-apiserver calls us that this certificate is not for; empty where there is none."""
        for kind, reflector in self._reflectors.items():
            for webhook in (each for found in reflector.objects.values() for each in found.webhooks or ()):
                name = webhook.client_config.server_name
                if name and not pair.is_for(name):
                    names = ", ".join(sorted(pair.names)) or "no name at all"
                    return (
                        f"the {kind} {CONFIGURATION} calls {name}, and the certificate is for {names}; it has to be "
                        "for that name too (--tls-names)"
                    )
        return ""

    async def introduce(self, authorities: Sequence[Certificate]) -> bool:
        """Have kube-apiserver trust these CAs; whether that needed a write, which the watch then tells of.

        Raises:
            KubeError: the API server did not take it.
        """
        wanted = in_force(authorities, now=self._now())
        has_written = False
        for kind, reflector in self._reflectors.items():
            if reflector.synced.is_set():
                self._note_absence(kind, is_absent=not reflector.objects)
            for found in list(reflector.objects.values()):
                if bundles := _bundles(found, wanted, now=self._now()):
                    has_written = True
                    await self._write(kind, found, bundles)
        return has_written

    async def _write(self, kind: str, found: Configuration, bundles: dict[str, bytes]) -> None:
        body = configuration_body(kind, found, bundles)
        try:
            await self._kube.apply(CONFIGURATIONS[kind], CONFIGURATION, body, field_manager=FIELD_MANAGER)
        except KubeError as exc:
            if exc.status != _CONFLICT:
                raise
        else:
            self._on_happening(Happening.TRUST_WRITTEN)
            _logger.info("caBundle written", extra={"kind": kind, "object": CONFIGURATION, "webhooks": list(bundles)})

    def _note_absence(self, kind: str, *, is_absent: bool) -> None:
        if is_absent and kind not in self._absent:
            self._absent.add(kind)
            _logger.info("not registered", extra={"kind": kind, "object": CONFIGURATION})
        elif not is_absent:
            self._absent.discard(kind)


def _bundles(found: Configuration, wanted: Sequence[Certificate], *, now: datetime) -> dict[str, bytes]:
    """What caBundle is to be, webhook -> PEM; empty where none lacks anything.

    All webhooks of the object or none: server-side apply takes away what its manager leaves out the next time.
    """
    present = {webhook.name: read_bundle(webhook.client_config.pem) for webhook in found.webhooks or ()}
    if not any(lacking(bundle, wanted) for bundle in present.values()):
        return {}
    return {
        name: write_bundle((*wanted, *newest(lacking(wanted, in_force(bundle, now=now)))))
        for name, bundle in present.items()
    }
