"""The patch formats that need no schema, as pure functions: object and patch in, patched object out.

Nothing is changed in place. The other two are in ``strategic`` and ``applying``.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from playground.api.errors import bad_request
from playground.cluster import ApiStatusError, JsonObject


def merge_patch(obj: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(obj) if isinstance(obj, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def json_patch(obj: JsonObject, operations: Any) -> JsonObject:
    """Apply a JSON patch (RFC 6902).

    Raises:
        ApiStatusError: 400 if it is not a list of operations, 422 if one of them cannot be applied.
    """
    if not isinstance(operations, list) or not all(isinstance(step, dict) for step in operations):
        raise bad_request("error decoding patch: a JSON patch is a list of operations")
    document: Any = {"": copy.deepcopy(obj)}  # so that the whole object too is a member of something
    try:
        for step in operations:
            document = _operate(document, step)
    except (KeyError, IndexError, ValueError, TypeError) as exc:
        message = "the server rejected our request due to an error in our request"
        raise ApiStatusError(422, "Invalid", message) from exc
    patched: JsonObject = document[""]
    return patched


def _operate(document: Any, step: JsonObject) -> Any:
    operation = step["op"]
    parent, name = _locate(document, step["path"])
    if operation in ("move", "copy"):
        source, source_name = _locate(document, step["from"])
        value = copy.deepcopy(_member(source, source_name))
        if operation == "move":
            _drop(source, source_name)
            parent, name = _locate(document, step["path"])
        _put(parent, name, value)
    elif operation == "add":
        _put(parent, name, copy.deepcopy(step["value"]))
    elif operation == "remove":
        _drop(parent, name)
    elif operation == "replace":
        _member(parent, name)
        if isinstance(parent, list):
            parent[_index(name, len(parent))] = copy.deepcopy(step["value"])
        else:
            parent[name] = copy.deepcopy(step["value"])
    elif operation == "test":
        if _member(parent, name) != step["value"]:
            raise ValueError(f"test failed at {step['path']}")
    else:
        raise ValueError(f"unknown operation {operation}")
    return document


def _locate(document: Any, pointer: str) -> tuple[Any, str]:
    if pointer and not pointer.startswith("/"):
        raise ValueError(f"not a JSON pointer: {pointer}")
    *steps, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")]
    for step in steps:
        document = _member(document, step)
    return document, last


def _member(parent: Any, name: str) -> Any:
    return parent[_index(name, len(parent)) if isinstance(parent, list) else name]


def _put(parent: Any, name: str, value: Any) -> None:
    if isinstance(parent, list):
        parent.insert(len(parent) if name == "-" else _index(name, len(parent) + 1), value)
    else:
        parent[name] = value


def _drop(parent: Any, name: str) -> None:
    del parent[_index(name, len(parent)) if isinstance(parent, list) else name]


def _index(text: str, length: int) -> int:
    if not re.fullmatch(r"0|[1-9]\d{0,8}", text) or int(text) >= length:
        raise IndexError(text)
    return int(text)
