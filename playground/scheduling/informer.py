"""List and watch over ``ClusterApi``: one task that keeps a copy of a resource and reports every change of it.

For the playground's own parts; the services have a reflector of their own that speaks HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from playground.cluster import ApiStatusError, ClusterApi, EventType, JsonObject

Handler = Callable[[EventType, JsonObject], None]


class Informer:
    """Follows one resource.

    Args:
        cluster: where it is read.
        resource: plural name.
        handle: called for every change, in order, with the object after it (before it, for DELETED). What was
            missed while the watch was broken is reported as if it had been seen.

    Attributes:
        objects: the present copy, UID -> object; not to be changed.
    """

    def __init__(self, cluster: ClusterApi, *, resource: str, handle: Handler) -> None:
        self.objects: dict[str, JsonObject] = {}
        self._cluster = cluster
        self._resource = resource
        self._handle = handle
        self._is_synced = False
        self._seen = 0  # the newest version of the cluster that the copy is known to show
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """List, watch, and begin again whenever the watch ends, for ever."""
        while True:
            items, version = await self._cluster.list(self._resource)
            self._replace(items)
            self._seen = int(version)
            self._is_synced = True
            await self._announce()
            try:
                async for event in self._cluster.watch(self._resource, resource_version=version):
                    self._take(event.type, event.object)
                    await self._announce()
            except ApiStatusError as exc:
                if exc.code != 410:
                    raise

    async def caught_up(self) -> None:
        """Return when the copy shows the cluster as it is now, every change handled."""
        while True:
            items, version = await self._cluster.list(self._resource)
            present = {_uid(obj): _version(obj) for obj in items}
            if self._shows(present):
                return
            # Reading a large cluster is slow: first reach what was read, then see whether more has happened since.
            async with self._changed:
                while not (self._seen >= int(version) or self._shows(present)):
                    await self._changed.wait()

    async def reached(self, version: int) -> None:
        """Return when the copy shows what the cluster was like at a version that changed this resource, or later."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._seen >= version)

    def _shows(self, present: Mapping[str, int]) -> bool:
        return self._is_synced and present == {uid: _version(obj) for uid, obj in self.objects.items()}

    def _replace(self, items: list[JsonObject]) -> None:
        listed = {_uid(obj): obj for obj in items}
        for uid in self.objects.keys() - listed.keys():
            self._take("DELETED", self.objects[uid])
        for uid, obj in listed.items():
            known = self.objects.get(uid)
            if known is None:
                self._take("ADDED", obj)
            elif _version(known) != _version(obj):
                self._take("MODIFIED", obj)

    def _take(self, kind: EventType, obj: JsonObject) -> None:
        if kind == "DELETED":
            self.objects.pop(_uid(obj), None)
        else:
            self.objects[_uid(obj)] = obj
        self._seen = max(self._seen, _version(obj))
        self._handle(kind, obj)

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _uid(obj: JsonObject) -> str:
    uid: str = obj["metadata"]["uid"]
    return uid


def _version(obj: JsonObject) -> int:
    return int(obj["metadata"]["resourceVersion"])
