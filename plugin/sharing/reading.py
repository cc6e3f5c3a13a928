"""A SharingSpec as an administrator wrote it in a file: checked as the API server checks a SharingPolicy. Pure.

Every sentence names the place (``sharing[0].gpus[1].replicas``), what was found there and what is allowed.
"""

import difflib
from collections.abc import Collection, Mapping
from typing import Any, Final, cast, get_args

from fracgpu.errors import SettingError
from fracgpu.process.configfile import shown
from fracgpu.quantities import MAX_MEMORY_UNIT, Mib
from fracgpu.requests import MAX_SEATS
from fracgpu.sharing import GpuRule, IsolationChoice, LabelRequirement, LabelSelector, SharingSpec

MAX_RULES: Final = 64
"""Rules for GPUs in one spec, and specs in one file."""
MAX_RESERVED: Final = 2**24

_OPERATORS: Final = ("In", "NotIn", "Exists", "DoesNotExist")
_MAX_TERMS: Final = 64
_MAX_TEXT: Final = 317  # the longest key of a label


def read_specs(value: object, *, at: str) -> tuple[SharingSpec, ...]:
    """Read a list of specs; `at` is where it stands.

    Raises:
        SettingError: something in it is not allowed.
    """
    return tuple(
        read_spec(item, at=f"{at}[{place}]") for place, item in enumerate(read_list(value, at=at, limit=MAX_RULES))
    )


def read_spec(value: object, *, at: str) -> SharingSpec:
    """Read one spec; `at` is where it stands.

    Raises:
        SettingError: something in it is not allowed.
    """
    names = ("nodeSelector", "replicas", "reservedMiB", "isolation", "memoryUnitMiB", "gpus")
    found = read_mapping(value, at=at, allowed=names)
    return SharingSpec(
        node_selector=_selector(found["nodeSelector"], at=f"{at}.nodeSelector") if "nodeSelector" in found else None,
        replicas=_number(found, "replicas", at=at, low=1, high=MAX_SEATS),
        reserved=_mib(found, "reservedMiB", at=at, low=0, high=MAX_RESERVED),
        isolation=cast(IsolationChoice | None, _choice(found, "isolation", at=at, allowed=get_args(IsolationChoice))),
        memory_unit=_mib(found, "memoryUnitMiB", at=at, low=1, high=MAX_MEMORY_UNIT),
        gpus=tuple(
            _rule(item, at=f"{at}.gpus[{place}]")
            for place, item in enumerate(read_list(found.get("gpus", []), at=f"{at}.gpus", limit=MAX_RULES))
        ),
    )


def read_mapping(value: object, *, at: str, allowed: Collection[str]) -> dict[str, Any]:
    """Read a mapping that has only these keys; a key without a value is not set.

    Raises:
        SettingError: it is something else, or has another key.
    """
    if not isinstance(value, dict):
        raise SettingError(f"{at} is {shown(value)}; it must be a mapping with any of {', '.join(allowed)}")
    for key in value:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, n=1)
            hint = f"; did you mean {near[0]}?" if near else ";"
            raise SettingError(f"{at} has an unknown key {shown(key)}{hint} it may have {', '.join(allowed)}")
    return {key: item for key, item in value.items() if item is not None}


def read_list(value: object, *, at: str, limit: int) -> list[Any]:
    """Read a list of at most `limit` values.

    Raises:
        SettingError: it is something else, or longer.
    """
    if not isinstance(value, list) or len(value) > limit:
        found = f"a list of {len(value)}" if isinstance(value, list) else shown(value)
        raise SettingError(f"{at} is {found}; it must be a list of at most {limit}")
    return value


def read_number(value: object, *, at: str, low: int, high: int) -> int:
    """Read a whole number within bounds.

    Raises:
        SettingError: it is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise SettingError(f"{at} is {shown(value)}; it must be a whole number from {low} to {high}")
    return value


def _rule(value: object, *, at: str) -> GpuRule:
    found = read_mapping(value, at=at, allowed=("model", "uuid", "replicas", "reservedMiB", "excluded"))
    if ("model" in found) == ("uuid" in found):
        raise SettingError(f"{at} has {'both' if 'model' in found else 'neither'} model and uuid; it must have one")
    if not found.keys() & {"replicas", "reservedMiB", "excluded"}:
        raise SettingError(f"{at} sets nothing; it must have replicas, reservedMiB or excluded")
    uuid = _text(found.get("uuid", ""), at=f"{at}.uuid") if "uuid" in found else ""
    if uuid and not uuid.startswith(("GPU-", "MIG-")):
        raise SettingError(f"{at}.uuid is {shown(uuid)}; it must begin with GPU- or MIG-, as nvidia-smi -L shows it")
    excluded = found.get("excluded")
    if excluded is not None and not isinstance(excluded, bool):
        raise SettingError(f"{at}.excluded is {shown(excluded)}; it must be true or false")
    return GpuRule(
        model=_text(found["model"], at=f"{at}.model") if "model" in found else "",
        uuid=uuid,
        replicas=_number(found, "replicas", at=at, low=1, high=MAX_SEATS),
        reserved=_mib(found, "reservedMiB", at=at, low=0, high=MAX_RESERVED),
        excluded=excluded,
    )


def _selector(value: object, *, at: str) -> LabelSelector:
    found = read_mapping(value, at=at, allowed=("matchLabels", "matchExpressions"))
    labels = found.get("matchLabels", {})
    if not isinstance(labels, dict) or not all(isinstance(text, str) for pair in labels.items() for text in pair):
        raise SettingError(
            f"{at}.matchLabels is {shown(labels)}; it must have labels and their values, in quotes where they look "
            'like something else, for example pool: "1"'
        )
    expressions = read_list(found.get("matchExpressions", []), at=f"{at}.matchExpressions", limit=_MAX_TERMS)
    return LabelSelector(
        match_labels=labels,
        match_expressions=tuple(
            _requirement(item, at=f"{at}.matchExpressions[{place}]") for place, item in enumerate(expressions)
        ),
    )


def _requirement(value: object, *, at: str) -> LabelRequirement:
    found = read_mapping(value, at=at, allowed=("key", "operator", "values"))
    operator = _choice(found, "operator", at=at, allowed=_OPERATORS)
    values = read_list(found.get("values", []), at=f"{at}.values", limit=_MAX_TERMS)
    if operator is None or "key" not in found:
        raise SettingError(f"{at} is {shown(value)}; it must have a key and an operator")
    if bool(values) != (operator in ("In", "NotIn")):
        raise SettingError(
            f"{at}.values is {shown(values)}; the operators In and NotIn need values, Exists and DoesNotExist take none"
        )
    if not all(isinstance(item, str) for item in values):
        raise SettingError(f"{at}.values is {shown(values)}; they must be text, in quotes where they look like numbers")
    # _choice has seen that it is one of the operators
    return LabelRequirement(_text(found["key"], at=f"{at}.key"), operator, tuple(values))  # type: ignore[arg-type]


def _number(found: Mapping[str, Any], key: str, *, at: str, low: int, high: int) -> int | None:
    return read_number(found[key], at=f"{at}.{key}", low=low, high=high) if key in found else None


def _mib(found: Mapping[str, Any], key: str, *, at: str, low: int, high: int) -> Mib | None:
    number = _number(found, key, at=at, low=low, high=high)
    return None if number is None else Mib(number)


def _choice(found: Mapping[str, Any], key: str, *, at: str, allowed: Collection[str]) -> str | None:
    value = found.get(key)
    if value is not None and value not in allowed:
        raise SettingError(f"{at}.{key} is {shown(value)}; it must be one of {', '.join(allowed)}")
    return value


def _text(value: object, *, at: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_TEXT:
        raise SettingError(f"{at} is {shown(value)}; it must be text of 1 to {_MAX_TEXT} characters")
    return value
