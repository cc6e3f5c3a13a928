"""Who belongs to whom, kept up to date while objects come and go. No I/O."""

from __future__ import annotations

from playground.api.owning import controller_of
from playground.cluster import JsonObject


class Ownership:
    """The pods and ReplicaSets that have an owner."""

    def __init__(self) -> None:
        self._owned: dict[str, dict[str, JsonObject]] = {}  # owner's UID -> UID -> object
        self._owners: dict[str, JsonObject] = {}  # owned object's UID -> reference to its owner

    def note(self, obj: JsonObject, *, is_gone: bool) -> list[str]:
        """Take an object as it is now; return the UIDs of its owner and of its owner's owner, if it has them."""
        uid = obj["metadata"]["uid"]
        self._forget(uid)
        owner = controller_of(obj)
        if owner is None:
            return []
        if not is_gone:
            self._owned.setdefault(owner["uid"], {})[uid] = obj
            self._owners[uid] = owner
        above = self._owners.get(owner["uid"])
        return [owner["uid"], *([above["uid"]] if above else [])]

    def belonging(self, uid: str, *, kind: str = "") -> list[JsonObject]:
        """What belongs to an owner, the oldest first; of one kind or of all."""
        found = [obj for obj in self._owned.get(uid, {}).values() if kind in ("", obj["kind"])]
        return sorted(found, key=lambda obj: (obj["metadata"]["creationTimestamp"], obj["metadata"]["name"]))

    def owner_of(self, obj: JsonObject) -> JsonObject:
        """The reference to the owner of something that belongs to one."""
        return self._owners[obj["metadata"]["uid"]]

    def _forget(self, uid: str) -> None:
        reference = self._owners.pop(uid, None)
        if reference is not None:
            siblings = self._owned[reference["uid"]]
            siblings.pop(uid, None)
            if not siblings:
                del self._owned[reference["uid"]]
