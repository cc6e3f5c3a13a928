"""Label and field selectors: which objects a list or a watch is about, and what a change means to its reader.

Only equality (``=``, ``==``, ``!=``) is understood; set-based label selectors (``in``, ``notin``, existence) are
refused rather than misread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from playground.api.errors import bad_request
from playground.api.resources import Resource
from playground.api.store import Change
from playground.cluster import EventType, JsonObject


@dataclass(frozen=True, slots=True)
class _Term:
    path: tuple[str, ...]
    value: str
    negated: bool

    def holds(self, obj: JsonObject) -> bool:
        found: object = obj
        for step in self.path:
            found = found.get(step) if isinstance(found, dict) else None
        text = "" if found is None else str(found).lower() if isinstance(found, bool) else str(found)
        # A missing label never equals anything; a missing field equals the empty string.
        equal = text == self.value and not (found is None and self.path[:2] == ("metadata", "labels"))
        return equal != self.negated


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
    terms = []
    for field, value, negated in _split(fields):
        if field not in paths:
            raise bad_request(f"field label not supported: {field}")
        terms.append(_Term(paths[field], value, negated))
    for label, value, negated in _split(labels):
        terms.append(_Term(("metadata", "labels", label), value, negated))
    return Selection(resource, namespace, tuple(terms))


def _split(selector: str) -> list[tuple[str, str, bool]]:
    parts = []
    for part in filter(None, (text.strip() for text in selector.split(","))):
        operator = next((sign for sign in ("!=", "==", "=") if sign in part), "")
        if not operator:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        name, value = part.split(operator, 1)
        parts.append((name.strip(), value.strip(), operator == "!="))
    return parts
