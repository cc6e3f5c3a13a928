"""What a request's path names."""

from __future__ import annotations

from dataclasses import dataclass

from playground.api.resources import RESOURCES, Key, Resource


@dataclass(frozen=True, slots=True)
class Address:
    """What a path names: a collection, one object, or a subresource of it."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> Key:
        """Where the object lives."""
        return Key(self.resource.plural, self.namespace, self.name)


def parse_path(path: str) -> Address | None:
    """Read a path such as ``/api/v1/namespaces/team-a/pods/infer-0/status``; None if it names nothing served."""
    parts = path.strip("/").split("/")
    if parts[:2] == ["api", "v1"]:
        api_version, rest = "v1", parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        api_version, rest = f"{parts[1]}/{parts[2]}", parts[3:]
    else:
        return None
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in RESOURCES["namespaces"].subresources:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource, *more = [*rest, "", "", ""][: max(len(rest), 3)]
    resource = RESOURCES.get(plural)
    if resource is None or resource.api_version != api_version or any(more):
        return None
    if subresource and subresource not in resource.subresources:
        return None
    if bool(namespace) != resource.namespaced and (namespace or name):
        return None
    return Address(resource, namespace, name, subresource)
