"""The API server's memory: every object, one resourceVersion for all of them, and the log of recent changes.

Invariants: the resourceVersion grows by exactly 1 per change, and every change has exactly one entry in the log, so
an entry is found by its number and any state that the log still reaches back to can be rebuilt. A stored object is
never altered, only replaced: what is handed out must not be changed by the caller.

No asyncio, no HTTP, no rules about kinds except what deleting a pod means (``deletion``).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from playground.api.deletion import mark_pod
from playground.api.errors import already_exists, conflict, expired, not_found, stale
from playground.api.resources import RESOURCES, Key
from playground.cluster import JsonObject

LOG_LIMIT = 10_000
"""Changes kept for watches; a demo writes some hundreds."""

_SYSTEM_FIELDS = (
    *("name", "namespace", "uid", "creationTimestamp", "resourceVersion", "generation"),
    *("deletionTimestamp", "deletionGracePeriodSeconds"),
)
"""Of an object's metadata: what only the server writes."""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the log: an object before (None if created) and after (None if removed)."""

    version: int
    resource: str
    before: JsonObject | None
    after: JsonObject | None

    @property
    def last(self) -> JsonObject:
        """The state before, stamped with this change's version: what a watcher sees of a lost object."""
        before = self.before or {}
        return {**before, "metadata": {**before["metadata"], "resourceVersion": str(self.version)}}


def now() -> datetime:
    """The time of the wall clock, in UTC."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """Write a time as metav1.Time does: whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """Objects by key, with optimistic concurrency.

    Args:
        log_limit: changes kept for watches; a watch from before them gets 410.
        clock: the time for creation and deletion timestamps.
    """

    def __init__(self, *, log_limit: int = LOG_LIMIT, clock: Callable[[], datetime] = now) -> None:
        self.version = 0
        self._clock = clock
        self._log_limit = log_limit
        self._objects: dict[str, dict[Key, JsonObject]] = {plural: {} for plural in RESOURCES}
        self._log: dict[int, Change] = {}  # version -> change, without gaps up to `version`
        self._listeners: set[Callable[[], None]] = set()

    def get(self, key: Key) -> JsonObject:
        """Return one object, or raise 404."""
        found = self._objects[key.resource].get(key)
        if found is None:
            raise not_found(key)
        return found

    def list(self, resource: str, *, at: int | None = None) -> dict[Key, JsonObject]:
        """Return all objects of a resource by key, sorted; ``at`` asks for the state at an earlier version.

        Raises:
            ApiStatusError: 410 if the log does not reach back to ``at``.
        """
        objects = dict(self._objects[resource])
        if at is not None:
            for change in reversed(self.changes_after(at)):
                if change.resource != resource:
                    continue
                if change.before is not None:
                    objects[_key(resource, change.before)] = change.before
                elif change.after is not None:
                    del objects[_key(resource, change.after)]
        return dict(sorted(objects.items()))

    def create(self, key: Key, obj: JsonObject) -> JsonObject:
        """Store a new object with a UID and a creation time, or raise 409 if the name is taken."""
        if key in self._objects[key.resource]:
            raise already_exists(key)
        metadata = {
            **obj.get("metadata", {}),
            "name": key.name,
            "uid": obj.get("metadata", {}).get("uid") or str(uuid.uuid4()),
            "creationTimestamp": timestamp(self._clock()),
        }
        if key.namespace:
            metadata["namespace"] = key.namespace
        if RESOURCES[key.resource].has_generation:
            metadata["generation"] = 1
        return self._write(key, {**obj, "metadata": metadata})

    def update(self, key: Key, obj: JsonObject, *, expect_version: str = "") -> JsonObject:
        """Replace an object; one that would not change is left alone, without a new version.

        Raises:
            ApiStatusError: 404, or 409 if ``expect_version`` is given and not the present one.
        """
        present = self.get(key)
        kept = present["metadata"]
        if expect_version and expect_version != kept["resourceVersion"]:
            raise stale(key)
        metadata: dict[str, Any] = {k: v for k, v in obj["metadata"].items() if k not in _SYSTEM_FIELDS}
        metadata |= {k: kept[k] for k in _SYSTEM_FIELDS if k in kept}
        updated = {**obj, "metadata": metadata}
        if updated == present:
            return present
        if "generation" in kept and updated.get("spec") != present.get("spec"):
            metadata["generation"] = kept["generation"] + 1
        return self._write(key, updated)

    def bind(self, key: Key, pod: JsonObject) -> JsonObject:
        """Replace a pod by its bound form: unlike an update this leaves the generation alone, as in reality."""
        return self._write(key, pod)

    def delete(
        self, key: Key, *, grace_seconds: int | None = None, uid: str = "", expect_version: str = ""
    ) -> JsonObject:
        """Remove an object, or mark a pod whose kubelet has yet to end it; return its last state.

        Raises:
            ApiStatusError: 404, or 409 if a precondition fails.
        """
        present = self.get(key)
        metadata = present["metadata"]
        if uid and uid != metadata["uid"]:
            raise conflict(
                key,
                f"the UID in the precondition ({uid}) does not match the UID in record ({metadata['uid']}). "
                "The object might have been deleted and then recreated",
            )
        if expect_version and expect_version != metadata["resourceVersion"]:
            raise stale(key)
        if key.resource == "pods":
            marked = mark_pod(present, grace_seconds=grace_seconds, now=self._clock())
            if marked is not present:
                # The real API server too writes the mark first, and removes the pod in a second write.
                present = self._write(key, marked)
            if present["metadata"]["deletionGracePeriodSeconds"] > 0:
                return present
        return self._remove(key, present)

    def changes_after(self, version: int) -> Sequence[Change]:
        """Return the changes since ``version``, oldest first.

        Raises:
            ApiStatusError: 410 if some of them are no longer kept.
        """
        oldest = self.version - len(self._log)
        if version < oldest:
            raise expired(f"too old resource version: {version} ({oldest})")
        return [self._log[number] for number in range(version + 1, self.version + 1)]

    def compact(self) -> None:
        """Forget every change kept so far, as etcd does with what is older than five minutes."""
        self._log.clear()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called after every change."""
        self._listeners.add(listener)

    def scratch(self) -> Store:
        """Return a copy to try something on (dry run); the original never hears of it."""
        copy = Store(log_limit=self._log_limit, clock=self._clock)
        copy.version = self.version
        copy._objects = {plural: dict(objects) for plural, objects in self._objects.items()}
        return copy

    def _write(self, key: Key, obj: JsonObject) -> JsonObject:
        stored = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version + 1)}}
        before = self._objects[key.resource].get(key)
        self._objects[key.resource][key] = stored
        self._record(Change(self.version + 1, key.resource, before, stored))
        return stored

    def _remove(self, key: Key, present: JsonObject) -> JsonObject:
        del self._objects[key.resource][key]
        change = Change(self.version + 1, key.resource, present, None)
        self._record(change)
        return change.last

    def _record(self, change: Change) -> None:
        self.version = change.version
        self._log[change.version] = change
        if len(self._log) > self._log_limit:
            del self._log[change.version - self._log_limit]
        for listener in self._listeners:
            listener()


def _key(resource: str, obj: JsonObject) -> Key:
    metadata = obj["metadata"]
    return Key(resource, metadata.get("namespace", ""), metadata["name"])
