"""The refusals of the API server, worded as kube-apiserver 1.36 words them: one function per kind of refusal.

Each returns an ``ApiStatusError`` for the caller to raise; ``status_body`` is its form on the wire. The wording
matters where a client reads it (a bind conflict) and helps a reader of a demo everywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from playground.api.resources import RESOURCES, Key, Resource
from playground.cluster import ApiStatusError, JsonObject


class FieldError(NamedTuple):
    """One thing wrong with one field: ``reason`` as in metav1.StatusCause, such as "FieldValueInvalid"."""

    field: str
    reason: str
    message: str


def required(field: str, hint: str = "") -> FieldError:
    """A field that must be given."""
    return FieldError(field, "FieldValueRequired", f"Required value{': ' if hint else ''}{hint}")


def invalid_value(field: str, value: object, hint: str) -> FieldError:
    """A field with a value that cannot be accepted."""
    shown = f'"{value}"' if isinstance(value, str) else msgspec.json.encode(value).decode()
    return FieldError(field, "FieldValueInvalid", f"Invalid value: {shown}: {hint}")


def unsupported_value(field: str, value: str, supported: Sequence[str]) -> FieldError:
    """A field with a value that is none of those that it can have."""
    shown = ", ".join(f'"{choice}"' for choice in supported)
    return FieldError(field, "FieldValueNotSupported", f'Unsupported value: "{value}": supported values: {shown}')


def not_found(key: Key) -> ApiStatusError:
    """There is no such object."""
    resource = RESOURCES[key.resource]
    return ApiStatusError(
        404, "NotFound", f'{resource.qualified} "{key.name}" not found', details=_details(resource, key.name)
    )


def already_exists(key: Key) -> ApiStatusError:
    """An object of that name is there."""
    resource = RESOURCES[key.resource]
    message = f'{resource.qualified} "{key.name}" already exists'
    return ApiStatusError(409, "AlreadyExists", message, details=_details(resource, key.name))


def conflict(key: Key, why: str, *, subresource: str = "") -> ApiStatusError:
    """The object is not in the state that the request relies on."""
    resource = RESOURCES[key.resource]
    what = f"{resource.qualified}/{subresource}" if subresource else resource.qualified
    return ApiStatusError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {what} "{key.name}": {why}',
        details={**_details(resource, key.name), "kind": f"{resource.plural}/{subresource}".rstrip("/")},
    )


def stale(key: Key) -> ApiStatusError:
    """The object has changed since the version that the request names."""
    return conflict(
        key,
        "the object has been modified; please apply your changes to the latest version and try again",
    )


def wrong_uid(key: Key, *, wanted: str, actual: str) -> ApiStatusError:
    """The object of that name is another one than the request means."""
    return conflict(key, f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}")


def invalid(resource: Resource, name: str, errors: Sequence[FieldError]) -> ApiStatusError:
    """The object breaks the rules of its kind."""
    texts = [f"{error.field}: {error.message}" for error in errors]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    causes = [error._asdict() for error in errors]
    details = {**_details(resource, name), "kind": resource.kind, "causes": causes}
    return ApiStatusError(422, "Invalid", f'{kind} "{name}" is invalid: {text}', details=details)


def bad_request(message: str) -> ApiStatusError:
    """The request itself makes no sense."""
    return ApiStatusError(400, "BadRequest", message)


def forbidden(key: Key, why: str) -> ApiStatusError:
    """Nobody may do that to this object."""
    resource = RESOURCES[key.resource]
    message = f'{resource.qualified} "{key.name}" is forbidden: {why}'
    return ApiStatusError(403, "Forbidden", message, details=_details(resource, key.name))


def expired(message: str) -> ApiStatusError:
    """What the request refers to is no longer kept: the client has to list again."""
    return ApiStatusError(410, "Expired", message)


def unsupported_media_type(accepted: Sequence[str]) -> ApiStatusError:
    """The body is in none of the accepted formats."""
    return ApiStatusError(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted),
    )


def no_such_resource() -> ApiStatusError:
    """The path names nothing that is served."""
    return ApiStatusError(404, "NotFound", "the server could not find the requested resource")


def not_json() -> ApiStatusError:
    """The body is protobuf, which some commands of kubectl send for core kinds."""
    return ApiStatusError(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: application/json; the "
        "playground does not read the protobuf that this command sends: write a manifest, for example with "
        "--dry-run=client -o yaml, and use kubectl apply -f",
    )


def method_not_allowed() -> ApiStatusError:
    """The endpoint does not have that verb."""
    message = "the server does not allow this method on the requested resource"
    return ApiStatusError(405, "MethodNotAllowed", message)


def internal(message: str) -> ApiStatusError:
    """The server, or something that it depends on, failed."""
    return ApiStatusError(500, "InternalError", f"Internal error occurred: {message}")


def status_body(error: ApiStatusError) -> JsonObject:
    """The ``metav1.Status`` of a refusal."""
    body: JsonObject = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        "code": error.code,
    }
    if error.reason:
        body["reason"] = error.reason
    if error.details:
        body["details"] = error.details
    return body


def _details(resource: Resource, name: str) -> JsonObject:
    details = {"name": name, "kind": resource.plural}
    return {**details, "group": resource.group} if resource.group else details
