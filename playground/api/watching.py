"""Watches: readers that follow the store's log, each at its own pace and from its own place.

A watch keeps no queue. It reads the log where it stands, so one that falls too far behind meets 410 Gone like any
reader that comes too late. Framing for HTTP is the API server's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Literal

from playground.api.selectors import Selection
from playground.api.store import Store
from playground.cluster import JsonObject

Notice = tuple[Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"], JsonObject]


class Watches:
    """All open watches on one store.

    Args:
        store: whose log is followed.
        bookmark_seconds: the time between two bookmarks of a quiet watch; kube-apiserver's is about a minute.
    """

    def __init__(self, store: Store, *, bookmark_seconds: float = 60.0) -> None:
        self._store = store
        self._bookmark_seconds = bookmark_seconds
        self._open: set[_Watch] = set()
        store.subscribe(self._wake)

    async def follow(
        self, selection: Selection, *, since: int, bookmarks: bool = False, seconds: float | None = None
    ) -> AsyncGenerator[Notice, None]:
        """Yield what happens to the selected objects after version ``since``.

        Ends after ``seconds``, with a last bookmark if they were asked for, or without one by ``cut``. The objects
        are the store's own and must not be changed.

        Raises:
            ApiStatusError: 410 if the log no longer reaches back to where the reader stands.
        """
        clock = asyncio.get_running_loop().time
        ends = None if seconds is None else clock() + seconds
        bookmark_due = clock() + self._bookmark_seconds
        position = since
        watch = _Watch()
        self._open.add(watch)
        try:
            while not watch.cut:
                watch.woken.clear()
                for change in self._store.changes_after(position):
                    position = change.version
                    event = selection.event(change)
                    if event is not None:
                        yield event
                    if watch.cut:
                        return
                now = clock()
                is_over = ends is not None and now >= ends
                if bookmarks and (is_over or now >= bookmark_due):
                    yield ("BOOKMARK", bookmark(selection, position))
                    bookmark_due = now + self._bookmark_seconds
                if is_over:
                    return
                deadlines = [bookmark_due] if bookmarks else []
                deadlines += [ends] if ends is not None else []
                try:
                    async with asyncio.timeout_at(min(deadlines, default=None)):
                        await watch.woken.wait()
                except TimeoutError:
                    continue
        finally:
            self._open.discard(watch)

    def cut(self) -> None:
        """End every open watch at once."""
        for watch in self._open:
            watch.cut = True
        self._wake()

    def _wake(self) -> None:
        for watch in self._open:
            watch.woken.set()


class _Watch:
    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.cut = False


def bookmark(selection: Selection, version: int, *, ends_initial: bool = False) -> JsonObject:
    """The object of a bookmark; ``ends_initial`` marks the end of the present state, where it was asked for."""
    resource = selection.resource
    metadata: JsonObject = {"resourceVersion": str(version), "creationTimestamp": None}
    if ends_initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
