"""Custom resources in tables: the additionalPrinterColumns of their CustomResourceDefinitions.

Of JSONPath what those columns use: names, indices and one filter by equality. A path that leads nowhere is an empty
cell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from playground.api.schemas import custom_versions
from playground.api.tables.columns import AGE, NAME, Column, Printer, age_of, name_of, since
from playground.cluster import JsonObject

_STEP = re.compile(r'\.(?P<name>[\w-]+)|\[(?P<index>\d+)\]|\[\?\(@\.(?P<field>\w+)=="(?P<value>[^"]*)"\)\]')
_Path = Callable[[JsonObject], Any]


def printer(plural: str) -> Printer:
    """The printer of a custom resource: by name and age where its definition is missing or names no columns."""
    declared = custom_versions().get(plural, {}).get("additionalPrinterColumns")
    if not declared:
        return Printer((NAME, AGE), lambda obj, now: [name_of(obj), age_of(obj, now)])
    columns = [
        Column(
            entry["name"],
            type=entry["type"],
            format=entry.get("format", ""),
            priority=entry.get("priority", 0),
            description=entry.get("description", ""),
        )
        for entry in declared
    ]
    paths = [(_path(entry["jsonPath"]), entry["type"]) for entry in declared]

    def cells(obj: JsonObject, now: datetime) -> list[Any]:
        return [name_of(obj), *(_cell(path(obj), kind, now) for path, kind in paths)]

    return Printer((NAME, *columns), cells)


def _path(text: str) -> _Path:
    steps = [match.groupdict() for match in _STEP.finditer(text)]
    if _STEP.sub("", text):
        raise ValueError(f"the JSONPath {text} is not understood")
    return partial(_follow, steps)


def _follow(steps: list[dict[str, str | None]], obj: Any) -> Any:
    for step in steps:
        name, index, field = step["name"], step["index"], step["field"]
        if name is not None:
            obj = obj.get(name) if isinstance(obj, dict) else None
        elif not isinstance(obj, list):
            return None
        elif index is not None:
            obj = obj[int(index)] if int(index) < len(obj) else None
        else:
            obj = next((item for item in obj if item.get(field) == step["value"]), None)
    return obj


def _cell(value: Any, kind: str, now: datetime) -> Any:
    if value is None:
        return None
    if kind == "date":
        return since(value, now)
    if kind == "string" and not isinstance(value, str):
        return json.dumps(value, separators=(",", ":"))
    return value
