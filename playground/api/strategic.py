"""Strategic merge patches: lists whose items have a key are merged item by item, as the kind's schema says. Pure.

What ``kubectl apply`` and ``kubectl edit`` send for core kinds. Nothing is changed in place.
"""

from __future__ import annotations

import copy
from typing import Any

from playground.api.errors import bad_request
from playground.api.schemas import resolved
from playground.cluster import JsonObject

_ORDER = "$setElementOrder/"
_DELETED = "$deleteFromPrimitiveList/"


def strategic_merge_patch(obj: Any, patch: Any, *, schema: JsonObject) -> Any:
    """Apply a strategic merge patch to a value of a schema.

    Raises:
        ApiStatusError: 400 for a patch that cannot be read.
    """
    schema = resolved(schema)
    if isinstance(patch, list):
        return _merge_list(obj if isinstance(obj, list) else [], patch, schema=schema)
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {name: copy.deepcopy(value) for name, value in patch.items() if name != "$patch"}
    merged = dict(obj) if isinstance(obj, dict) else {}
    kept = patch.get("$retainKeys")
    if kept is not None:  # of a union such as a volume or a strategy: what belonged to the other choice goes
        merged = {name: value for name, value in merged.items() if name in kept}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = strategic_merge_patch(merged.get(name), value, schema=_field(schema, name))
    for name, value in patch.items():
        _direct(merged, name, value, schema=schema)
    return merged


def _direct(merged: JsonObject, name: str, value: Any, *, schema: JsonObject) -> None:
    """Follow a directive about a list that stands beside it."""
    if name.startswith(_DELETED):
        field = name.removeprefix(_DELETED)
        merged[field] = [item for item in merged.get(field) or [] if item not in value]
    elif name.startswith(_ORDER):
        field = name.removeprefix(_ORDER)
        key = _merge_key(resolved(_field(schema, field)))
        wanted = [item.get(key) if key and isinstance(item, dict) else item for item in value]
        items = merged.get(field)
        if isinstance(items, list):
            named = [item.get(key) if key and isinstance(item, dict) else item for item in items]
            # What the patch does not name stays behind what it does, in the order that it had.
            order = sorted(
                range(len(items)), key=lambda i: wanted.index(named[i]) if named[i] in wanted else len(wanted)
            )
            merged[field] = [items[i] for i in order]


def _merge_list(items: list[Any], patch: list[Any], *, schema: JsonObject) -> list[Any]:
    if "merge" not in schema.get("x-kubernetes-patch-strategy", ""):
        return copy.deepcopy(patch)
    key = _merge_key(schema)
    if not key:
        return [*items, *(item for item in patch if item not in items)]
    if not all(isinstance(item, dict) for item in patch):
        raise bad_request("error decoding patch: a list that is merged by key is a list of objects")
    if any(item.get("$patch") == "replace" for item in patch):
        return [copy.deepcopy(item) for item in patch if item.get("$patch") != "replace"]
    merged = {item.get(key): item for item in items}
    for item in patch:
        name = item.get(key)
        if item.get("$patch") == "delete":
            merged.pop(name, None)
        else:
            merged[name] = strategic_merge_patch(merged.get(name), item, schema=schema.get("items", {}))
    return list(merged.values())


def _merge_key(schema: JsonObject) -> str:
    key: str = schema.get("x-kubernetes-patch-merge-key", "")
    return key


def _field(schema: JsonObject, name: str) -> JsonObject:
    others = schema.get("additionalProperties")
    found: JsonObject = schema.get("properties", {}).get(name, others if isinstance(others, dict) else {})
    return found
