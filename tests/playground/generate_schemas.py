"""Writes ``playground/api/schemas.json`` from a real kube-apiserver: ``python -m tests.playground.generate_schemas``.

Only the kinds that the playground serves, and of those what a program needs: no descriptions, no defaults.
"""

from __future__ import annotations

import json
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from playground.api.resources import RESOURCES
from playground.api.schemas import FILE
from tests.realcluster import RealControlPlane

DOCUMENTS = ("api/v1", "apis/apps/v1", "apis/batch/v1", "apis/policy/v1")
_PREFIX = "#/components/schemas/"
_KEPT = (
    *("type", "format", "enum", "required", "properties", "items", "additionalProperties", "allOf", "oneOf", "$ref"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"),
    *("x-kubernetes-patch-merge-key", "x-kubernetes-patch-strategy", "x-kubernetes-group-version-kind"),
)


def fetch(plane: RealControlPlane) -> dict[str, Any]:
    """All schemas of the documents, by name, as the server has them."""
    found: dict[str, Any] = {}
    for document in DOCUMENTS:
        request = urllib.request.Request(
            f"{plane.url}/openapi/v3/{document}", headers={"Authorization": f"Bearer {plane.token}"}
        )
        with urllib.request.urlopen(request, context=plane.client_ssl()) as answer:
            found |= json.load(answer)["components"]["schemas"]
    return found


def pruned(schemas: Mapping[str, Any]) -> dict[str, Any]:
    """What the playground keeps of them."""
    served = {(r.group, r.version, r.kind) for r in RESOURCES.values() if not r.custom}
    wanted = [name for name, schema in schemas.items() if served & _kinds(schema)]
    kept: dict[str, Any] = {}
    while wanted:
        name = wanted.pop()
        if name not in kept:
            kept[name] = _prune(schemas[name], served)
            wanted += _references(kept[name])
    return dict(sorted(kept.items()))


def text(schemas: Mapping[str, Any]) -> str:
    """The file's text: one line for each type, so that a change can be read."""
    lines = [f"{json.dumps(name)}:{json.dumps(schema, separators=(',', ':'))}" for name, schema in schemas.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _kinds(schema: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    named = schema.get("x-kubernetes-group-version-kind", [])
    return {(entry["group"], entry["version"], entry["kind"]) for entry in named}


def _prune(schema: Any, served: set[tuple[str, str, str]]) -> Any:
    found = {}
    for name, value in schema.items():
        if name not in _KEPT:
            continue
        if name == "properties":
            value = {field: _prune(inner, served) for field, inner in value.items()}
        elif name in ("items", "additionalProperties") and isinstance(value, dict):
            value = _prune(value, served)
        elif name in ("allOf", "oneOf"):
            value = [_prune(inner, served) for inner in value]
        elif name == "x-kubernetes-group-version-kind":
            value = [entry for entry in value if (entry["group"], entry["version"], entry["kind"]) in served]
            if not value:
                continue
        found[name] = value
    return found


def _references(schema: Any) -> list[str]:
    if isinstance(schema, dict):
        own = [schema["$ref"].removeprefix(_PREFIX)] if isinstance(schema.get("$ref"), str) else []
        return own + [name for inner in schema.values() for name in _references(inner)]
    if isinstance(schema, list):
        return [name for inner in schema for name in _references(inner)]
    return []


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        plane = RealControlPlane(Path(folder))
        plane.start()
        try:
            FILE.write_text(text(pruned(fetch(plane))))
        finally:
            plane.stop()


if __name__ == "__main__":
    main()
