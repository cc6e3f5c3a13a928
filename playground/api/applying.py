"""Server-side apply: what one manager applies is merged, and what it named before and no longer names is removed. Pure.

Which lists are merged item by item the kind's schema says; any other is one value. Conflicts between managers are
left out: the one who applies wins, as with ``--force-conflicts``.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from playground.api.schemas import resolved
from playground.cluster import JsonObject


def apply_owned(obj: JsonObject, config: JsonObject, *, owned: JsonObject, schema: JsonObject) -> JsonObject:
    """Merge ``config``; ``owned`` is the FieldsV1 of this manager's last apply (``owned_fields``)."""
    result: JsonObject = _without(_merged(obj, config, schema), config, owned, schema)
    return result


def owned_fields(config: Any, *, schema: JsonObject) -> JsonObject:
    """The fields that an applied configuration names, as FieldsV1."""
    schema = resolved(schema)
    if isinstance(config, dict):
        return {f"f:{name}": owned_fields(value, schema=_field(schema, name)) for name, value in config.items()}
    keys = _keys(schema)
    if isinstance(config, list) and keys:
        inner = schema.get("items", {})
        return {f"k:{_identity(item, keys)}": owned_fields(item, schema=inner) for item in config}
    return {}


def _merged(obj: Any, config: Any, schema: JsonObject) -> Any:
    schema = resolved(schema)
    if isinstance(config, dict):
        merged = dict(obj) if isinstance(obj, dict) else {}
        for name, value in config.items():
            if value is None:
                merged.pop(name, None)
            else:
                merged[name] = _merged(merged.get(name), value, _field(schema, name))
        return merged
    keys = _keys(schema)
    if isinstance(config, list) and keys and isinstance(obj, list):
        items = {_identity(item, keys): item for item in obj}
        for item in config:
            name = _identity(item, keys)
            items[name] = _merged(items.get(name), item, schema.get("items", {}))
        return list(items.values())
    return copy.deepcopy(config)


def _without(obj: Any, config: Any, owned: JsonObject, schema: JsonObject) -> Any:
    schema = resolved(schema)
    if isinstance(obj, list):
        return _items_without(obj, config if isinstance(config, list) else [], owned, schema)
    if not isinstance(obj, dict):
        return obj
    kept = dict(obj)
    for field, inner in owned.items():
        name = field.removeprefix("f:")
        named = isinstance(config, dict) and name in config
        if not named and not inner:
            kept.pop(name, None)
        elif name in kept and inner:
            kept[name] = _without(kept[name], config.get(name) if named else {}, inner, _field(schema, name))
            if not kept[name] and not named:
                del kept[name]
    return kept


def _items_without(items: list[Any], config: list[Any], owned: JsonObject, schema: JsonObject) -> list[Any]:
    keys = _keys(schema)
    if not keys:
        return items
    named = {_identity(item, keys): item for item in config}
    kept = []
    for item in items:
        name = _identity(item, keys)
        if f"k:{name}" not in owned:
            kept.append(item)
        elif name in named:
            kept.append(_without(item, named[name], owned[f"k:{name}"], schema.get("items", {})))
    return kept


def _keys(schema: JsonObject) -> tuple[str, ...]:
    is_map = schema.get("x-kubernetes-list-type") == "map"
    return tuple(schema.get("x-kubernetes-list-map-keys", ())) if is_map else ()


def _identity(item: Any, keys: tuple[str, ...]) -> str:
    named = {key: item[key] for key in keys if key in item} if isinstance(item, dict) else {}
    if "protocol" in keys:  # the one key that has a default
        named.setdefault("protocol", "TCP")
    return json.dumps(named, separators=(",", ":"), sort_keys=True)


def _field(schema: JsonObject, name: str) -> JsonObject:
    others = schema.get("additionalProperties")
    found: JsonObject = schema.get("properties", {}).get(name, others if isinstance(others, dict) else {})
    return found
