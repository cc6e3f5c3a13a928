"""The SharingPolicies of the cluster.

Where their CustomResourceDefinition is not installed, or may not be read, there are none, and that is looked at again
now and then.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.kube.reflector import Reflector
from fracgpu.kube.resources import SHARINGPOLICIES
from fracgpu.sharing import SharingPolicy
from fracgpu.trouble import Backoff, TroubleLog

_COALESCE_SECONDS: Final = 0.5  # changes within it are weighed at once: thousands may come in one list
_NOT_FOUND: Final = 404
_FORBIDDEN: Final = 403
_ABSENT_SECONDS: Final = 60.0  # between two looks whether they can be had by now

_logger = logging.getLogger(__name__)


class PolicyWatch:
    """Follows all SharingPolicies.

    Args:
        client: how to reach the API server.
        on_change: called when they have changed.
    """

    def __init__(self, client: KubeClient, *, on_change: Callable[[], None]) -> None:
        self._client = client
        self._on_change = on_change
        self._is_listed = False
        self._is_due = False  # whether `on_change` is about to be called
        self._exist = False
        self._first: tuple[SharingPolicy, ...] = ()  # until the reflector knows better
        self._reflector = Reflector(
            client, SHARINGPOLICIES, on_change=lambda _: self._changed(), on_progress=lambda _: self._progressed()
        )
        self._backoff = Backoff(max_seconds=10.0)
        self._trouble = TroubleLog(_logger, subject="reading SharingPolicies", clock=time.monotonic)

    def policies(self) -> tuple[SharingPolicy, ...]:
        """All of them, as new as known."""
        return tuple(self._reflector.objects.values()) if self._reflector.resource_version else self._first

    async def first(self) -> None:
        """Read them; tries until the API server has said which there are, if any."""
        while not await self._look():  # noqa: ASYNC110 (nobody here could set an event)
            await asyncio.sleep(self._backoff.next_seconds())

    async def run(self) -> None:
        """Follow them until cancelled; after `first`."""
        while not self._exist:
            await asyncio.sleep(_ABSENT_SECONDS)
            await self._look()
        await self._reflector.run()

    def _progressed(self) -> None:
        if not self._is_listed:
            self._is_listed = True
            self._changed()  # they may have changed since `first`

    def _changed(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(_COALESCE_SECONDS, self._tell)

    def _tell(self) -> None:
        self._is_due = False
        self._on_change()

    async def _look(self) -> bool:
        """Read them once; whether there was an answer."""
        try:
            listing = await self._client.list(SHARINGPOLICIES)
        except KubeError as exc:
            if exc.status != _NOT_FOUND:
                self._trouble.failed(exc)
            return exc.status in (_NOT_FOUND, _FORBIDDEN)
        self._trouble.succeeded()
        self._first, self._exist = tuple(listing.items), True
        return True
