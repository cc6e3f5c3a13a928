"""What the API server refuses in an object: pure checks that return every fault at once.

Names for all kinds, and for pods the containers and their resources. Most other fields of a pod are accepted as
they are: what cannot matter to sharing GPUs is not checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from fracgpu.errors import QuantityError
from fracgpu.quantities import parse_quantity
from playground.api import shapes
from playground.api.errors import FieldError, bad_request, invalid_value, required, unsupported_value
from playground.api.resources import Resource
from playground.cluster import JsonObject

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_HINT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    f"with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_SUBDOMAIN_HINT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    rf"'{_LABEL}(\.{_LABEL})*')"
)
_NATIVE = ("cpu", "memory", "ephemeral-storage")
_ENV_NAME = r"[ -<>-~]+"
_ENV_HINT = "a valid environment variable name must consist only of printable ASCII characters other than '='"
_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_MUTABLE_SPEC = ("containers", "initContainers", "activeDeadlineSeconds", "tolerations")


def decoded(resource: Resource, obj: JsonObject) -> JsonObject:
    """Return an object as it is stored (see ``shapes``): nothing may read it before.

    Raises:
        ApiStatusError: 400 for a list where a map belongs and the like, or a quantity that is none.
    """
    try:
        return shapes.decode(resource, obj)
    except (shapes.ShapeError, QuantityError) as exc:
        where = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
        raise bad_request(f"{where}: {exc}") from exc


def check_name(resource: Resource, metadata: JsonObject) -> list[FieldError]:
    """Check metadata.name, which must be set by now."""
    name = metadata.get("name", "")
    if not name:
        return [required("metadata.name", "name or generateName is required")]
    is_label = resource.plural == "namespaces"
    pattern, hint, limit = (_LABEL, _LABEL_HINT, 63) if is_label else (_SUBDOMAIN, _SUBDOMAIN_HINT, 253)
    if len(name) > limit:
        return [invalid_value("metadata.name", name, f"must be no more than {limit} bytes")]
    return [] if re.fullmatch(pattern, name) else [invalid_value("metadata.name", name, hint)]


def check_owners(metadata: JsonObject) -> list[FieldError]:
    """Check metadata.ownerReferences, for which a garbage collector has to find the owners."""
    field, errors = "metadata.ownerReferences", []
    for reference in metadata.get("ownerReferences", []):
        version = reference.get("apiVersion", "")
        if not re.fullmatch("([^/]*/)?[^/]+", version):
            errors.append(invalid_value(f"{field}.apiVersion", version, "version must not be empty"))
        errors += [
            invalid_value(f"{field}.{name}", "", "must not be empty")
            for name in ("kind", "name", "uid")
            if not reference.get(name)
        ]
    return errors


def check_pod(pod: JsonObject) -> list[FieldError]:
    """Check a pod, defaults filled in."""
    return check_pod_spec(pod["spec"], field="spec")


def check_pod_spec(spec: JsonObject, *, field: str) -> list[FieldError]:
    """Check a pod's spec, or that of a template, which stands at ``field``; defaults are filled in."""
    errors: list[FieldError] = []
    if not spec.get("containers"):
        errors.append(required(f"{field}.containers"))
    seen: set[str] = set()
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind, [])):
            errors += _check_container(container, field=f"{field}.{kind}[{index}]", seen=seen)
    if spec["restartPolicy"] not in _RESTART_POLICIES:
        errors.append(unsupported_value(f"{field}.restartPolicy", spec["restartPolicy"], _RESTART_POLICIES))
    for index, toleration in enumerate(spec.get("tolerations", [])):
        operator = toleration.get("operator", "")
        if not toleration.get("key") and operator != "Exists":
            hint = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            errors.append(invalid_value(f"{field}.tolerations[{index}].operator", operator, hint))
    return errors


def check_pod_update(new: JsonObject, *, old: JsonObject) -> list[FieldError]:
    """Check that an update of a bound or waiting pod leaves alone what may not change."""
    if _fixed(new["spec"]) == _fixed(old["spec"]):
        return []
    message = (
        "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
        "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
        "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
    )
    return [FieldError("spec", "FieldValueForbidden", message)]


def _check_container(container: JsonObject, *, field: str, seen: set[str]) -> Iterable[FieldError]:
    name = container.get("name", "")
    if not name:
        yield required(f"{field}.name")
    elif len(name) > 63 or not re.fullmatch(_LABEL, name):
        yield invalid_value(f"{field}.name", name, _LABEL_HINT)
    elif name in seen:
        yield FieldError(f"{field}.name", "FieldValueDuplicate", f'Duplicate value: "{name}"')
    seen.add(name)
    if not container.get("image"):
        yield required(f"{field}.image")
    for index, variable in enumerate(container.get("env", [])):
        if not variable["name"]:
            yield required(f"{field}.env[{index}].name")
        elif not re.fullmatch(_ENV_NAME, variable["name"]):
            yield invalid_value(f"{field}.env[{index}].name", variable["name"], _ENV_HINT)
    resources = container.get("resources", {})
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for kind, amounts in (("limits", limits), ("requests", requests)):
        for resource, text in amounts.items():
            yield from _check_amount(resource, text, field=f"{field}.resources.{kind}[{resource}]")
    yield from _check_requests(requests, limits, field=f"{field}.resources")


def _check_amount(resource: str, text: str, *, field: str) -> Iterable[FieldError]:
    amount = parse_quantity(text)
    if _is_huge_page(resource) or resource in _NATIVE:
        is_whole = True
    elif "/" not in resource:
        yield invalid_value(field, resource, "must be a standard resource type or fully qualified")
        yield invalid_value(field, resource, "must be a standard resource for containers")
        return
    else:
        is_whole = amount.denominator == 1
    if amount < 0:
        yield invalid_value(field, text, "must be greater than or equal to 0")
    elif not is_whole:
        yield invalid_value(field, text, "must be an integer")


def _check_requests(requests: Mapping[str, str], limits: Mapping[str, str], *, field: str) -> Iterable[FieldError]:
    for resource, text in requests.items():
        can_overcommit = resource in _NATIVE
        if resource not in limits:
            if not can_overcommit:
                yield required(f"{field}.limits", "Limit must be set for non overcommitable resources")
            continue
        limit, request = parse_quantity(limits[resource]), parse_quantity(text)
        if not can_overcommit and request != limit:
            hint = f"must be equal to {resource} limit of {limits[resource]}"
        elif request > limit:
            hint = f"must be less than or equal to {resource} limit of {limits[resource]}"
        else:
            continue
        yield invalid_value(f"{field}.requests", text, hint)


def _is_huge_page(resource: str) -> bool:
    return resource.startswith("hugepages-")


def _fixed(spec: JsonObject) -> JsonObject:
    """The part of a pod's spec that no update may change."""
    fixed = {name: value for name, value in spec.items() if name not in _MUTABLE_SPEC}
    for kind in ("containers", "initContainers"):
        fixed[kind] = [
            {name: value for name, value in container.items() if name not in ("image", "imagePullPolicy")}
            for container in spec.get(kind, [])
        ]
    return fixed
