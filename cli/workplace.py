"""What `fracgpu demo` and `fracgpu playground` begin with: examples, a folder, and a start that may be called off."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from fracgpu.errors import SettingError

EXAMPLES: Final = Path(__file__).resolve().parent.parent / "examples"
_MAX_PARENT: Final = 50  # of the 107 bytes of a socket's path; the rest is ours


def make_directory() -> Path:
    """Make a folder whose path leaves room for the sockets in it.

    Raises:
        SettingError: the temporary folder has too long a path.
        OSError: nothing can be made there.
    """
    parent = tempfile.gettempdir()
    if len(parent) > _MAX_PARENT:
        raise SettingError(
            f"the folder for temporary files, {parent}, has too long a path for Unix sockets (at most {_MAX_PARENT} "
            "bytes); set TMPDIR to a shorter one, for example TMPDIR=/tmp"
        )
    return Path(tempfile.mkdtemp(prefix="fracgpu-", dir=parent))


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Await the work, unless we are asked to stop meanwhile; whether it was done."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if stop.is_set():  # what failed may have done so for the same signal: Ctrl-C reaches our children too
        working.cancel()
        await asyncio.wait({working})
        return False
    working.result()
    return True
