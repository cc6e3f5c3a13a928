"""What the API server answers, from bytes to typed objects: pages of a list, lines of a watch, error statuses. Pure.

Objects are decoded one by one straight from the bytes, so that one unreadable object spoils neither its page nor its
watch: it is reported by its UID, and the reader decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any, Final, Generic

import msgspec
from msgspec import Struct

from fracgpu.kube.errors import KubeError
from fracgpu.kube.resources import Resource, T

_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what msgspec raises for bad input


class EventKind(Enum):
    """The types of watch events that are not errors."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[T]):
    """One line of a watch.

    Attributes:
        kind: what happened.
        object: the object after the change (DELETED: as it was last); None in a BOOKMARK and where it is unreadable.
        uid: its UID; empty in a BOOKMARK.
        resource_version: where the watch stands after this event; empty where the event did not say.
        problem: why `object` could not be read; empty where it could.
    """

    kind: EventKind
    object: T | None
    uid: str
    resource_version: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """All objects of a kind at one moment.

    Attributes:
        items: the readable ones.
        resource_version: the moment; a watch from here misses nothing.
        unreadable: UID -> why that object could not be decoded.
    """

    items: list[T]
    resource_version: str
    unreadable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list; `continue_token` asks for the next, empty on the last page."""

    listing: Listing[T]
    continue_token: str


class Lines:
    """Cuts a stream of chunks into lines of any length."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of the line that has not ended yet

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """Take the next chunk; return the lines that it completes, without newlines and without empty ones."""
        first, *others = chunk.split(b"\n")
        self._pieces.append(first)
        if not others:
            return ()
        *complete, rest = (b"".join(self._pieces), *others)
        self._pieces = [rest]
        return [line for line in complete if line]

    @property
    def is_mid_line(self) -> bool:
        """Whether the stream has stopped inside a line."""
        return any(self._pieces)


class _Meta(Struct, frozen=True, rename="camel"):
    uid: str = ""
    resource_version: str = ""


class _Any(Struct, frozen=True):
    """Of any object only what identifies it."""

    metadata: _Meta = _Meta()


class _ListMeta(Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_token: str = msgspec.field(name="continue", default="")


class _Page(Struct, frozen=True):
    metadata: _ListMeta = _ListMeta()
    items: list[msgspec.Raw] | None = None


class _Event(Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Status(Struct, frozen=True):
    """metav1.Status."""

    code: int = 0
    reason: str = ""
    message: str = ""


def decode_object(resource: Resource[T], body: bytes, *, is_write: bool) -> T:
    """Decode an answer that is one object.

    Raises:
        KubeError: it is not; with `outcome_unknown` in the answer to a write.
    """
    try:
        return _decoder(resource.type).decode(body)  # type: ignore[no-any-return]
    except _UNREADABLE as exc:
        raise _unusable(f"one of {resource.plural}", exc, outcome_unknown=is_write) from exc


def decode_page(resource: Resource[T], body: bytes) -> Page[T]:
    """Decode one page of a list.

    Raises:
        KubeError: the answer is not a list.
    """
    try:
        page = _page_decoder.decode(body)
    except _UNREADABLE as exc:
        raise _unusable(f"a list of {resource.plural}", exc) from exc
    items: list[T] = []
    unreadable: dict[str, str] = {}
    decoder = _decoder(resource.type)
    for raw in page.items or ():
        try:
            items.append(decoder.decode(raw))
        except _UNREADABLE as exc:
            unreadable[_identity(raw).uid] = str(exc)
    return Page(Listing(items, page.metadata.resource_version, unreadable), page.metadata.continue_token)


def decode_event(resource: Resource[T], line: bytes) -> WatchEvent[T]:
    """Decode one line of a watch.

    Raises:
        KubeError: the line is an ERROR event (`status` and `kube_reason` as the API server said), or no event at all.
    """
    try:
        event = _event_decoder.decode(line)
        if event.type == "ERROR":
            status = _status_decoder.decode(event.object)
            raise KubeError(
                f"the API server ended the watch of {resource.plural}: {status.code} {status.reason}: {status.message}",
                status=status.code,
                kube_reason=status.reason,
            )
        kind = EventKind(event.type)
    except (*_UNREADABLE, ValueError) as exc:
        raise _unusable(f"an event of {resource.plural}", exc) from exc
    meta = _identity(event.object)
    if kind is EventKind.BOOKMARK:
        return WatchEvent(kind, None, "", meta.resource_version)
    try:
        decoded: T = _decoder(resource.type).decode(event.object)
    except _UNREADABLE as exc:
        return WatchEvent(kind, None, meta.uid, meta.resource_version, str(exc))
    return WatchEvent(kind, decoded, meta.uid, meta.resource_version)


def refusal(what: str, *, status: int, body: bytes, is_write: bool) -> KubeError:
    """Make the error for an answer that is not 2xx.

    Args:
        what: method and path of the request.
        status: the answer's HTTP status.
        body: the answer's body: a metav1.Status, or anything where a proxy answered.
        is_write: whether the request was to change something.
    """
    try:
        answer = _status_decoder.decode(body)
    except _UNREADABLE:
        answer = _Status(message=body[:200].decode(errors="replace"))
    return KubeError(
        f"the API server answered {what} with {status} {answer.reason}: {answer.message or 'no explanation'}",
        status=status,
        kube_reason=answer.reason,
        outcome_unknown=is_write and status in (500, 502, 503, 504),
    )


def _identity(raw: msgspec.Raw) -> _Meta:
    try:
        return _any_decoder.decode(raw).metadata
    except _UNREADABLE:
        return _Meta()


def _unusable(expected: str, exc: Exception, *, outcome_unknown: bool = False) -> KubeError:
    return KubeError(
        f"the API server answered with something other than {expected}: {exc}",
        status=200,
        outcome_unknown=outcome_unknown,
    )


@cache
def _decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


_any_decoder = msgspec.json.Decoder(_Any)
_page_decoder = msgspec.json.Decoder(_Page)
_event_decoder = msgspec.json.Decoder(_Event)
_status_decoder = msgspec.json.Decoder(_Status)
