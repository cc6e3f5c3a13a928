"""Waiting for a foreign process that tells nobody when it is ready, in tests that have no event loop."""

import time
from collections.abc import Callable
from typing import TypeVar

_AGAIN_SECONDS = 0.1
_T = TypeVar("_T")


def eventually(found: Callable[[], _T], *, seconds: float) -> _T:
    """Ask until there is an answer that is true, and return it; fail after so many seconds, or when asking fails."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s"
        time.sleep(_AGAIN_SECONDS)
    return answer
