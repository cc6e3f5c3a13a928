"""What a kind's printer is: columns, and a function from an object to the cells of its row.

The descriptions of columns are left out: kubectl does not show them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from playground.cluster import JsonObject

NONE = "<none>"
UNKNOWN = "<unknown>"


@dataclass(frozen=True, slots=True)
class Column:
    """One column; one with a priority above 0 is shown by ``-o wide`` only."""

    name: str
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""


NAME = Column("Name", format="name")
AGE = Column("Age")


@dataclass(frozen=True, slots=True)
class Printer:
    """How objects of one kind are shown; ``cells`` is given an object, perhaps an empty one, and the time."""

    columns: tuple[Column, ...]
    cells: Callable[[JsonObject, datetime], list[Any]]


def wide(name: str) -> Column:
    """A column of ``-o wide``."""
    return Column(name, priority=1)


def name_of(obj: JsonObject) -> str:
    """The object's name."""
    name: str = obj["metadata"].get("name", "")
    return name


def age_of(obj: JsonObject, now: datetime) -> str:
    """How long ago the object was made."""
    return since(obj["metadata"].get("creationTimestamp"), now)


def since(timestamp: str | None, now: datetime) -> str:
    """How long ago something was, such as ``5m10s``; ``<unknown>`` without a time."""
    if not timestamp:
        return UNKNOWN
    return duration(int((now - datetime.fromisoformat(timestamp)).total_seconds()))


def duration(seconds: int) -> str:
    """A length of time as people say it: the further away, the coarser."""
    if seconds < -1:
        return "<invalid>"
    if seconds < 120:
        return f"{max(seconds, 0)}s"
    minutes, hours = seconds // 60, seconds // 3600
    days = hours // 24
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 2 * 365:
        return f"{days}d"
    if days < 8 * 365:
        return f"{days // 365}y{days % 365}d" if days % 365 else f"{days // 365}y"
    return f"{days // 365}y"


def selector_text(selector: JsonObject | None) -> str:
    """A LabelSelector in one line; ``<none>`` for an empty one."""
    if not selector:
        return NONE
    parts = [f"{label}={value}" for label, value in sorted((selector.get("matchLabels") or {}).items())]
    for term in selector.get("matchExpressions") or []:
        operator, values = term["operator"], ",".join(sorted(term.get("values") or []))
        shown = {"In": f"{term['key']} in ({values})", "NotIn": f"{term['key']} notin ({values})"}
        parts.append(shown.get(operator, f"!{term['key']}" if operator == "DoesNotExist" else term["key"]))
    return ",".join(parts) or NONE
