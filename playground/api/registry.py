"""The API server's verbs, without HTTP: rules of the kinds, admission, then the store.

Every way in (HTTP, ``LocalCluster``) goes through here, so all of them see the same semantics. Objects that come
out are the store's own and must not be changed.
"""

from __future__ import annotations

import base64
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from playground.api.admission import Admission, Operation
from playground.api.applying import apply_owned, owned_fields
from playground.api.binding import bound_pod
from playground.api.errors import bad_request, expired, forbidden, invalid, invalid_value, stale, wrong_uid
from playground.api.eviction import budget_after, check_eviction
from playground.api.owning import release_dependents
from playground.api.pod_defaults import default_pod
from playground.api.resources import JOBS, PODDISRUPTIONBUDGETS, PODS, RESOURCES, Key, Resource
from playground.api.rules import initial, rules_of
from playground.api.schemas import schema_of
from playground.api.selectors import Selection
from playground.api.store import Store, now, timestamp
from playground.api.validation import check_name, check_owners, decoded
from playground.cluster import ApiStatusError, JsonObject

MAX_EVENTS = 1000
"""Event objects kept; the oldest make room, as their one hour of life does in reality."""

_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_PATCH_ATTEMPTS = 5
_SERVER_FIELDS = (
    *("uid", "resourceVersion", "creationTimestamp", "generation"),
    *("deletionTimestamp", "deletionGracePeriodSeconds"),
)
"""Of a new object's metadata: what a client cannot choose."""
FIRST_NAMESPACES = ("default", "kube-system")
"""They are there from the beginning and stay."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: all parts of one list show the state at ``version``."""

    items: tuple[JsonObject, ...]
    version: int
    next_token: str
    remaining: int


class Registry:
    """Create, read, change and delete objects by the rules of their kinds.

    Args:
        store: where they are.
        admission: the webhooks.
        checks_namespaces: refuse what is to be created in a namespace that does not exist, as a real server does.
        clock: the time of bindings and evictions.
    """

    def __init__(
        self,
        store: Store,
        admission: Admission,
        *,
        checks_namespaces: bool = False,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._store = store
        self._admission = admission
        self._checks_namespaces = checks_namespaces
        self._clock = clock

    def get(self, key: Key) -> JsonObject:
        """Return one object, or raise 404."""
        return self._store.get(key)

    def list(self, selection: Selection, *, limit: int = 0, token: str = "") -> Page:
        """Return the selected objects, or the page that ``token`` (of the page before) continues with.

        Raises:
            ApiStatusError: 400 for a token that is none, 410 for one whose list is no longer kept.
        """
        version, after = _read_token(token) if token else (self._store.version, None)
        try:
            objects = self._store.list(selection.resource.plural, at=version)
        except ApiStatusError as exc:
            raise expired("The provided continue parameter is too old to display a consistent list result.") from exc
        found = [
            (key, obj) for key, obj in objects.items() if selection.covers(obj) and (after is None or key[1:] > after)
        ]
        shown = found[:limit] if limit else found
        remaining = len(found) - len(shown)
        next_token = _write_token(version, shown[-1][0]) if remaining else ""
        return Page(tuple(obj for _, obj in shown), version, next_token, remaining)

    async def create(
        self, resource: Resource, obj: JsonObject, *, namespace: str = "", dry_run: bool = False
    ) -> JsonObject:
        """Create an object of ``resource``, in ``namespace`` if it is a namespaced one.

        Raises:
            ApiStatusError: 400, 409, 422, or what a webhook answers.
        """
        obj = decoded(resource, _typed(resource, obj))
        metadata = {k: v for k, v in obj["metadata"].items() if k not in _SERVER_FIELDS}
        if resource.namespaced:
            if metadata.get("namespace") not in (None, "", namespace):
                raise bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            metadata["namespace"] = namespace
            if self._checks_namespaces:
                self._store.get(Key("namespaces", "", namespace))
        rules = rules_of(resource)
        if resource is JOBS:
            metadata["uid"] = str(uuid.uuid4())  # by now: it selects its pods by it
        obj = {**obj, "metadata": metadata}
        if resource is PODS:
            obj = {**obj, "status": {}}
        obj = await self._admit(resource, rules.complete(obj), operation="CREATE", old=None, dry_run=dry_run)
        metadata = dict(obj["metadata"])
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + "".join(random.choices(_SUFFIX_ALPHABET, k=5))  # noqa: S311
        obj = initial(resource, {**obj, "metadata": metadata})
        errors = check_name(resource, metadata) + check_owners(metadata) + rules.check(obj)
        if errors:
            raise invalid(resource, str(metadata.get("name", "")), errors)
        store = self._store.scratch() if dry_run else self._store
        if resource.plural == "events":
            self._make_room_for_event(store)
        return store.create(Key(resource.plural, namespace if resource.namespaced else "", metadata["name"]), obj)

    async def update(self, key: Key, obj: JsonObject, *, subresource: str = "", dry_run: bool = False) -> JsonObject:
        """Replace an object, or only its status; the rest of what it sends is ignored, as in reality.

        Raises:
            ApiStatusError: 400, 404, 409, 422, or what a webhook answers.
        """
        resource = RESOURCES[key.resource]
        obj = decoded(resource, _typed(resource, obj))
        metadata = obj["metadata"]
        if metadata.get("name", key.name) != key.name:
            raise bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({key.name})"
            )
        present = self._store.get(key)
        version = metadata.get("resourceVersion", "")
        if resource.custom and not version:
            error = invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
            raise invalid(resource, key.name, [error])
        if version and version != present["metadata"]["resourceVersion"]:
            raise stale(key)
        if metadata.get("uid", present["metadata"]["uid"]) != present["metadata"]["uid"]:
            raise wrong_uid(key, wanted=metadata["uid"], actual=present["metadata"]["uid"])
        if subresource == "status":
            updated = {**present, "status": obj.get("status", {})}
            if "managedFields" in metadata:  # an apply keeps its record there
                kept = {**present["metadata"], "managedFields": metadata["managedFields"]}
                updated["metadata"] = kept
        else:
            updated = {k: v for k, v in obj.items() if not (resource.has_status and k == "status")}
            if resource.has_status and "status" in present:
                updated["status"] = present["status"]
            rules = rules_of(resource)
            metadata = {**updated["metadata"], "name": key.name, "uid": present["metadata"]["uid"]}
            updated = rules.complete({**updated, "metadata": metadata})
            updated = await self._admit(resource, updated, operation="UPDATE", old=present, dry_run=dry_run)
            errors = check_owners(updated["metadata"]) + rules.check(updated) + rules.check_update(updated, old=present)
            if errors:
                raise invalid(resource, key.name, errors)
        store = self._store.scratch() if dry_run else self._store
        return store.update(key, updated, expect_version=present["metadata"]["resourceVersion"])

    async def patch(
        self,
        key: Key,
        change: Callable[[JsonObject], JsonObject],
        *,
        subresource: str = "",
        dry_run: bool = False,
    ) -> JsonObject:
        """Apply a patch to the newest state; it conflicts only if it names a resourceVersion itself.

        Raises:
            ApiStatusError: as ``update``.
        """
        for attempt in range(_PATCH_ATTEMPTS):
            present = self._store.get(key)
            patched = change(present)
            if not isinstance(patched, dict) or not isinstance(patched.get("metadata"), dict):
                raise bad_request("error decoding patch: the result is not an object")
            version = present["metadata"]["resourceVersion"]
            is_pinned = patched["metadata"].get("resourceVersion") != version
            try:
                return await self.update(key, patched, subresource=subresource, dry_run=dry_run)
            except ApiStatusError as exc:
                # Somebody wrote while a webhook was asked: patch what they wrote.
                if exc.reason != "Conflict" or is_pinned or attempt == _PATCH_ATTEMPTS - 1:
                    raise
        raise stale(key)

    async def apply(
        self, key: Key, config: JsonObject, *, manager: str, subresource: str = "", dry_run: bool = False
    ) -> tuple[JsonObject, bool]:
        """Server-side apply: create or merge, and say whether it was created.

        What the manager named in its last apply and no longer names is removed. Conflicts with other managers are
        not detected: ``force`` is taken for granted.

        Raises:
            ApiStatusError: as ``create`` and ``update``.
        """
        resource = RESOURCES[key.resource]
        config = _typed(resource, config)
        name = config["metadata"].get("name", key.name)
        if name != key.name:
            raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({key.name})")
        schema = schema_of(resource.plural)
        content = {k: v for k, v in config.items() if k not in ("apiVersion", "kind")}
        content["metadata"] = {k: v for k, v in config["metadata"].items() if k not in ("name", "namespace")}
        record = {
            "manager": manager,
            "operation": "Apply",
            "apiVersion": resource.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": owned_fields({k: v for k, v in content.items() if v}, schema=schema),
        }
        if subresource:
            record["subresource"] = subresource

        def change(present: JsonObject) -> JsonObject:
            records = present["metadata"].get("managedFields", [])
            mine = [r for r in records if (r["manager"], r.get("subresource", "")) == (manager, subresource)]
            owned = mine[0]["fieldsV1"] if mine else {}
            applied = apply_owned(present, content, owned=owned, schema=schema)
            kept = [r for r in records if r not in mine]
            return {**applied, "metadata": {**applied["metadata"], "managedFields": [*kept, record]}}

        try:
            self._store.get(key)
        except ApiStatusError:
            if subresource:
                raise
            metadata = {**config["metadata"], "name": key.name, "managedFields": [record]}
            created = {**config, "metadata": metadata}
            return await self.create(resource, created, namespace=key.namespace, dry_run=dry_run), True
        return await self.patch(key, change, subresource=subresource, dry_run=dry_run), False

    def delete(
        self,
        key: Key,
        *,
        grace_seconds: int | None = None,
        uid: str = "",
        expect_version: str = "",
        orphan: bool = False,
        dry_run: bool = False,
    ) -> JsonObject:
        """Delete an object, or begin to (see ``deletion``), and return its last state.

        ``orphan`` leaves what belongs to it in peace: that belongs to nobody then.

        Raises:
            ApiStatusError: 403 for a namespace that stays, 404, or 409 if a precondition fails.
        """
        if key.resource == "namespaces" and key.name in FIRST_NAMESPACES:
            raise forbidden(key, "this namespace may not be deleted")
        store = self._store.scratch() if dry_run else self._store
        if orphan:
            release_dependents(store, store.get(key)["metadata"]["uid"])
        return store.delete(key, grace_seconds=grace_seconds, uid=uid, expect_version=expect_version)

    def bind(self, key: Key, binding: JsonObject, *, dry_run: bool = False) -> None:
        """Assign a pod to a node, and copy the Binding's annotations onto it in the same write.

        Raises:
            ApiStatusError: 400, 404 or 409, see ``binding``.
        """
        store = self._store.scratch() if dry_run else self._store
        bound = bound_pod(key, store.get(key), binding, time=timestamp(self._clock()))
        store.bind(key, bound)

    def evict(self, key: Key, eviction: JsonObject, *, dry_run: bool = False) -> None:
        """Begin to delete a pod if its disruption budget allows it, and use up one of the disruptions that it allows.

        Raises:
            ApiStatusError: 400, 404, 409, 429 or 500, see ``eviction``.
        """
        store = self._store.scratch() if dry_run else self._store
        uid, grace_seconds = check_eviction(key, eviction)
        pod = store.get(key)
        if uid and uid != pod["metadata"]["uid"]:
            raise wrong_uid(key, wanted=uid, actual=pod["metadata"]["uid"])
        budgets = store.list(PODDISRUPTIONBUDGETS.plural).values()
        after = budget_after(pod, budgets, time=timestamp(self._clock()))
        if after is not None:
            store.update(Key(PODDISRUPTIONBUDGETS.plural, key.namespace, after["metadata"]["name"]), after)
        store.delete(key, grace_seconds=grace_seconds)

    async def _admit(
        self, resource: Resource, obj: JsonObject, *, operation: Operation, old: JsonObject | None, dry_run: bool
    ) -> JsonObject:
        """Ask the webhooks; a pod's defaults are filled in before, and again for what their answers call for."""
        if resource is PODS:
            obj = default_pod(obj)
        admitted = await self._admission.admit(resource, obj, operation=operation, old=old, dry_run=dry_run)
        if admitted is obj:
            return obj
        admitted = decoded(resource, admitted)
        return default_pod(admitted) if resource is PODS else admitted

    def _make_room_for_event(self, store: Store) -> None:
        events = store.list("events")
        if len(events) >= MAX_EVENTS:
            store.delete(min(events, key=lambda key: int(events[key]["metadata"]["resourceVersion"])))


def _typed(resource: Resource, obj: Any) -> JsonObject:
    """Return ``obj`` with its apiVersion and kind, which a client may leave out but not get wrong."""
    if not isinstance(obj, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {resource.kind})")
    kind = obj.get("kind") or resource.kind
    version = obj.get("apiVersion") or resource.api_version
    if (kind, version) != (resource.kind, resource.api_version):
        raise bad_request(f'{kind} in version "{version}" cannot be handled as a {resource.kind}')
    metadata = obj.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise bad_request(f"{kind} cannot be handled as a {kind}: metadata is not an object")
    return {**obj, "kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}


def _write_token(version: int, last: Key) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([version, last.namespace, last.name])).decode()


def _read_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        version, namespace, name = msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[int, str, str])
    except (ValueError, msgspec.MsgspecError) as exc:
        raise bad_request(f"invalid continue token: continue key is not valid: {exc}") from exc
    return version, (namespace, name)
