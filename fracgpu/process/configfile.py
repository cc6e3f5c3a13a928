"""Files of settings in YAML: from a file to text, and from text to a mapping, which is pure.

What the keys mean is the caller's business. Left out, and refused with a sentence: aliases, which make a few bytes
into gigabytes, tags, and keys that are written twice.
"""

import os
import stat
from pathlib import Path
from typing import Any, Final

import yaml

from fracgpu.errors import SettingError

MAX_SIZE: Final = 2**20
"""Bytes of a file of settings: what a ConfigMap can hold."""
_SHOWN_LENGTH: Final = 80


def read_config(path: Path) -> bytes:
    """Read a file of settings.

    Raises:
        SettingError: it cannot be read, or has more than `MAX_SIZE` bytes.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would keep us waiting for its writer
        with open(number, "rb") as file:
            is_regular = stat.S_ISREG(os.fstat(number).st_mode)
            content = file.read(MAX_SIZE + 1) if is_regular else b""
    except OSError as exc:
        raise SettingError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    if not is_regular:
        raise SettingError(f"{path} is not a regular file")
    if len(content) > MAX_SIZE:
        raise SettingError(f"{path} has more than 1 MiB; a file of settings is smaller")
    return content


def shown(value: object) -> str:
    """What was found, in quotes, short enough for a sentence."""
    try:
        text = str(value)
    except ValueError:  # a number of more than 4300 digits
        return "a number of thousands of digits"
    return repr(text[:_SHOWN_LENGTH])


def parse_config(content: bytes) -> dict[str, Any]:
    """Read the keys and values of a YAML (or JSON) document; an empty one has none.

    Raises:
        SettingError: it is not a mapping with text as keys, in plain YAML. The sentence does not name the file.
    """
    try:
        document = yaml.load(content.decode(), Loader=_PlainLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as exc:
        place = f" (line {exc.problem_mark.line + 1}, column {exc.problem_mark.column + 1})" if exc.problem_mark else ""
        raise SettingError(f"it is not YAML of the plain kind: {exc.problem}{place}") from exc
    except yaml.YAMLError as exc:
        raise SettingError(f"it is not YAML of the plain kind: {' '.join(str(exc).split())}") from exc
    except RecursionError as exc:
        raise SettingError("it is nested too deeply") from exc
    except (ValueError, OverflowError) as exc:  # no text, a date that does not exist, a number of 5000 digits
        raise SettingError(f"it is not YAML of the plain kind: {exc}") from exc
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise SettingError("it is not a list of settings, a name, a colon and a value each")
    return document


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        problem = ""
        if isinstance(event, yaml.AliasEvent):
            problem = "aliases (*name) are not allowed; write the value out"
        elif getattr(event, "tag", None):
            problem = f"tags ({event.tag}) are not allowed"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            seen: set[str] = set()
            for key, _ in node.value:
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} is there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return mapping
