"""The fields that core kinds have, as kube-apiserver declares them (OpenAPI v3), and those of our custom resources.

``schemas.json`` is generated from a real kube-apiserver by ``tests/playground/generate_schemas.py``, without
descriptions; the schemas of custom resources are those that the chart installs. Where the chart's folder is missing,
their fields are not known and nothing is said about them. Pure, but for reading these files once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

from playground.api.resources import RESOURCES, Resource
from playground.cluster import JsonObject

FILE = Path(__file__).with_name("schemas.json")
CRDS = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "fracgpu" / "files" / "crds"
_PREFIX = "#/components/schemas/"
_OPEN: JsonObject = {"x-kubernetes-preserve-unknown-fields": True}


@cache
def core_schemas() -> dict[str, JsonObject]:
    """Name -> schema, of every type of the core kinds."""
    return msgspec.json.decode(FILE.read_bytes(), type=dict[str, JsonObject])


@cache
def custom_versions() -> dict[str, JsonObject]:
    """Plural -> the version of its CustomResourceDefinition that is served."""
    found = {}
    for path in sorted(CRDS.glob("*.yaml")):
        spec = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]  # noqa: S506
        resource = RESOURCES.get(spec["names"]["plural"])
        for version in spec["versions"]:
            if resource is not None and version["name"] == resource.version:
                found[resource.plural] = version
    return found


@cache
def schema_of(plural: str) -> JsonObject:
    """The schema of a kind's objects; one that allows everything where nothing is known."""
    resource = RESOURCES[plural]
    if resource.custom:
        version = custom_versions().get(plural)
        declared: JsonObject = version["schema"]["openAPIV3Schema"] if version else _OPEN
        return declared
    return next((schema for schema in core_schemas().values() if _is_of(resource, schema)), _OPEN)


def resolved(schema: JsonObject) -> JsonObject:
    """A schema, or what it refers to, with what stands beside the reference."""
    if "$ref" in schema:
        return resolved(core_schemas()[schema["$ref"].removeprefix(_PREFIX)])
    if len(schema.get("allOf", ())) == 1 and "properties" not in schema:
        beside = {name: value for name, value in schema.items() if name != "allOf"}
        return {**resolved(schema["allOf"][0]), **beside}
    return schema


def unknown_fields(resource: Resource, obj: JsonObject) -> list[str]:
    """The fields of an object that its kind does not have, as paths such as ``spec.containers[0].imagePulPolicy``."""
    schema = schema_of(resource.plural)
    if resource.custom and "properties" in schema:  # what every object has need not be declared
        everywhere = {"apiVersion": {}, "kind": {}, "metadata": _OPEN}
        schema = {**schema, "properties": {**everywhere, **schema["properties"]}}
    return list(_unknown(obj, schema, ""))


def _unknown(value: Any, schema: JsonObject, path: str) -> Iterator[str]:
    schema = resolved(schema)
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, schema.get("items", _OPEN), f"{path}[{index}]")
    if not isinstance(value, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    fields, others = schema.get("properties"), schema.get("additionalProperties")
    for name, inner in value.items():
        inside = f"{path}.{name}" if path else name
        if fields and name in fields:
            yield from _unknown(inner, fields[name], inside)
        elif isinstance(others, dict):
            yield from _unknown(inner, others, inside)
        elif fields and not others:
            yield inside


def _is_of(resource: Resource, schema: JsonObject) -> bool:
    wanted = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    return wanted in schema.get("x-kubernetes-group-version-kind", [])
