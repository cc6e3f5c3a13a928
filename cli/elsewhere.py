"""Webhook and extender that somebody else runs: a simulation waits for them, calls them by URL, and starts neither."""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final

import aiohttp

from fracgpu.errors import UnavailableError

_READY_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.2


class ServiceElsewhere:
    """One of them.

    Args:
        name: for people.
        url: where it serves.
        ca_pem: whom to trust where that is https; empty for http.
    """

    def __init__(self, name: str, *, url: str, ca_pem: str = "") -> None:
        self.name = name
        self._url = url.rstrip("/")
        self._tls: ssl.SSLContext | bool = ssl.create_default_context(cadata=ca_pem) if ca_pem else True

    async def ready(self) -> str:
        """Wait until it says that it is ready.

        Returns:
            Its URL.

        Raises:
            UnavailableError: that took too long; says what it answered last.
        """
        found = "it was not asked"
        try:
            async with asyncio.timeout(_READY_SECONDS), aiohttp.ClientSession() as http:
                while found := await self._why_not(http):  # noqa: ASYNC110 (its readiness is only to be asked for)
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as exc:
            raise UnavailableError(
                f"{self.name} at {self._url} was not ready after {_READY_SECONDS:.0f} s: {found}"
            ) from exc
        return self._url

    async def _why_not(self, http: aiohttp.ClientSession) -> str:
        """What it says of itself where that is not readiness; empty where it is ready."""
        try:
            async with http.get(f"{self._url}/readyz", ssl=self._tls) as answer:
                return "" if answer.ok else f"it answers {answer.status}: {(await answer.text())[:500]}"
        except (aiohttp.ClientError, OSError) as exc:
            return str(exc)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What a simulation does not run itself.

    Attributes:
        webhook: serves TLS with a certificate of `ca_pem`.
        extender: its verbs.
        pages: where the extender says why a pod waits; the same process at another port.
        ca_pem: the authority that kube-apiserver would have as `caBundle`.
    """

    webhook: ServiceElsewhere
    extender: ServiceElsewhere
    pages: ServiceElsewhere
    ca_pem: str
