"""What ``kubectl create namespace``, ``drain`` and the like send: protobuf, read for the few kinds that are so simple.

Pure. The numbers of the fields are those of the API's published .proto files. Anything else that comes as protobuf is
refused, with a sentence that says what to do instead (``errors.not_json``).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from playground.api.errors import not_json
from playground.cluster import JsonObject

PREFIX = b"k8s\x00"
_Form = Literal["text", "number", "texts", "bytes", "ignored"] | Mapping[int, tuple[str, Any]]
_METADATA: Mapping[int, tuple[str, _Form]] = {
    1: ("name", "text"),
    2: ("generateName", "text"),
    3: ("namespace", "text"),
    4: ("selfLink", "ignored"),
    5: ("uid", "ignored"),
    6: ("resourceVersion", "ignored"),
    7: ("generation", "ignored"),
    8: ("creationTimestamp", "ignored"),
    11: ("labels", "texts"),
    12: ("annotations", "texts"),
}
_KINDS: Mapping[str, Mapping[int, tuple[str, _Form]]] = {
    "Namespace": {1: ("metadata", _METADATA), 2: ("spec", "ignored"), 3: ("status", "ignored")},
    "ConfigMap": {1: ("metadata", _METADATA), 2: ("data", "texts"), 3: ("binaryData", "bytes")},
    "Secret": {1: ("metadata", _METADATA), 2: ("data", "bytes"), 3: ("type", "text"), 4: ("stringData", "texts")},
    "ServiceAccount": {1: ("metadata", _METADATA)},
    "Eviction": {1: ("metadata", _METADATA), 2: ("deleteOptions", {1: ("gracePeriodSeconds", "number")})},
}


def decode(body: bytes, kind: str) -> JsonObject:
    """Read an object of a kind.

    Raises:
        ApiStatusError: 415 for a kind, or a field, that is not read.
    """
    try:
        raw = next(value for number, value in _fields(body.removeprefix(PREFIX)) if number == 2)
        if kind not in _KINDS or not isinstance(raw, bytes):
            raise not_json()
        return _message(raw, _KINDS[kind])
    except (IndexError, StopIteration, UnicodeDecodeError, ValueError) as exc:
        raise not_json() from exc


def _message(data: bytes, forms: Mapping[int, tuple[str, _Form]]) -> JsonObject:
    found: JsonObject = {}
    for number, value in _fields(data):
        name, form = forms.get(number, ("", "unknown"))
        if form == "number" and isinstance(value, int):
            found[name] = value  # where it is given it is meant, 0 too
            continue
        if not value or form == "ignored":
            continue  # Go writes what is empty too
        if not isinstance(value, bytes) or form == "unknown":
            raise not_json()
        if form == "text":
            found[name] = value.decode()
        elif isinstance(form, Mapping):
            found[name] = _message(value, form)
        else:
            entry = dict(_fields(value))
            key, inner = bytes(entry.get(1, b"")), bytes(entry.get(2, b""))
            shown = inner.decode() if form == "texts" else base64.b64encode(inner).decode()
            found.setdefault(name, {})[key.decode()] = shown
    return found


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: their numbers, and numbers or bytes."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        if tag & 7 == 0:
            value, place = _varint(data, place)
            yield tag >> 3, value
        elif tag & 7 == 2:
            length, place = _varint(data, place)
            if place + length > len(data):
                raise ValueError("the message is cut off")
            yield tag >> 3, data[place : place + length]
            place += length
        else:
            raise ValueError(f"wire type {tag & 7} is not used by these kinds")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            return value, place
