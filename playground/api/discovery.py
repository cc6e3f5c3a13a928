"""What the API server says about itself: versions, groups, resources, and as much OpenAPI as kubectl insists on.

kubectl asks OpenAPI v3 before ``apply`` whether PATCH of the kind takes ``fieldValidation``, and makes its patches by
the kind's schema. The schemas of core kinds have no descriptions, so ``kubectl explain`` shows their fields only. All
documents are constants made from the table of resources.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial

import msgspec

from playground.api.resources import RESOURCES, Resource
from playground.api.reviews import REVIEWS
from playground.api.schemas import core_schemas, schema_of
from playground.cluster import JsonObject

GIT_VERSION = "v1.36.2"
"""The release whose behaviour the playground follows."""

OPENAPI_V2 = b"\x0a\x032.0\x12\x11\x0a\x0aplayground\x12\x031.0"
"""OpenAPI v2 as protobuf (gnostic's Document: swagger 2.0, title and version), without a single path: kubectl asks it
about kinds that v3 does not have, in vain."""
OPENAPI_V2_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
_SUBRESOURCES: Mapping[str, tuple[str, list[str], JsonObject]] = {
    "binding": ("Binding", ["create"], {}),
    "eviction": ("Eviction", ["create"], {"group": "policy", "version": "v1"}),
    "log": ("", ["get"], {}),
    "exec": ("PodExecOptions", ["create", "get"], {}),
    "attach": ("PodAttachOptions", ["create", "get"], {}),
    "portforward": ("PodPortForwardOptions", ["create", "get"], {}),
    "scale": ("Scale", ["get", "patch", "update"], {"group": "autoscaling", "version": "v1"}),
}
"""Subresource -> kind (its object's own where it is empty), verbs, and the group where it is another one."""
_METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def document(path: str) -> JsonObject | None:
    """Return what is to be read at a path; None if there is nothing about the API."""
    make = _documents().get(path)
    return make() if make else None


def is_group(path: str) -> bool:
    """Whether a path names a version of a group that is served."""
    return path.count("/") >= 2 and path in _documents()


@cache
def _documents() -> dict[str, Callable[[], JsonObject]]:
    """Path -> what makes the document, once: most of them nobody asks for."""
    groups: dict[str, list[Resource]] = {}  # apiVersion -> resources
    for resource in RESOURCES.values():
        groups.setdefault(resource.api_version, []).append(resource)
    reviews: dict[str, list[JsonObject]] = {}  # apiVersion -> entries
    for plural, (version, kind, _) in REVIEWS.items():
        entry = {"name": plural, "singularName": kind.lower(), "namespaced": False, "kind": kind, "verbs": ["create"]}
        reviews.setdefault(version, []).append(entry)
    openapi = {version: cache(partial(_openapi, version, group)) for version, group in groups.items()}
    named = [_group(version) for version in (*groups, *reviews) if "/" in version]
    entries = {version: [e for resource in group for e in _entries(resource)] for version, group in groups.items()}
    versions = {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    group_list = {"kind": "APIGroupList", "apiVersion": "v1", "groups": named}
    release = {"major": "1", "minor": "36", "gitVersion": f"{GIT_VERSION}+playground", "platform": "python"}
    return {
        "/version": lambda: release,
        "/api": lambda: versions,
        "/apis": lambda: group_list,
        "/openapi/v3": cache(lambda: _openapi_index({version: make() for version, make in openapi.items()})),
        **{f"/openapi/v3{_root(version)}": make for version, make in openapi.items()},
        **{
            _root(version): partial(_resource_list, version, found) for version, found in {**entries, **reviews}.items()
        },
        **{f"/apis/{group['name']}": partial(_group_document, group) for group in named},
    }


def _openapi_index(openapi: Mapping[str, JsonObject]) -> JsonObject:
    hashes = {version: zlib.crc32(msgspec.json.encode(found)) for version, found in openapi.items()}
    # kubectl keeps what it once fetched under a hash.
    urls = {version: f"/openapi/v3{_root(version)}?hash={number}" for version, number in hashes.items()}
    return {"paths": {_root(version).lstrip("/"): {"serverRelativeURL": url} for version, url in urls.items()}}


def _group_document(group: JsonObject) -> JsonObject:
    return {"kind": "APIGroup", "apiVersion": "v1", **group}


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _group(api_version: str) -> JsonObject:
    name, version = api_version.split("/")
    served = {"groupVersion": api_version, "version": version}
    return {"name": name, "versions": [served], "preferredVersion": served}


def _resource_list(api_version: str, entries: list[JsonObject]) -> JsonObject:
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": entries}


def _entries(resource: Resource) -> Iterator[JsonObject]:
    yield {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": _VERBS,
        **({"shortNames": list(resource.short_names)} if resource.short_names else {}),
        **({"categories": list(resource.categories)} if resource.categories else {}),
    }
    for subresource in resource.subresources:
        kind, verbs, group = _SUBRESOURCES.get(subresource, ("", ["get", "patch", "update"], {}))
        yield {
            "name": f"{resource.plural}/{subresource}",
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": kind or resource.kind,
            "verbs": verbs,
            **group,
        }


def _openapi(api_version: str, resources: list[Resource]) -> JsonObject:
    paths, schemas = {}, dict(core_schemas())
    for resource in resources:
        scope = "/namespaces/{namespace}" if resource.namespaced else ""
        kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        paths[f"{_root(api_version)}{scope}/{resource.plural}/{{name}}"] = {
            "patch": {
                "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                "responses": {"200": {"description": "OK"}},
                "x-kubernetes-group-version-kind": kind,
            }
        }
        if resource.custom:
            reverse = ".".join(reversed(resource.group.split(".")))
            schemas[f"{reverse}.{resource.version}.{resource.kind}"] = _custom_schema(resource, kind)
    return {
        "openapi": "3.0.0",
        "info": {"title": "fracgpu playground", "version": GIT_VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _custom_schema(resource: Resource, kind: JsonObject) -> JsonObject:
    """The schema of a custom resource with what every object has."""
    schema = schema_of(resource.plural)
    everywhere = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"allOf": [{"$ref": f"#/components/schemas/{_METADATA}"}]},
    }
    properties = {**everywhere, **schema.get("properties", {})}
    return {**schema, "properties": properties, "x-kubernetes-group-version-kind": [kind]}
