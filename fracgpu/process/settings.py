"""Settings of a service: command line flags and environment variables, checked once, at start.

A service lists its settings as fields of a subclass of `ServiceSettings`, with a docstring under each that says unit,
meaning and reason; flags (``--redis-url``), variables (``FRACGPU_REDIS_URL``) and ``--help`` follow from them. A flag
wins over its variable. Fields are plain values (text, numbers, booleans, paths, choices). Left out: files of settings.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, Self

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined
from pydantic_settings import BaseSettings, SettingsConfigDict

from fracgpu.errors import SettingError

ENV_PREFIX: Final = "FRACGPU_"
_SHOWN_LENGTH: Final = 80

_ALLOWED: Final = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
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


class ServiceSettings(BaseSettings):
    """What every service process can be told."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, use_attribute_docstrings=True, frozen=True, extra="ignore"
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important events that are logged."""

    ready_file: Path | None = None
    """A file to write, in one step, once the service is serving: {"url": ...}. Tells which port was taken for port 0;
    remove a file of an earlier run before the start."""

    exit_with_parent: int = 0
    """The process ID of our parent: when it ends, however it ends, this process is killed. Linux only; 0 for never."""

    @classmethod
    def load(cls, argv: Sequence[str]) -> Self:
        """Read flags and environment.

        Args:
            argv: the command line without the program's name.

        Raises:
            SettingError: one line for each setting that is missing or unusable.
            SystemExit: after ``--help``.
        """
        flags = vars(_parser(cls).parse_args(argv))
        try:
            return cls(**flags)
        except ValidationError as exc:
            problems = exc.errors(include_url=False)
        raise SettingError("\n".join(_sentence(cls, problem) for problem in problems))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingError(f"{message}; --help lists all settings")


def _parser(settings: type[ServiceSettings]) -> argparse.ArgumentParser:
    parser = _Parser(description=settings.__doc__, allow_abbrev=False)
    for name, field in settings.model_fields.items():
        arguments: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": _help(name, field)}
        if field.annotation is bool:
            arguments["action"] = argparse.BooleanOptionalAction
        else:
            arguments["metavar"] = name.rpartition("_")[2].upper()
        parser.add_argument(_flag(name), **arguments)
    return parser


def _help(name: str, field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        default = "required"
    else:
        default = f"default: {'none' if field.default is None else str(field.default) or 'none'}"
    description = " ".join((field.description or "").split())
    return f"{description} ({default}; environment: {_variable(name)})".replace("%", "%%")


def _sentence(settings: type[ServiceSettings], problem: ErrorDetails) -> str:
    """Say what is wrong with a setting, for the person who set it."""
    context = problem.get("ctx", {})
    allowed = _ALLOWED.get(problem["type"], "").format_map(context)
    complaint = str(context["error"]) if "error" in context else problem["msg"]
    if not problem["loc"]:
        return complaint
    name = str(problem["loc"][0])
    subject = f"{_flag(name)} (environment: {_variable(name)})"
    field = settings.model_fields[name]
    if problem["type"] == "missing":
        return f"{subject} is missing: {' '.join((field.description or '').split())}"
    found = "not usable" if field.annotation is SecretStr else repr(str(problem["input"])[:_SHOWN_LENGTH])
    return f"{subject} is {found}; {f'it must be {allowed}' if allowed else complaint}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _variable(name: str) -> str:
    return f"{ENV_PREFIX}{name.upper()}"
