"""The API server's HTTP face: paths, query parameters and bodies to the registry's verbs and back.

Answers are JSON (no protobuf), as objects or as the tables that kubectl asks for; every refusal is a
``metav1.Status``. There is no authentication and no authorization: whoever reaches the server may do everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec
from fastapi import Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from playground.api import errors, reviews
from playground.api.addresses import Address, parse_path
from playground.api.discovery import OPENAPI_V2, OPENAPI_V2_TYPE, document, is_group
from playground.api.faults import BindingFaults
from playground.api.registry import Registry
from playground.api.requests import (
    APPLY,
    check_fields,
    content_type,
    decode,
    decode_applied,
    int_parameter,
    is_dry_run,
    read_patch,
    version_parameter,
)
from playground.api.scaling import scale_of, scaled
from playground.api.selectors import Selection, select
from playground.api.store import Store, now
from playground.api.tables.table import TableForm, requested_table
from playground.api.warnings import collected, header
from playground.api.watching import Watches, bookmark
from playground.cluster import ApiStatusError, JsonObject

WATCH_SECONDS = 1800
"""How long a watch lasts that does not say; kube-apiserver takes 30 to 60 minutes."""

_NO_CONTAINERS: Mapping[str, str] = {
    "log": "has no logs",
    "exec": "cannot run a command",
    "attach": "cannot be attached to",
    "portforward": "listens on no port",
}


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
        self._watching: set[Request] = set()

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        path = request.url.path.rstrip("/")
        if path in ("/healthz", "/readyz", "/livez"):
            return PlainTextResponse("ok")
        about = document(path)
        if about is not None:
            return _json(about)
        if path == "/openapi/v2":
            return Response(OPENAPI_V2, media_type=OPENAPI_V2_TYPE)
        with collected() as warnings:
            try:
                response = await self._answer(request, path)
            except ApiStatusError as exc:
                response = _json(errors.status_body(exc), code=exc.code)
        for text in warnings:
            response.headers.append("Warning", header(text))
        return response

    def hang_up_watches(self) -> None:
        """Close the connections of all watch requests."""
        for request in list(self._watching):
            self._hang_up(request)

    async def _answer(self, request: Request, path: str) -> Response:
        address = parse_path(path)
        if address is not None:
            return await self._dispatch(request, address)
        if request.method == "POST" and path.rpartition("/")[2] in reviews.REVIEWS:
            review = reviews.answer(path, await request.body())
            if review is not None:
                return _json(review, code=201)
        # As kube-apiserver: a Status where the group is served, plain text where nothing is.
        if is_group("/".join(path.split("/")[: 4 if path.startswith("/apis/") else 3])):
            raise errors.no_such_resource()
        return PlainTextResponse("404 page not found\n", status_code=404)

    async def _dispatch(self, request: Request, address: Address) -> Response:
        query = request.query_params
        if address.subresource == "binding":
            if request.method == "POST":
                return await self._bind(request, address)
        elif address.subresource == "eviction":
            if request.method == "POST":
                return await self._evict(request, address)
        elif address.subresource == "scale":
            return await self._scale(request, address)
        elif address.subresource in _NO_CONTAINERS:
            raise _nothing_runs(self._registry.get(address.key), address)
        elif address.name:
            if request.method == "GET":
                return self._get(request, address)
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

    def _get(self, request: Request, address: Address) -> Response:
        found, form = self._registry.get(address.key), _table_form(request)
        return _json(form.table_of_one(address.resource, found, now=now()) if form else found)

    async def _create(self, request: Request, address: Address) -> Response:
        obj = decode(await request.body(), address.resource)
        check_fields(request, obj, address.resource)
        created = await self._registry.create(
            address.resource, obj, namespace=address.namespace, dry_run=is_dry_run(request)
        )
        return _json(created, code=201)

    async def _update(self, request: Request, address: Address) -> Response:
        obj = decode(await request.body(), address.resource)
        check_fields(request, obj, address.resource)
        updated = await self._registry.update(
            address.key, obj, subresource=address.subresource, dry_run=is_dry_run(request)
        )
        return _json(updated)

    async def _patch(self, request: Request, address: Address) -> Response:
        body, dry_run = await request.body(), is_dry_run(request)
        if content_type(request) == APPLY:
            manager = request.query_params.get("fieldManager", "")
            if not manager:
                message = (
                    'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
                )
                raise ApiStatusError(422, "Invalid", message)
            config = decode_applied(body, address.resource)
            applied, is_new = await self._registry.apply(
                address.key, config, manager=manager, subresource=address.subresource, dry_run=dry_run
            )
            return _json(applied, code=201 if is_new else 200)
        change = read_patch(request, body, address.resource)
        patched = await self._registry.patch(address.key, change, subresource=address.subresource, dry_run=dry_run)
        return _json(patched)

    async def _scale(self, request: Request, address: Address) -> Response:
        body, key = await request.body(), address.key
        if request.method == "GET":
            return _json(scale_of(self._registry.get(key)))
        if request.method == "PUT":
            wanted = decode(body, address.resource)
            changed = await self._registry.patch(key, lambda obj: scaled(obj, wanted), dry_run=is_dry_run(request))
        elif request.method == "PATCH":
            change = read_patch(request, body, address.resource)
            changed = await self._registry.patch(
                key, lambda obj: scaled(obj, change(scale_of(obj))), dry_run=is_dry_run(request)
            )
        else:
            raise errors.method_not_allowed()
        return _json(scale_of(changed))

    async def _delete(self, request: Request, address: Address) -> Response:
        body = await request.body()
        options = decode(body, address.resource) if body else {}
        grace = options.get("gracePeriodSeconds", int_parameter(request, "gracePeriodSeconds"))
        if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
            raise errors.bad_request("gracePeriodSeconds must be a whole number")
        preconditions = options.get("preconditions") or {}
        last = self._registry.delete(
            address.key,
            grace_seconds=grace,
            uid=preconditions.get("uid") or "",
            expect_version=preconditions.get("resourceVersion") or "",
            orphan=_policy(request, options) == "Orphan",
            dry_run=is_dry_run(request) or bool(options.get("dryRun")),
        )
        if address.resource.plural == "pods":
            return _json(last)
        details = {"name": address.name, "kind": address.resource.plural, "uid": last["metadata"]["uid"]}
        if address.resource.group:
            details["group"] = address.resource.group
        return _json(_success({"details": details}))

    async def _bind(self, request: Request, address: Address) -> Response:
        binding = decode(await request.body(), address.resource)
        dry_run = is_dry_run(request)
        answer = await self._faults.carry_out(lambda: self._registry.bind(address.key, binding, dry_run=dry_run))
        if answer == "lost":
            self._hang_up(request)
            await asyncio.sleep(0)  # the connection is gone before anything could be written to it
        return _json(_success({"code": 201}), code=201)

    async def _evict(self, request: Request, address: Address) -> Response:
        eviction = decode(await request.body(), address.resource, kind="Eviction")
        self._registry.evict(address.key, eviction, dry_run=is_dry_run(request))
        return _json(_success({"code": 201}), code=201)

    def _list(self, request: Request, address: Address) -> Response:
        query = request.query_params
        wanted = version_parameter(request)
        if wanted > self._store.version:
            message = f"Timeout: Too large resource version: {wanted}, current: {self._store.version}"
            raise ApiStatusError(504, "Timeout", message)
        page = self._registry.list(
            _selection(request, address),
            limit=int_parameter(request, "limit") or 0,
            token=query.get("continue", ""),
        )
        metadata: JsonObject = {"resourceVersion": str(page.version)}
        if page.next_token:
            metadata["continue"] = page.next_token
            if not query.get("labelSelector") and not query.get("fieldSelector"):
                metadata["remainingItemCount"] = page.remaining
        form = _table_form(request)
        if form is not None:
            return _json(form.table(address.resource, page.items, metadata=metadata, now=now(), heads=True))
        items = page.items if address.resource.custom else tuple(map(_without_type, page.items))
        kind = f"{address.resource.kind}List"
        return _json({"kind": kind, "apiVersion": address.resource.api_version, "metadata": metadata, "items": items})

    def _watch(self, request: Request, address: Address) -> Response:
        selection = _selection(request, address)
        version = version_parameter(request)
        seconds = int_parameter(request, "timeoutSeconds") or WATCH_SECONDS
        bookmarks = request.query_params.get("allowWatchBookmarks") in ("1", "true")
        form = _table_form(request)
        heads = True
        initial: tuple[JsonObject, ...] = ()
        sends_initial = request.query_params.get("sendInitialEvents") in ("1", "true")
        if version == 0 or sends_initial:  # "any version": the present state comes first
            page = self._registry.list(selection)
            initial, version = page.items, page.version

        def line(kind: str, obj: JsonObject) -> bytes:
            nonlocal heads
            if form is not None:
                obj = form.table_of_one(address.resource, obj, now=now(), heads=heads)
                heads = False
            return _line(kind, obj)

        async def lines() -> AsyncIterator[bytes]:
            self._watching.add(request)
            try:
                for obj in initial:
                    yield line("ADDED", obj)
                if sends_initial and bookmarks:
                    yield line("BOOKMARK", bookmark(selection, version, ends_initial=True))
                followed = self._watches.follow(selection, since=version, bookmarks=bookmarks, seconds=seconds)
                async with aclosing(followed) as notices:
                    async for kind, obj in notices:
                        yield line(kind, obj)
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


def _table_form(request: Request) -> TableForm | None:
    accept = request.headers.get("accept", "")
    if "as=Table" not in accept:
        return None
    return requested_table(accept, include=request.query_params.get("includeObject", ""))


def _policy(request: Request, options: JsonObject) -> str:
    """What is to become of what belongs to a deleted object."""
    policy = options.get("propagationPolicy") or request.query_params.get("propagationPolicy", "")
    if policy not in ("", "Orphan", "Background", "Foreground"):
        allowed = '"Background", "Foreground", "Orphan"'
        raise errors.bad_request(f'propagationPolicy: Unsupported value: "{policy}": supported values: {allowed}')
    return str(policy)


def _nothing_runs(pod: JsonObject, address: Address) -> ApiStatusError:
    name = pod["metadata"]["name"]
    return errors.bad_request(
        f'pod "{name}" {_NO_CONTAINERS[address.subresource]}: the playground simulates containers, no process runs '
        f"in them; kubectl describe pod {name} -n {address.namespace} shows what became of it"
    )


def _success(more: JsonObject) -> JsonObject:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", **more}


def _without_type(obj: JsonObject) -> JsonObject:
    """An item of a list of a core kind, which does not repeat apiVersion and kind."""
    return {name: value for name, value in obj.items() if name not in ("apiVersion", "kind")}


def _line(kind: str, obj: JsonObject) -> bytes:
    return msgspec.json.encode({"type": kind, "object": obj}) + b"\n"


def _json(content: Any, *, code: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status_code=code, media_type="application/json")
