"""Settings of a service: command line flags, environment variables and perhaps a file, checked together.

A service lists its settings as fields of a subclass of `ServiceSettings`, with a docstring under each that says unit,
meaning and reason; flags (``--redis-url``), variables (``FRACGPU_REDIS_URL``) and ``--help`` follow from them. Fields
are plain values (text, numbers, booleans, paths, choices) or tuples of those, which are written with commas between
them, or with the flag repeated.

A class with a field `config_file` also reads the file that it names, with keys in camelCase (``redisUrl``). A flag wins
over its variable, that over the file, and the file over the default.
"""

import argparse
import difflib
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, Self, get_origin

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from fracgpu.errors import SettingError
from fracgpu.process.configfile import parse_config, read_config, shown
from fracgpu.process.logs import LogFormat

ENV_PREFIX: Final = "FRACGPU_"
_SHOWN_LENGTH: Final = 80
_LOGIN: Final = re.compile(r"([\w+.-]+:)\S*@")  # in a URL
_HIDDEN: Final = r"\1...@"  # what is shown of it
_SPELLED: Final = {"mib": "MiB", "id": "ID"}  # word in a name -> how a file spells it, as NVIDIA's and Kubernetes' do

_ALLOWED: Final = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text (in quotes, where it looks like a number)",
    "path_type": "a path",
    "tuple_type": "a list",
    "too_short": "a list of at least {min_length}",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_short": "at least {min_length} characters long",
    "string_too_long": "at most {max_length} characters long",
}  # type of a validation error -> what is allowed instead, filled in from the error's context


class ServiceSettings(BaseModel):
    """What every service process can be told."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important events that are logged."""

    log_format: LogFormat = "auto"
    """How they are written to stderr: json, one object a line; text, for people; or auto, text where that is a terminal
    and json elsewhere."""

    otlp_endpoint: str = ""
    """Where to send traces: the http or https URL of an OpenTelemetry receiver (OTLP over HTTP), such as
    http://otel-collector:4318. Empty sends none. Needs the extra: pip install '.[otel]' in the repository."""

    ready_file: Path | None = None
    """A file to write, in one step, once the service is serving: {"url": ...}. Tells which port was taken for port 0;
    remove a file of an earlier run before the start."""

    exit_with_parent: int = 0
    """The process ID of our parent: when it ends, however it ends, this process is killed. Linux only; 0 for never."""

    @field_validator("*", mode="before")
    @classmethod
    def _split(cls, value: object, info: ValidationInfo) -> object:
        """Take apart what was written with commas."""
        if isinstance(value, str) and info.field_name and _is_list(cls.model_fields[info.field_name]):
            return _parts([value])
        return value

    @classmethod
    def load(
        cls,
        argv: Sequence[str],
        *,
        read: Callable[[Path], Mapping[str, Any]] | None = None,
        not_in_file: Collection[str] = (),
    ) -> Self:
        """Read flags, environment and, where the class has a `config_file` and one is named, that file.

        Args:
            argv: the command line without the program's name.
            read: reads that file: key in camelCase -> value. For a service whose file holds more than its settings.
            not_in_file: names of settings that have no place in that file.

        Raises:
            SettingError: one line for each setting that is missing or unusable.
            SystemExit: after ``--help``.
        """
        given = _environment(cls) | vars(_parser(cls).parse_args(argv))
        written: dict[str, tuple[str, Any]] = {}
        file = Path(given["config_file"]) if "config_file" in cls.model_fields and given.get("config_file") else None
        if file is not None:
            names = cls.model_fields.keys() - {"config_file", *not_in_file}
            written = _by_name(cls, (read or _read)(file), file=file, names=names)
        from_file = {name: value for name, (_, value) in written.items() if name not in given}
        values: dict[str, Any] = {
            name: _parts(value) if isinstance(value, list) and name not in from_file else value
            for name, value in (from_file | given).items()
        }
        try:
            return cls(**values)
        except ValidationError as exc:
            problems = exc.errors(include_url=False)
        places = {name: f"{written[name][0]} in {file}" for name in from_file}
        raise SettingError("\n".join(_sentence(cls, problem, places=places) for problem in problems))


def file_key(name: str) -> str:
    """What a setting is called in a file: ``memory_unit_mib`` is memoryUnitMiB."""
    first, *others = name.split("_")
    return first + "".join(_SPELLED.get(word, word.capitalize()) for word in others)


def _environment(settings: type[ServiceSettings]) -> dict[str, str]:
    """The settings that have a variable; an empty one is none."""
    return {name: text for name in settings.model_fields if (text := os.environ.get(_variable(name)))}


def _read(file: Path) -> dict[str, Any]:
    content = read_config(file)
    try:
        return parse_config(content)
    except SettingError as exc:
        raise SettingError(f"{file} cannot be used: {exc}") from exc


def _by_name(
    settings: type[ServiceSettings], document: Mapping[str, Any], *, file: Path, names: Collection[str]
) -> dict[str, tuple[str, Any]]:
    """What a file says: name of a setting -> the key as it was written, and the value."""
    named = {file_key(name).lower(): name for name in names}
    found: dict[str, tuple[str, Any]] = {}
    for key, value in document.items():
        name = named.get(key.lower())
        if name is None:
            raise SettingError(f"{file} has {_unknown(key, tuple(map(file_key, names)))}")
        if name in found:
            raise SettingError(f"{file} says both {found[name][0]} and {key}; keep one of them")
        if value is None:
            continue  # a key without a value: not set
        if _is_list(settings.model_fields[name]) and not isinstance(value, list):
            value = [value]
        found[name] = key, value
    return found


def _unknown(key: str, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(key.lower(), [name.lower() for name in allowed], n=1)
    hint = next((f"; did you mean {name}?" for name in allowed if near and name.lower() == near[0]), "")
    return f"an unknown key {key[:_SHOWN_LENGTH]!r}{hint or ';'} settings are {', '.join(sorted(allowed))}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # The complaint repeats what it does not know, such as a mistyped flag with a URL: its login is left out.
        raise SettingError(f"{_LOGIN.sub(_HIDDEN, message)}; --help lists all settings")


def _parser(settings: type[ServiceSettings]) -> argparse.ArgumentParser:
    service = settings.__module__.partition(".")[0]
    parser = _Parser(prog=f"python -m {service}", description=settings.__doc__, allow_abbrev=False)
    for name, field in settings.model_fields.items():
        arguments: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": _help(name, field)}
        if field.annotation is bool:
            # --name, --name=true or =false as Go's flags have it, and --no-name
            parser.add_argument(
                f"--no-{name.replace('_', '-')}",
                dest=name,
                action="store_const",
                const="false",
                default=argparse.SUPPRESS,
                help=argparse.SUPPRESS,
            )
            arguments |= {"nargs": "?", "const": "true", "metavar": "true|false"}
        else:
            if _is_list(field):
                arguments["action"] = "append"
            arguments["metavar"] = name.rpartition("_")[2].upper()
        parser.add_argument(_flag(name), **arguments)
    return parser


def _help(name: str, field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        default = "required"
    else:
        value = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        default = "not set by default" if value in (None, "") else f"default: {value}"
    description = " ".join((field.description or "").split())
    return f"{description} ({default}; environment: {_variable(name)})".replace("%", "%%")


def _sentence(settings: type[ServiceSettings], problem: ErrorDetails, *, places: Mapping[str, str]) -> str:
    """Say what is wrong with a setting, for the person who set it; `places` is name -> where, if not by flag."""
    context = problem.get("ctx", {})
    allowed = _ALLOWED.get(problem["type"], "").format_map(context)
    complaint = str(context["error"]) if "error" in context else problem["msg"]
    if not problem["loc"]:
        return complaint
    name = str(problem["loc"][0])
    subject = places.get(name, f"{_flag(name)} (environment: {_variable(name)})")
    field = settings.model_fields[name]
    if problem["type"] == "missing":
        return f"{subject} is missing: {' '.join((field.description or '').split())}"
    found = "not usable" if field.annotation is SecretStr else shown(problem["input"])
    verb = "has" if len(problem["loc"]) > 1 else "is"  # an element of a list, or the value itself
    return f"{subject} {verb} {found}; {f'it must be {allowed}' if allowed else complaint}"


def _is_list(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is tuple


def _parts(texts: Sequence[str]) -> list[str]:
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _variable(name: str) -> str:
    return f"{ENV_PREFIX}{name.upper()}"
