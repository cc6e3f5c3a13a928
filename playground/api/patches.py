"""The patch formats of the API server, as pure functions: object and patch in, patched object out.

Nothing is changed in place. Strategic merge and server-side apply merge the few lists of a pod or node that have a
key (``_LIST_KEYS``) and replace every other list whole; of the directives only ``$patch: delete`` is followed.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from playground.api.errors import bad_request
from playground.cluster import ApiStatusError, JsonObject

_LIST_KEYS: Mapping[tuple[str, ...], str] = {
    ("spec", "containers"): "name",
    ("spec", "initContainers"): "name",
    ("status", "conditions"): "type",
    ("status", "addresses"): "type",
}
"""Path of a list -> the field that tells its items apart, from the patchMergeKey tags of core/v1."""


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


def strategic_merge_patch(obj: Any, patch: Any, *, path: tuple[str, ...] = ()) -> Any:
    """Apply a strategic merge patch; ``path`` is where ``obj`` stands in the whole object."""
    if isinstance(patch, list) and path in _LIST_KEYS:
        return _merge_list(obj if isinstance(obj, list) else [], patch, path=path)
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(obj) if isinstance(obj, dict) else {}
    for name, value in patch.items():
        if name.startswith("$"):
            continue  # $setElementOrder, $retainKeys: the order of a list and unions, which nothing here relies on
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = strategic_merge_patch(merged.get(name), value, path=(*path, name))
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


def apply_owned(obj: JsonObject, config: JsonObject, *, owned: JsonObject) -> JsonObject:
    """Server-side apply for one manager: merge ``config``, and remove what only its last apply had named.

    ``owned`` is the FieldsV1 of that last apply (``owned_fields``). Conflicts between managers are left out: the
    one who applies wins, as with ``force``.
    """
    merged: JsonObject = strategic_merge_patch(obj, config)
    result: JsonObject = _without(merged, config, owned)
    return result


def owned_fields(config: JsonObject) -> JsonObject:
    """The fields that an applied configuration names, as FieldsV1; lists count as one field."""
    return {f"f:{name}": owned_fields(value) if isinstance(value, dict) else {} for name, value in config.items()}


def _merge_list(items: list[Any], patch: list[Any], *, path: tuple[str, ...]) -> list[Any]:
    key = _LIST_KEYS[path]
    if not all(isinstance(item, dict) for item in patch):
        raise bad_request(f"error decoding patch: {'.'.join(path)} is a list of objects")
    merged = {item.get(key): item for item in items}
    for item in patch:
        name = item.get(key)
        if item.get("$patch") == "delete":
            merged.pop(name, None)
        else:
            merged[name] = strategic_merge_patch(merged.get(name), item, path=(*path, "*"))
    return list(merged.values())


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


def _without(obj: Any, config: Any, owned: JsonObject) -> Any:
    if not isinstance(obj, dict):
        return obj
    kept = dict(obj)
    for field, inner in owned.items():
        name = field.removeprefix("f:")
        named = isinstance(config, dict) and name in config
        if not named and not inner:
            kept.pop(name, None)
        elif name in kept and inner:
            kept[name] = _without(kept[name], config.get(name) if named else {}, inner)
            if not kept[name] and not named:
                del kept[name]
    return kept
