"""How long to wait after trouble, and how often to speak of it."""

import logging
import random
from collections.abc import Callable
from typing import Final

_REPEAT_SECONDS: Final = 60.0


class Backoff:
    """Delays that double from `initial_seconds` to `max_seconds`, each drawn from its upper half.

    The draw keeps many clients of one API server from coming back at the same moment.
    """

    def __init__(
        self, *, initial_seconds: float = 0.2, max_seconds: float = 30.0, rng: random.Random | None = None
    ) -> None:
        self._initial = initial_seconds
        self._max = max_seconds
        self._rng = rng or random.Random()  # noqa: S311 (not a secret)
        self._next = initial_seconds

    def next_seconds(self) -> float:
        """The delay before the next attempt."""
        delay = self._next * self._rng.uniform(0.5, 1.0)
        self._next = min(self._next * 2, self._max)
        return delay

    def reset(self) -> None:
        """Begin with the shortest delay again: an attempt went well."""
        self._next = self._initial


class TroubleLog:
    """Logs when trouble begins and ends, and in between at most once a minute."""

    def __init__(self, logger: logging.Logger, *, subject: str, clock: Callable[[], float]) -> None:
        self._logger = logger
        self._subject = subject
        self._clock = clock
        self._failures = 0
        self._since = 0.0
        self._spoken = 0.0

    def failed(self, error: Exception) -> None:
        """Note a failed attempt."""
        now = self._clock()
        self._failures += 1
        if self._failures == 1:
            self._since = now
        elif now - self._spoken < _REPEAT_SECONDS:
            return
        self._spoken = now
        self._logger.warning(
            "trouble", extra={"subject": self._subject, "error": str(error), "failures": self._failures}
        )

    def succeeded(self) -> None:
        """Note that things go well."""
        if self._failures:
            self._logger.info(
                "recovered",
                extra={
                    "subject": self._subject,
                    "failures": self._failures,
                    "seconds": round(self._clock() - self._since, 1),
                },
            )
        self._failures = 0
