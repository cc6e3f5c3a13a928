"""Label and field selectors: which objects a list or a watch is about, and what a change means to its reader.

Fields are compared for equality (``=``, ``==``, ``!=``); labels also with sets (``in``, ``notin``) and for existence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from playground.api.errors import bad_request
from playground.api.resources import Resource
from playground.api.store import Change
from playground.cluster import EventType, JsonObject


class _Term(Protocol):
    """One condition of a selector."""

    def holds(self, obj: JsonObject) -> bool:
        """Whether an object fulfils it."""
        ...


@dataclass(frozen=True, slots=True)
class _Field:
    """A field that equals a value, or does not; one that is missing equals the empty string."""

    path: tuple[str, ...]
    value: str
    negated: bool

    def holds(self, obj: JsonObject) -> bool:
        found: object = obj
        for step in self.path:
            found = found.get(step) if isinstance(found, dict) else None
        text = "" if found is None else str(found).lower() if isinstance(found, bool) else str(found)
        return (text == self.value) != self.negated


@dataclass(frozen=True, slots=True)
class _Label:
    """A label that is there and, where values are given, has one of them; or the contrary."""

    label: str
    values: frozenset[str] | None
    negated: bool

    def holds(self, obj: JsonObject) -> bool:
        value = (obj["metadata"].get("labels") or {}).get(self.label)
        found = value is not None and (self.values is None or value in self.values)
        return found != self.negated


@dataclass(frozen=True, slots=True)
class Selection:
    """The objects of one resource in one namespace (all if empty) that fulfil every term."""

    resource: Resource
    namespace: str = ""
    terms: Sequence[_Term] = ()

    def covers(self, obj: JsonObject) -> bool:
        """Whether ``obj``, an object of this resource, is selected."""
        if self.namespace and obj["metadata"].get("namespace", "") != self.namespace:
            return False
        return all(term.holds(obj) for term in self.terms)

    def event(self, change: Change) -> tuple[EventType, JsonObject] | None:
        """What a watcher of this selection is told about a change; None if it is not concerned.

        An object that leaves the selection is DELETED for the watcher, one that enters it is ADDED.
        """
        if change.resource != self.resource.plural:
            return None
        was = change.before is not None and self.covers(change.before)
        if change.after is None:
            return ("DELETED", change.last) if was else None
        if self.covers(change.after):
            return ("MODIFIED" if was else "ADDED", change.after)
        return ("DELETED", change.last) if was else None


def select(resource: Resource, *, namespace: str = "", labels: str = "", fields: str = "") -> Selection:
    """Read the selectors of a request.

    Raises:
        ApiStatusError: 400 for a selector that cannot be read or a field that cannot be selected by.
    """
    paths = {
        "metadata.name": ("metadata", "name"),
        "metadata.namespace": ("metadata", "namespace"),
        **resource.selectable,
    }
    terms: list[_Term] = []
    for part in filter(None, (text.strip() for text in fields.split(","))):
        operator = next((sign for sign in ("!=", "==", "=") if sign in part), "")
        if not operator:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        field, value = (text.strip() for text in part.split(operator, 1))
        if field not in paths:
            raise bad_request(f"field label not supported: {field}")
        terms.append(_Field(paths[field], value, operator == "!="))
    return Selection(resource, namespace, (*terms, *map(_label, _requirements(labels))))


_COMMA = re.compile(r",(?![^(]*\))")  # not within parentheses
_EXISTS = re.compile(r"(?P<not>!?)\s*(?P<label>[\w./-]+)")
_EQUALS = re.compile(r"(?P<label>[\w./-]+)\s*(?P<sign>!=|==|=)\s*(?P<value>[\w.-]*)")
_AMONG = re.compile(r"(?P<label>[\w./-]+)\s+(?P<sign>in|notin)\s*\((?P<values>[\w.,\s-]*)\)")


def _requirements(selector: str) -> list[str]:
    return [text for text in (part.strip() for part in _COMMA.split(selector)) if text]


def _label(text: str) -> _Label:
    if found := _AMONG.fullmatch(text):
        values = frozenset(value.strip() for value in found["values"].split(","))
        return _Label(found["label"], values, found["sign"] == "notin")
    if found := _EQUALS.fullmatch(text):
        return _Label(found["label"], frozenset({found["value"]}), found["sign"] == "!=")
    if found := _EXISTS.fullmatch(text):
        return _Label(found["label"], None, bool(found["not"]))
    raise bad_request(f"unable to parse requirement: '{text}' is none of: KEY, !KEY, KEY=VALUE, KEY in (VALUE, ...)")
