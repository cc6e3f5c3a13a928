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

    `object` is its newest known form. In DELETED that has the deletion's resourceVersion where an event brought it,
    and the last known state where the object was found missing after an interruption.
    """

    kind: ChangeKind
    object: T


def differences(known: Mapping[str, T], listed: Mapping[str, T], *, unsure: Collection[str]) -> Iterator[Change[T]]:
    """What must have happened between two states of a collection, both UID -> object; deletions come first.

    `unsure` are UIDs that exist but could not be read: they do not count as deleted. `known` may follow along, one
    change at a time, while this is read.
    """
    for uid in [uid for uid in known if uid not in listed and uid not in unsure]:
        yield Change(ChangeKind.DELETED, known[uid])
    for uid, found in listed.items():
        before = known.get(uid)
        if before is None:
            yield Change(ChangeKind.ADDED, found)
        elif before.metadata.resource_version != found.metadata.resource_version:
            yield Change(ChangeKind.MODIFIED, found)
