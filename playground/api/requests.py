"""What stands in a request beside its path: query parameters and bodies, read and refused as kube-apiserver does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import yaml
from fastapi import Request

from playground.api import errors, patches, protobuf
from playground.api.resources import Resource
from playground.api.schemas import schema_of, unknown_fields
from playground.api.strategic import strategic_merge_patch
from playground.api.warnings import warn
from playground.cluster import ApiStatusError, JsonObject

JSON_PATCH = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

Change = Callable[[JsonObject], JsonObject]


def int_parameter(request: Request, name: str) -> int | None:
    """A whole number of the query; None where it is not given."""
    text = request.query_params.get(name, "")
    if not text:
        return None
    if not text.isdecimal():
        raise errors.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def version_parameter(request: Request) -> int:
    """The resourceVersion of the query; 0 where it is not given."""
    text = request.query_params.get("resourceVersion", "") or "0"
    if not text.isdecimal():
        message = f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise ApiStatusError(500, "", message)  # as kube-apiserver, which calls it its own fault
    return int(text)


def is_dry_run(request: Request) -> bool:
    """Whether nothing is to be stored."""
    value = request.query_params.get("dryRun", "")
    if value not in ("", "All"):
        raise errors.bad_request(f'dryRun: Unsupported value: "{value}": supported values: "All"')
    return value == "All"


def decode(body: bytes, resource: Resource, *, kind: str = "") -> JsonObject:
    """Read an object of a resource, or of another kind that is posted to it."""
    if body.startswith(protobuf.PREFIX):
        return protobuf.decode(body, kind or resource.kind)
    try:
        return msgspec.json.decode(body, type=JsonObject)
    except (msgspec.MsgspecError, RecursionError) as exc:
        message = f"the object provided is unrecognized (must be of type {resource.kind}): json parse error: {exc}"
        raise errors.bad_request(message) from exc


def decode_applied(body: bytes, resource: Resource) -> JsonObject:
    """Read the configuration of a server-side apply; a field that a core kind does not have is refused."""
    config = _decode_yaml(body, resource)
    unknown = [] if resource.custom else unknown_fields(resource, config)
    if unknown:
        name = (config.get("metadata") or {}).get("name", "")
        kind = f"{resource.group}/{resource.version}, Kind={resource.kind}"
        why = f".{unknown[0]}: field not declared in schema"
        raise ApiStatusError(500, "", f"failed to create typed patch object (/{name}; {kind}): {why}")
    return config


def check_fields(request: Request, obj: JsonObject, resource: Resource) -> None:
    """Refuse, or warn of, the fields that a kind does not have, as ``fieldValidation`` says.

    Raises:
        ApiStatusError: 400 for such a field, or a value that the parameter cannot have.
    """
    unknown = _unknown(request, obj, resource)
    if unknown and request.query_params.get("fieldValidation") == "Strict":
        where = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
        raise errors.bad_request(f"{where}: strict decoding error: {', '.join(unknown)}")
    for text in unknown:
        warn(text)


def read_patch(request: Request, body: bytes, resource: Resource) -> Change:
    """Read a patch of one of the three formats that are not server-side apply.

    Raises:
        ApiStatusError: 415 for another format, 400 for one that cannot be read; the change itself raises 422 for a
            field that the kind does not have.
    """
    media_type = content_type(request)
    formats: Mapping[str, Callable[[JsonObject, Any], JsonObject]] = {
        JSON_PATCH: patches.json_patch,
        MERGE: patches.merge_patch,
        STRATEGIC: lambda obj, patch: strategic_merge_patch(obj, patch, schema=schema_of(resource.plural)),
    }
    accepted = [kind for kind in formats if not (resource.custom and kind == STRATEGIC)]
    if media_type not in accepted:
        raise errors.unsupported_media_type([*accepted, APPLY])
    apply, patch = formats[media_type], _decode_patch(body, media_type)

    def change(obj: JsonObject) -> JsonObject:
        patched = apply(obj, patch)
        _check_patched(request, patched, before=obj, patch=patch, resource=resource)
        return patched

    return change


def content_type(request: Request) -> str:
    """The media type of the body."""
    return request.headers.get("content-type", "").partition(";")[0].strip()


def _check_patched(
    request: Request, patched: JsonObject, *, before: JsonObject, patch: Any, resource: Resource
) -> None:
    known = _unknown(request, before, resource)
    unknown = [text for text in _unknown(request, patched, resource) if text not in known]
    if unknown and request.query_params.get("fieldValidation") == "Strict":
        value = json.dumps(patch, separators=(",", ":"))
        error = errors.invalid_value("patch", value, f"strict decoding error: {', '.join(unknown)}")
        message = f' "" is invalid: {error.field}: {error.message}'
        raise ApiStatusError(422, "Invalid", message, details={"causes": [error._asdict()]})
    for text in unknown:
        warn(text)


def _unknown(request: Request, obj: JsonObject, resource: Resource) -> list[str]:
    # Without the parameter a real server warns: those who do not know it do not read warnings either.
    mode = request.query_params.get("fieldValidation", "Ignore")
    if mode not in ("Ignore", "Warn", "Strict"):
        allowed = '"Ignore", "Strict", "Warn"'
        raise errors.bad_request(f'fieldValidation: Unsupported value: "{mode}": supported values: {allowed}')
    if mode == "Ignore" or not isinstance(obj, dict):
        return []
    return [f'unknown field "{path}"' for path in unknown_fields(resource, obj)]


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
    expected = list if media_type == JSON_PATCH else dict
    try:
        patch = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise errors.bad_request(f"error decoding patch: {exc}") from exc
    if not isinstance(patch, expected):
        raise errors.bad_request(f"error decoding patch: it is no {expected.__name__}")
    return patch
