"""The API server for parts of its own process: ``ClusterApi`` over the registry, without sockets.

The scheduler loop and the kubelet stubs of a demo use it, so that a playground of many nodes needs no connections.
Faults of the wire (cut watches aside) do not reach them: those are for the services under test.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator

from playground.api.errors import bad_request
from playground.api.patches import merge_patch
from playground.api.registry import Registry
from playground.api.resources import RESOURCES, Key, Resource
from playground.api.selectors import select
from playground.api.watching import Watches
from playground.cluster import JsonObject, WatchEvent


class LocalCluster:
    """``ClusterApi`` and ``SchedulerApi``, with copies going in and out."""

    def __init__(self, registry: Registry, watches: Watches) -> None:
        self._registry = registry
        self._watches = watches

    async def create(self, resource: str, obj: JsonObject) -> JsonObject:
        """Create ``obj`` and return it as stored; without ``metadata.namespace`` it goes to "default"."""
        metadata = obj.get("metadata")
        namespace = (metadata.get("namespace") if isinstance(metadata, dict) else "") or "default"
        created = await self._registry.create(_known(resource), copy.deepcopy(obj), namespace=namespace)
        return copy.deepcopy(created)

    async def get(self, resource: str, name: str, *, namespace: str = "") -> JsonObject:
        """Return one object, or raise ``ApiStatusError`` with code 404."""
        return copy.deepcopy(self._registry.get(_key(resource, name, namespace)))

    async def list(self, resource: str, *, field_selector: str = "") -> tuple[list[JsonObject], str]:
        """Return the matching objects of all namespaces and the resourceVersion to watch from."""
        page = self._registry.list(select(_known(resource), fields=field_selector))
        return [copy.deepcopy(obj) for obj in page.items], str(page.version)

    async def patch(
        self, resource: str, name: str, patch: JsonObject, *, namespace: str = "", subresource: str = ""
    ) -> JsonObject:
        """Apply a JSON merge patch (RFC 7386) to the object, or to its status, and return the result."""
        patched = await self._registry.patch(
            _key(resource, name, namespace), lambda obj: merge_patch(obj, patch), subresource=subresource
        )
        return copy.deepcopy(patched)

    async def delete(
        self, resource: str, name: str, *, namespace: str = "", grace_seconds: int | None = None, uid: str = ""
    ) -> None:
        """Delete; a bound pod with grace above 0 is only marked, until somebody deletes it with grace 0."""
        self._registry.delete(_key(resource, name, namespace), grace_seconds=grace_seconds, uid=uid)

    async def bind(self, name: str, *, namespace: str, node: str, uid: str) -> None:
        """Assign a pod to a node; raise ``ApiStatusError`` with code 409 where it cannot be."""
        binding = {"metadata": {"name": name, "uid": uid}, "target": {"kind": "Node", "name": node}}
        self._registry.bind(_key("pods", name, namespace), binding)

    async def watch(
        self, resource: str, *, resource_version: str, field_selector: str = ""
    ) -> AsyncIterator[WatchEvent]:
        """Yield the changes after ``resource_version``; see ``ClusterApi.watch``."""
        selection = select(_known(resource), fields=field_selector)
        async for kind, obj in self._watches.follow(selection, since=int(resource_version)):
            if kind != "BOOKMARK":
                yield WatchEvent(kind, copy.deepcopy(obj))


def _known(resource: str) -> Resource:
    if resource not in RESOURCES:
        raise bad_request(f"the playground serves {', '.join(RESOURCES)}, not {resource!r}")
    return RESOURCES[resource]


def _key(resource: str, name: str, namespace: str) -> Key:
    return Key(resource, (namespace or "default") if _known(resource).namespaced else "", name)
