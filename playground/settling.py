"""Waiting until a loop that follows the cluster, as the scheduler and the controllers do, has nothing left to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from playground.scheduling.informer import Informer


async def settled(
    running: asyncio.Task[None] | None,
    *,
    name: str,
    informers: Iterable[Informer],
    is_idle: Callable[[], bool],
    progress: asyncio.Condition,
) -> None:
    """Return when the loop has taken into account what the API server holds at that moment, and is idle.

    Args:
        running: the loop; None if it was not started.
        name: of the loop, for people.
        informers: what it follows.
        is_idle: whether it has nothing to do.
        progress: notified by the loop when ``is_idle`` may have turned.

    Raises:
        RuntimeError: the loop is not running. What ended the loop is raised as it is.
    """
    if running is None:
        raise RuntimeError(f"not running: {name}")
    waiting = asyncio.create_task(_wait(tuple(informers), is_idle=is_idle, progress=progress))
    try:
        done, _ = await asyncio.wait({waiting, running}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        waiting.cancel()


async def _wait(informers: Iterable[Informer], *, is_idle: Callable[[], bool], progress: asyncio.Condition) -> None:
    while True:
        for informer in informers:
            await informer.caught_up()
        if is_idle():
            return
        async with progress:
            await progress.wait_for(is_idle)
