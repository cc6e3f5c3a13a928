"""What the API server says about itself: versions, groups, resources, and as much OpenAPI as kubectl insists on.

kubectl asks OpenAPI v3 one thing before ``apply``: whether PATCH of the kind takes ``fieldValidation``. Schemas are
left out, so ``kubectl explain`` has nothing to say. All documents are constants made from the table of resources.
"""

from __future__ import annotations

from playground.api.resources import RESOURCES, Resource
from playground.cluster import JsonObject

GIT_VERSION = "v1.36.2"
"""The release whose behaviour the playground follows."""

_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def documents() -> dict[str, JsonObject]:
    """Return every document by its path."""
    groups: dict[str, list[Resource]] = {}  # apiVersion -> resources
    for resource in RESOURCES.values():
        groups.setdefault(resource.api_version, []).append(resource)
    named = {version: group for version, group in groups.items() if "/" in version}
    pages: dict[str, JsonObject] = {
        "/version": {"major": "1", "minor": "36", "gitVersion": f"{GIT_VERSION}+playground", "platform": "python"},
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(version) for version in named]},
        "/openapi/v3": {
            "paths": {
                _root(version).lstrip("/"): {"serverRelativeURL": f"/openapi/v3{_root(version)}?hash=1"}
                for version in groups
            }
        },
    }
    for version, group in groups.items():
        pages[_root(version)] = _resource_list(version, group)
        pages[f"/openapi/v3{_root(version)}"] = _openapi(version, group)
        if "/" in version:
            pages[f"/apis/{version.split('/')[0]}"] = {"kind": "APIGroup", "apiVersion": "v1", **_group(version)}
    return pages


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _group(api_version: str) -> JsonObject:
    name, version = api_version.split("/")
    served = {"groupVersion": api_version, "version": version}
    return {"name": name, "versions": [served], "preferredVersion": served}


def _resource_list(api_version: str, resources: list[Resource]) -> JsonObject:
    entries = []
    for resource in resources:
        common = {"singularName": resource.singular, "namespaced": resource.namespaced}
        entries.append(
            {
                **common,
                "name": resource.plural,
                "kind": resource.kind,
                "verbs": _VERBS,
                "shortNames": list(resource.short_names),
            }
        )
        for subresource in resource.subresources:
            is_status = subresource == "status"
            entries.append(
                {
                    **common,
                    "name": f"{resource.plural}/{subresource}",
                    "singularName": "",
                    "kind": resource.kind if is_status else subresource.capitalize(),
                    "verbs": ["get", "patch", "update"] if is_status else ["create"],
                    **({"group": "policy", "version": "v1"} if subresource == "eviction" else {}),
                }
            )
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": entries}


def _openapi(api_version: str, resources: list[Resource]) -> JsonObject:
    paths = {}
    for resource in resources:
        scope = "/namespaces/{namespace}" if resource.namespaced else ""
        paths[f"{_root(api_version)}{scope}/{resource.plural}/{{name}}"] = {
            "patch": {
                "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                "responses": {"200": {"description": "OK"}},
                "x-kubernetes-group-version-kind": {
                    "group": resource.group,
                    "version": resource.version,
                    "kind": resource.kind,
                },
            }
        }
    return {"openapi": "3.0.0", "info": {"title": "fracgpu playground", "version": GIT_VERSION}, "paths": paths}
