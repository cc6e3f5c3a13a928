"""Asks blocking questions in threads, and stops waiting when the answer takes too long.

The threads are daemons, because one that hangs in the driver can neither be ended nor be waited for: asyncio's own
threads would keep the process from ending.
"""

import asyncio
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, TypeVar

_T = TypeVar("_T")


class Patience:
    """Keeps one thread for each name, at most: while a question of that name hangs, the next is not asked."""

    def __init__(self) -> None:
        self._pending: dict[Hashable, asyncio.Future[Any]] = {}  # name -> the answer that is waited for

    async def ask(self, name: Hashable, question: Callable[[], _T], *, seconds: float) -> _T:
        """Return the answer, or raise what the question raises.

        Raises:
            TimeoutError: it took longer than `seconds`, or the question of that name before it is still unanswered.
        """
        pending = self._pending.get(name)
        if pending is not None and not pending.done():
            raise TimeoutError
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_T] = loop.create_future()
        answer.add_done_callback(_look_at)
        self._pending[name] = answer
        threading.Thread(target=_work, args=(question, answer, loop), name=f"nvml {name}", daemon=True).start()
        async with asyncio.timeout(seconds):
            return await asyncio.shield(answer)


def _work(question: Callable[[], _T], answer: asyncio.Future[_T], loop: asyncio.AbstractEventLoop) -> None:
    result: _T | None = None
    error: BaseException | None = None
    try:
        result = question()
    except BaseException as exc:  # handed to who asked
        error = exc
    with suppress(RuntimeError):  # the loop was closed meanwhile: nobody wants to know any more
        loop.call_soon_threadsafe(_settle, answer, result, error)


def _settle(answer: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


def _look_at(answer: asyncio.Future[Any]) -> None:
    """An answer that came too late is of no interest, and asyncio is not to complain of it."""
    if not answer.cancelled():
        answer.exception()
