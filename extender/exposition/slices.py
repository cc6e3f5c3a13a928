"""Long work in slices, between which the event loop does what else there is."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

_T = TypeVar("_T")


async def slices(items: Sequence[_T], *, size: int) -> AsyncIterator[Sequence[_T]]:
    """Yield the items in slices, and let others in after each."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
        await asyncio.sleep(0)
