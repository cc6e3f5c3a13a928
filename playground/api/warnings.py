"""Warnings to the user beside an answer: noted wherever one comes up, written into the answer's headers.

They belong to the request that is being answered; outside of one they are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_collected: ContextVar[list[str] | None] = ContextVar("warnings", default=None)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f]")


def warn(text: str) -> None:
    """Tell the user something; saying it twice is saying it once."""
    found = _collected.get()
    if found is not None and text not in found:
        found.append(text)


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect what is warned of meanwhile."""
    found: list[str] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def header(text: str) -> str:
    """A warning as the value of a ``Warning`` header."""
    quoted = _UNSAFE.sub(" ", text).replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{quoted}"'
