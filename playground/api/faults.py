"""Bindings that go wrong on purpose: the next ones hang, fail, or succeed without the client hearing of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Literal

from playground.api.errors import internal

Answer = Literal["sent", "lost"]


class BindingFaults:
    """What happens to the next binding requests over HTTP, in the order in which it was asked for."""

    def __init__(self) -> None:
        self._planned: deque[Literal["hang", "fail", "lose"]] = deque()
        self._released = asyncio.Event()
        self._hanging = 0
        self._hang_changed = asyncio.Condition()

    def hang(self, *, count: int = 1) -> None:
        """Hold the next ``count`` requests back until ``release``; then they are carried out, however late."""
        self._planned.extend(["hang"] * count)

    def fail(self, *, count: int = 1) -> None:
        """Answer the next ``count`` requests with 500 and do nothing."""
        self._planned.extend(["fail"] * count)

    def lose_answer(self, *, count: int = 1) -> None:
        """Carry the next ``count`` requests out, and close the connection instead of answering."""
        self._planned.extend(["lose"] * count)

    def release(self) -> None:
        """Let the requests that hang now go on."""
        self._released.set()
        self._released = asyncio.Event()

    async def wait_hanging(self, *, count: int = 1) -> None:
        """Return when ``count`` requests hang."""
        async with self._hang_changed:
            await self._hang_changed.wait_for(lambda: self._hanging >= count)

    async def carry_out(self, bind: Callable[[], None]) -> Answer:
        """Carry one binding out as planned, and say what shall become of the answer.

        Raises:
            ApiStatusError: the planned failure, or the one of ``bind``.
        """
        plan = self._planned.popleft() if self._planned else None
        if plan == "fail":
            raise internal("the playground was told to fail this binding")
        if plan == "hang":
            await self._hang()
        bind()
        return "lost" if plan == "lose" else "sent"

    async def _hang(self) -> None:
        released = self._released
        await self._count_hanging(1)
        try:
            await released.wait()
        finally:
            await self._count_hanging(-1)

    async def _count_hanging(self, step: int) -> None:
        async with self._hang_changed:
            self._hanging += step
            self._hang_changed.notify_all()
