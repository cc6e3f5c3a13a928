"""What changed in a collection: the one thing that a reflector tells its reader. Pure."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic

from fracgpu.kube.resources import T


class ChangeKind(Enum):
    """What happened to an object, as the reader of a reflector sees it."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One object appeared, changed, or went away.

    Attributes:
        kind: what happened.
        object: its newest known form; in DELETED, where it was found missing after an interruption, the last one.
        resource_version: the point in the collection's history at which this is known to have happened: whoever has
            seen the collection up to there has seen it too.
    """

    kind: ChangeKind
    object: T
    resource_version: str


def differences(
    known: Mapping[str, T], listed: Mapping[str, T], *, unsure: Collection[str], listed_at: str
) -> Iterator[Change[T]]:
    """What must have happened between two states of a collection, both UID -> object; deletions come first.

    `unsure` are UIDs that exist but could not be read: they do not count as deleted. `listed_at` is the list's
    resourceVersion: when a missing object was deleted is not known, only that it was by then. `known` may follow
    along, one change at a time, while this is read.
    """
    for uid in [uid for uid in known if uid not in listed and uid not in unsure]:
        yield Change(ChangeKind.DELETED, known[uid], listed_at)
    for uid, found in listed.items():
        before = known.get(uid)
        if before is None:
            yield Change(ChangeKind.ADDED, found, found.metadata.resource_version)
        elif before.metadata.resource_version != found.metadata.resource_version:
            yield Change(ChangeKind.MODIFIED, found, found.metadata.resource_version)
