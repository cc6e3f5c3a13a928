"""The API server's HTTP face: paths, query parameters and bodies to the registry's verbs and back.

Answers are JSON (no protobuf, no server-side tables); every refusal is a ``metav1.Status``. There is no
authentication and no authorization: the server listens on loopback only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml
from fastapi import Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from playground.api import errors, patches
from playground.api.discovery import documents
from playground.api.faults import BindingFaults
from playground.api.registry import Registry
from playground.api.resources import RESOURCES, Key, Resource
from playground.api.selectors import Selection, select
from playground.api.store import Store
from playground.api.watching import Watches
from playground.cluster import ApiStatusError, JsonObject

WATCH_SECONDS = 1800
"""How long a watch lasts that does not say; kube-apiserver takes 30 to 60 minutes."""

_APPLY = "application/apply-patch+yaml"
_STRATEGIC = "application/strategic-merge-patch+json"
_PATCHES: Mapping[str, Callable[[JsonObject, Any], JsonObject]] = {
    "application/json-patch+json": patches.json_patch,
    "application/merge-patch+json": patches.merge_patch,
    _STRATEGIC: patches.strategic_merge_patch,
}


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
    if len(rest) > 2 and rest[0] == "namespaces":
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


class HttpApi:
    """Answers requests.

    Args:
        store: for watches that begin with the present state.
        registry: carries the verbs out.
        watches: where watch requests are followed.
        faults: what goes wrong with bindings.
        hang_up: closes the connection of a request without an answer.
    """

    def __init__(
        self,
        store: Store,
        *,
        registry: Registry,
        watches: Watches,
        faults: BindingFaults,
        hang_up: Callable[[Request], None],
    ) -> None:
        self._store = store
        self._registry = registry
        self._watches = watches
        self._faults = faults
        self._hang_up = hang_up
        self._documents = documents()
        self._watching: set[Request] = set()

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        path = request.url.path.rstrip("/")
        if path in ("/healthz", "/readyz", "/livez"):
            return PlainTextResponse("ok")
        if path in self._documents:
            return _json(self._documents[path])
        address = parse_path(path)
        if address is None:
            return PlainTextResponse("404 page not found\n", status_code=404)
        try:
            return await self._dispatch(request, address)
        except ApiStatusError as exc:
            return _json(errors.status_body(exc), code=exc.code)

    def hang_up_watches(self) -> None:
        """Close the connections of all watch requests."""
        for request in list(self._watching):
            self._hang_up(request)

    async def _dispatch(self, request: Request, address: Address) -> Response:
        query = request.query_params
        if address.subresource == "binding":
            if request.method == "POST":
                return await self._bind(request, address)
        elif address.subresource == "eviction":
            if request.method == "POST":
                return await self._evict(request, address)
        elif address.name:
            if request.method == "GET":
                return _json(self._registry.get(address.key))
            if request.method == "PUT":
                return await self._update(request, address)
            if request.method == "PATCH":
                return await self._patch(request, address)
            if request.method == "DELETE" and not address.subresource:
                return await self._delete(request, address)
        elif request.method == "GET":
            if query.get("watch") in ("1", "true"):
                return self._watch(request, address)
            return self._list(request, address)
        elif request.method == "POST" and bool(address.namespace) == address.resource.namespaced:
            return await self._create(request, address)
        raise errors.method_not_allowed()

    async def _create(self, request: Request, address: Address) -> Response:
        created = await self._registry.create(
            address.resource,
            _decode(await request.body(), address.resource),
            namespace=address.namespace,
            dry_run=_is_dry_run(request),
        )
        return _json(created, code=201)

    async def _update(self, request: Request, address: Address) -> Response:
        updated = await self._registry.update(
            address.key,
            _decode(await request.body(), address.resource),
            subresource=address.subresource,
            dry_run=_is_dry_run(request),
        )
        return _json(updated)

    async def _patch(self, request: Request, address: Address) -> Response:
        body, dry_run = await request.body(), _is_dry_run(request)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip()
        if media_type == _APPLY:
            manager = request.query_params.get("fieldManager", "")
            if not manager:
                message = (
                    'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
                )
                raise ApiStatusError(422, "Invalid", message)
            config = _decode_yaml(body, address.resource)
            applied, is_new = await self._registry.apply(
                address.key, config, manager=manager, subresource=address.subresource, dry_run=dry_run
            )
            return _json(applied, code=201 if is_new else 200)
        accepted = [kind for kind in _PATCHES if not (address.resource.custom and kind == _STRATEGIC)]
        if media_type not in accepted:
            raise errors.unsupported_media_type([*accepted, _APPLY])
        change, patch = _PATCHES[media_type], _decode_patch(body, media_type)
        patched = await self._registry.patch(
            address.key, lambda obj: change(obj, patch), subresource=address.subresource, dry_run=dry_run
        )
        return _json(patched)

    async def _delete(self, request: Request, address: Address) -> Response:
        body = await request.body()
        options = _decode(body, address.resource) if body else {}
        grace = options.get("gracePeriodSeconds", _int_parameter(request, "gracePeriodSeconds"))
        if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
            raise errors.bad_request("gracePeriodSeconds must be a whole number")
        preconditions = options.get("preconditions") or {}
        last = self._registry.delete(
            address.key,
            grace_seconds=grace,
            uid=preconditions.get("uid") or "",
            expect_version=preconditions.get("resourceVersion") or "",
            dry_run=_is_dry_run(request) or bool(options.get("dryRun")),
        )
        if address.resource.plural == "pods":
            return _json(last)
        details = {"name": address.name, "kind": address.resource.plural, "uid": last["metadata"]["uid"]}
        if address.resource.group:
            details["group"] = address.resource.group
        return _json(_success({"details": details}))

    async def _bind(self, request: Request, address: Address) -> Response:
        binding = _decode(await request.body(), address.resource)
        dry_run = _is_dry_run(request)
        answer = await self._faults.carry_out(lambda: self._registry.bind(address.key, binding, dry_run=dry_run))
        if answer == "lost":
            self._hang_up(request)
            await asyncio.sleep(0)  # the connection is gone before anything could be written to it
        return _json(_success({"code": 201}), code=201)

    async def _evict(self, request: Request, address: Address) -> Response:
        eviction = _decode(await request.body(), address.resource)
        self._registry.evict(address.key, eviction, dry_run=_is_dry_run(request))
        return _json(_success({"code": 201}), code=201)

    def _list(self, request: Request, address: Address) -> Response:
        query = request.query_params
        wanted = _version_parameter(request)
        if wanted > self._store.version:
            message = f"Timeout: Too large resource version: {wanted}, current: {self._store.version}"
            raise ApiStatusError(504, "Timeout", message)
        page = self._registry.list(
            _selection(request, address),
            limit=_int_parameter(request, "limit") or 0,
            token=query.get("continue", ""),
        )
        metadata: JsonObject = {"resourceVersion": str(page.version)}
        if page.next_token:
            metadata["continue"] = page.next_token
            if not query.get("labelSelector") and not query.get("fieldSelector"):
                metadata["remainingItemCount"] = page.remaining
        items = page.items if address.resource.custom else tuple(map(_without_type, page.items))
        kind = f"{address.resource.kind}List"
        return _json({"kind": kind, "apiVersion": address.resource.api_version, "metadata": metadata, "items": items})

    def _watch(self, request: Request, address: Address) -> Response:
        selection = _selection(request, address)
        version = _version_parameter(request)
        seconds = _int_parameter(request, "timeoutSeconds") or WATCH_SECONDS
        bookmarks = request.query_params.get("allowWatchBookmarks") in ("1", "true")
        initial: tuple[JsonObject, ...] = ()
        if version == 0:  # "any version": the present state comes first
            page = self._registry.list(selection)
            initial, version = page.items, page.version

        async def lines() -> AsyncIterator[bytes]:
            self._watching.add(request)
            try:
                for obj in initial:
                    yield _line("ADDED", obj)
                followed = self._watches.follow(selection, since=version, bookmarks=bookmarks, seconds=seconds)
                async with aclosing(followed) as notices:
                    async for kind, obj in notices:
                        yield _line(kind, obj)
            except ApiStatusError as exc:
                yield _line("ERROR", errors.status_body(exc))
            finally:
                self._watching.discard(request)

        return StreamingResponse(lines(), media_type="application/json")


def _selection(request: Request, address: Address) -> Selection:
    query = request.query_params
    return select(
        address.resource,
        namespace=address.namespace,
        labels=query.get("labelSelector", ""),
        fields=query.get("fieldSelector", ""),
    )


def _int_parameter(request: Request, name: str) -> int | None:
    text = request.query_params.get(name, "")
    if not text:
        return None
    if not text.isdecimal():
        raise errors.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def _version_parameter(request: Request) -> int:
    text = request.query_params.get("resourceVersion", "") or "0"
    if not text.isdecimal():
        message = f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise ApiStatusError(500, "", message)  # as kube-apiserver, which calls it its own fault
    return int(text)


def _is_dry_run(request: Request) -> bool:
    value = request.query_params.get("dryRun", "")
    if value not in ("", "All"):
        raise errors.bad_request(f'dryRun: Unsupported value: "{value}": supported values: "All"')
    return value == "All"


def _decode(body: bytes, resource: Resource) -> JsonObject:
    try:
        return msgspec.json.decode(body, type=JsonObject)
    except (msgspec.MsgspecError, RecursionError) as exc:
        message = f"the object provided is unrecognized (must be of type {resource.kind}): json parse error: {exc}"
        raise errors.bad_request(message) from exc


def _decode_yaml(body: bytes, resource: Resource) -> JsonObject:
    try:
        return msgspec.json.decode(body, type=JsonObject)
    except (msgspec.MsgspecError, RecursionError):
        pass  # YAML proper; most of it is JSON, which is read a hundred times faster
    try:
        config = yaml.safe_load(body)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as exc:
        raise errors.bad_request(f"error decoding YAML: {exc}") from exc
    if not isinstance(config, dict):
        raise errors.bad_request(f"error decoding YAML: not an object of type {resource.kind}")
    return config


def _decode_patch(body: bytes, media_type: str) -> Any:
    expected = list if media_type == "application/json-patch+json" else dict
    try:
        patch = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise errors.bad_request(f"error decoding patch: {exc}") from exc
    if not isinstance(patch, expected):
        raise errors.bad_request(f"error decoding patch: it is no {expected.__name__}")
    return patch


def _success(more: JsonObject) -> JsonObject:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", **more}


def _without_type(obj: JsonObject) -> JsonObject:
    """An item of a list of a core kind, which does not repeat apiVersion and kind."""
    return {name: value for name, value in obj.items() if name not in ("apiVersion", "kind")}


def _line(kind: str, obj: JsonObject) -> bytes:
    return msgspec.json.encode({"type": kind, "object": obj}) + b"\n"


def _json(content: Any, *, code: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status_code=code, media_type="application/json")
