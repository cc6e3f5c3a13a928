"""The settings that may differ between namespaces, as flags for all of them and as entries of the file for some."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fracgpu.annotations import MAX_GPUS, Written, parse_fraction, parse_memory
from fracgpu.errors import RequestError, SettingError
from fracgpu.names import ANNOTATION_GPU_FRACTION, ANNOTATION_GPU_MEMORY
from fracgpu.process.configfile import shown
from fracgpu.process.settings import file_key
from webhook.policy import NamespaceRules, Rules
from webhook.seats import whole_seats

_DEFAULTS: Final = ("default_gpu_memory", "default_gpu_fraction")


class RuleSettings(BaseModel):
    """What holds in a namespace."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True)

    nvidia_gpu: Literal["leave", "seat", "whole"] = "leave"
    """What becomes of pods that ask for nvidia.com/gpu: N: they are left alone, get one seat on each of N GPUs, or N
    whole GPUs."""

    default_gpu_memory: str = ""
    """What a pod gets on each GPU that says something about its GPU and not how much of it, for example 4Gi; without
    such a default it is refused."""

    default_gpu_fraction: str = ""
    """The same as a fraction, for example 0.25; only one of the two can be set."""

    max_gpu_memory: str = ""
    """The most memory that a container may ask of one GPU, for example 40Gi."""

    max_gpu_fraction: str = ""
    """The largest part of one GPU that a container may ask for by fraction or seats, for example 0.5."""

    max_gpu_count: int | None = Field(None, ge=1, le=MAX_GPUS)
    """The most GPUs that a pod may have."""

    @field_validator("default_gpu_memory", "max_gpu_memory")
    @classmethod
    def _check_memory(cls, text: str) -> str:
        _check(text, ANNOTATION_GPU_MEMORY, 'a size such as "4Gi", from 1Mi to 16Ti')
        return text

    @field_validator("default_gpu_fraction", "max_gpu_fraction", mode="before")
    @classmethod
    def _check_fraction(cls, value: object) -> object:
        text = str(value) if isinstance(value, int | float) else value  # YAML's 0.5 is a number
        if isinstance(text, str):
            _check(text, ANNOTATION_GPU_FRACTION, 'a number above 0 and at most 1, for example "0.5"')
        return text


class _Entry(RuleSettings):
    """What the file says of some namespaces."""

    model_config = ConfigDict(extra="forbid")

    namespaces: tuple[str, ...] = Field(min_length=1)


def rules_of(settings: RuleSettings, *, replicas: int) -> Rules:
    """What holds where nothing else does.

    Raises:
        SettingError: the settings contradict each other.
    """
    _check_defaults(settings, replicas=replicas, at="")
    values: dict[str, Any] = {name: _as_rule(name, getattr(settings, name)) for name in RuleSettings.model_fields}
    rules = Rules(**values)
    check_consistent(rules, replicas=replicas, where="the settings for all namespaces")
    return rules


def check_consistent(rules: Rules, *, replicas: int, where: str) -> None:
    """Check that what holds in a namespace can be met.

    Args:
        rules: all of it.
        replicas: the seats of a GPU.
        where: the namespaces, for the sentence.

    Raises:
        SettingError: a maximum leaves nothing, or the default is above it.
    """
    if rules.max_gpu_fraction is not None and rules.max_gpu_fraction * replicas < 1:
        raise SettingError(f"maxGpuFraction in {where} is less than one of the {replicas} seats of a GPU")
    if rules.default_gpu_memory and rules.max_gpu_memory is not None:
        default = parse_memory(Written(ANNOTATION_GPU_MEMORY, rules.default_gpu_memory))
        if default > rules.max_gpu_memory:
            raise SettingError(f"defaultGpuMemory in {where} ({rules.default_gpu_memory}) is more than maxGpuMemory")
    if rules.default_gpu_fraction and rules.max_gpu_fraction is not None:
        part = parse_fraction(Written(ANNOTATION_GPU_FRACTION, rules.default_gpu_fraction))
        if part > rules.max_gpu_fraction:
            raise SettingError(
                f"defaultGpuFraction in {where} ({rules.default_gpu_fraction}) is more than maxGpuFraction"
            )


def namespace_rules(found: object, *, replicas: int) -> tuple[NamespaceRules, ...]:
    """What the file says under `namespaces`: a list of entries.

    Raises:
        SettingError: it cannot be read; the sentence does not name the file.
    """
    if not isinstance(found, list):
        raise SettingError(f"namespaces is {shown(found)}; it is a list of entries, each with namespaces and rules")
    return tuple(_read_entry(entry, at=f"namespaces[{index}]", replicas=replicas) for index, entry in enumerate(found))


def _read_entry(entry: object, *, at: str, replicas: int) -> NamespaceRules:
    if not isinstance(entry, dict):
        raise SettingError(f"{at} is {shown(entry)}; it is an entry with namespaces and rules, a mapping")
    names = {file_key(name).lower(): name for name in _Entry.model_fields}
    values: dict[str, Any] = {}
    for key, value in entry.items():
        name = names.get(str(key).lower())
        if name is None:
            raise SettingError(
                f"{at} has an unknown key {shown(key)}; known are {', '.join(map(file_key, names.values()))}"
            )
        values[name] = [value] if name == "namespaces" and isinstance(value, str) else value
    try:
        read = _Entry(**values)
    except ValidationError as exc:
        problem = exc.errors(include_url=False)[0]
        place = file_key(str(problem["loc"][0])) if problem["loc"] else "it"
        raise SettingError(
            f"{at}.{place} is {shown(problem['input'])}; {problem['msg'].removeprefix('Value error, ')}"
        ) from exc
    _check_defaults(read, replicas=replicas, at=f"{at}.")
    said = read.model_fields_set - {"namespaces"}
    if said & set(_DEFAULTS):
        said |= set(_DEFAULTS)  # one default takes the place of the other
    return NamespaceRules(read.namespaces, {name: _as_rule(name, getattr(read, name)) for name in said})


def _check_defaults(settings: RuleSettings, *, replicas: int, at: str) -> None:
    memory, fraction = settings.default_gpu_memory, settings.default_gpu_fraction
    if memory and fraction:
        raise SettingError(
            f"{at}defaultGpuMemory ({memory!r}) and {at}defaultGpuFraction ({fraction!r}) are both set; keep one"
        )
    if fraction:
        subject = f"{at}defaultGpuFraction is {fraction!r}"
        try:
            whole_seats(parse_fraction(Written("", fraction)), replicas=replicas, subject=subject)
        except RequestError as exc:
            raise SettingError(str(exc)) from exc


def _as_rule(name: str, value: object) -> object:
    """A setting as decisions want it: a maximum as a number, None where there is none."""
    if name == "max_gpu_memory":
        return parse_memory(Written(ANNOTATION_GPU_MEMORY, str(value))) if value else None
    if name == "max_gpu_fraction":
        return parse_fraction(Written(ANNOTATION_GPU_FRACTION, str(value))) if value else None
    return value


def _check(text: str, annotation: str, allowed: str) -> None:
    if not text:
        return
    parse = parse_memory if annotation == ANNOTATION_GPU_MEMORY else parse_fraction
    try:
        parse(Written(annotation, text))
    except RequestError:
        raise ValueError(f"it must be {allowed}") from None
