"""Keeps a copy of a collection of the API server up to date, and tells each change: list, then watch, for ever.

The invariant: `objects` is what the collection was at `resource_version`, and the changes told so far, applied in
order to nothing, make exactly `objects`. Deletions missed while disconnected are found by comparing the next list.
An object that cannot be decoded stays as it last was (or unknown) until it can be, or is deleted. Left out: what the
changes mean, and writing.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Final, Generic

from fracgpu.kube.changes import Change, ChangeKind, differences
from fracgpu.kube.client import EventKind, KubeClient, WatchEvent
from fracgpu.kube.errors import KubeError
from fracgpu.kube.resources import Resource, T
from fracgpu.trouble import Backoff, TroubleLog

__all__ = ["Change", "ChangeKind", "Reflector"]

_WATCH_SECONDS: Final = (240, 300)  # drawn between, so that a fleet's watches do not all end together
_SHORT_SECONDS: Final = 1.0  # a watch that ends sooner without an event is trouble: else it would be asked in a loop
_HEALTHY_SECONDS: Final = 10.0  # a watch that lasted this long was a success, even if nothing happened
_RESUMABLE: Final = frozenset({0, 429, 502, 503, 504})  # no answer, or one that says nothing about the events

_logger = logging.getLogger(__name__)


class Reflector(Generic[T]):
    """A copy of a collection that follows the API server while `run` runs.

    Args:
        client: how to reach the API server.
        resource: the kind of object.
        on_change: called for each change, after `objects` has it, in order, from within `run`. An exception from it
            ends `run`.
        field_selector: lets the API server leave objects out; one that stops matching is told as DELETED.
        keep: what to keep of an object, and to tell of it; None leaves it out, and one that it stops keeping is told
            as DELETED.
        on_progress: called with `resource_version` after each list, event and bookmark, after `on_change`.
        backoff: the delays after trouble.
        rng: draws how long each watch is asked to last.
        clock: seconds that only grow.

    Attributes:
        objects: UID -> object; a live view.
        synced: set once the first list has been applied.
        resource_version: how far we have come; empty before the first list.
        is_current: whether a watch is open, so that what we do not know of is only what is on its way.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource[T],
        *,
        on_change: Callable[[Change[T]], None],
        field_selector: str = "",
        keep: Callable[[T], T | None] = lambda found: found,
        on_progress: Callable[[str], None] = lambda _: None,
        backoff: Backoff | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._resource = resource
        self._on_change = on_change
        self._field_selector = field_selector
        self._keep = keep
        self._on_progress = on_progress
        self._rng = rng or random.Random()  # noqa: S311 (not a secret)
        self._backoff = backoff or Backoff(rng=self._rng)
        self._clock = clock
        self._trouble = TroubleLog(_logger, subject=f"watching {resource.plural}", clock=clock)
        self._objects: dict[str, T] = {}  # UID -> object
        self._unreadable: set[str] = set()  # UIDs whose newest form could not be decoded, and that were warned about
        self._must_list = True
        self.objects: Mapping[str, T] = MappingProxyType(self._objects)
        self.synced = asyncio.Event()
        self.resource_version = ""
        self.is_current = False

    async def run(self) -> None:
        """Follow the collection until cancelled."""
        while True:
            try:
                if self._must_list:
                    await self._list()
                await self._follow()
            except KubeError as exc:
                self.is_current = False
                self._must_list = self._must_list or exc.status not in _RESUMABLE
                self._trouble.failed(exc)
                await asyncio.sleep(self._backoff.next_seconds())

    async def _list(self) -> None:
        listing = await self._client.list(self._resource, field_selector=self._field_selector, keep=self._keep)
        for uid, problem in listing.unreadable.items():
            self._warn_unreadable(uid, problem)
        self._unreadable.intersection_update(listing.unreadable)
        listed: dict[str, T] = {item.metadata.uid: item for item in listing.items}
        for change in differences(self._objects, listed, unsure=listing.unreadable, listed_at=listing.resource_version):
            self._tell(change)
        self._must_list = False
        _logger.info(
            "listed",
            extra={
                "resource": self._resource.plural,
                "objects": len(self._objects),
                "resource_version": listing.resource_version,
            },
        )
        self._progress(listing.resource_version)
        self.synced.set()

    async def _follow(self) -> None:
        """Watch once, until the watch ends."""
        began = self._clock()
        has_progressed = False
        events = self._client.watch(
            self._resource,
            resource_version=self.resource_version,
            field_selector=self._field_selector,
            timeout_seconds=self._rng.randint(*_WATCH_SECONDS),
            on_open=self._opened,
        )
        try:
            async with aclosing(events):
                async for event in events:
                    self._take(event)
                    has_progressed = True
                    self._went_well()
        finally:
            lasted = self._clock() - began
            if lasted >= _HEALTHY_SECONDS:
                self._went_well()
        if lasted < _SHORT_SECONDS and not has_progressed:
            raise KubeError(f"the API server ended a watch of {self._resource.plural} at once")

    def _take(self, event: WatchEvent[T]) -> None:
        if event.kind is EventKind.DELETED:
            self._unreadable.discard(event.uid)
            self._forget(event.uid, event.object, event.resource_version)
        elif event.problem:
            self._warn_unreadable(event.uid, event.problem)
        elif event.object is not None:
            self._unreadable.discard(event.uid)
            self._remember(event.uid, event.object)
        self._progress(event.resource_version)

    def _remember(self, uid: str, whole: T) -> None:
        found = self._keep(whole)
        if found is None:
            self._forget(uid, whole, whole.metadata.resource_version)
            return
        before = self._objects.get(uid)
        if before is None:
            self._tell(Change(ChangeKind.ADDED, found, found.metadata.resource_version))
        elif before.metadata.resource_version != found.metadata.resource_version:
            self._tell(Change(ChangeKind.MODIFIED, found, found.metadata.resource_version))

    def _forget(self, uid: str, final: T | None, resource_version: str) -> None:
        if uid in self._objects:
            last = self._objects[uid] if final is None else final
            self._tell(Change(ChangeKind.DELETED, last, resource_version))

    def _tell(self, change: Change[T]) -> None:
        uid = change.object.metadata.uid
        if change.kind is ChangeKind.DELETED:
            del self._objects[uid]
        else:
            self._objects[uid] = change.object
        self._on_change(change)

    def _progress(self, resource_version: str) -> None:
        self.resource_version = resource_version or self.resource_version
        self._on_progress(self.resource_version)

    def _opened(self) -> None:
        self.is_current = True

    def _went_well(self) -> None:
        self._backoff.reset()
        self._trouble.succeeded()

    def _warn_unreadable(self, uid: str, problem: str) -> None:
        if uid not in self._unreadable:
            self._unreadable.add(uid)
            _logger.warning(
                "object cannot be read, keeping what was known of it",
                extra={"resource": self._resource.plural, "uid": uid, "error": problem},
            )
