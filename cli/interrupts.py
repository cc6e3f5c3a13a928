"""SIGINT and SIGTERM, noted from early on and acted upon where it is safe. Imports next to nothing."""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, Self

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While entered, the two signals interrupt nothing: they are remembered, and told to who asks.

    An exception out of a handler would hit imports, clean-ups and an event loop in between two steps of theirs.

    Attributes:
        number: the first signal that came; 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._tell: Callable[[], object] = lambda: None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """The exit code of a process that a signal ended, as shells count."""
        return 128 + self.number

    def tell(self, callback: Callable[[], object]) -> None:
        """Call back, from within the handler, when a signal comes; at once if one came."""
        self._tell = callback
        if self.number:
            callback()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        self._tell()
