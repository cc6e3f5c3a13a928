"""The real kubectl, for tests: the one of the virtual environment, else the one on PATH."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
KUBECTL = shutil.which("kubectl", path=PATH)
MISSING = "no kubectl: it is in the development dependencies"


class Kubectl:
    """Runs kubectl in a folder of its own, for one cluster."""

    def __init__(self, kubeconfig: str, folder: Path) -> None:
        self.folder = folder
        self._config = folder / "kubeconfig"
        self._config.write_text(kubeconfig)

    async def __call__(self, *args: str, manifest: str = "") -> str:
        """Run it, which must succeed; return what it printed."""
        code, output = await self.attempt(*args, manifest=manifest)
        assert code == 0, output
        return output

    async def refused(self, *args: str, manifest: str = "") -> str:
        """Run it, which must fail; return what it printed."""
        code, output = await self.attempt(*args, manifest=manifest)
        assert code != 0, output
        return output

    async def attempt(self, *args: str, manifest: str = "") -> tuple[int, str]:
        """Run it, with ``manifest`` on its standard input; return its exit status and what it printed."""
        process = await self._start(*args)
        async with asyncio.timeout(60):
            output, _ = await process.communicate(manifest.encode())
        assert process.returncode is not None
        return process.returncode, output.decode()

    @asynccontextmanager
    async def following(self, *args: str) -> AsyncIterator[Callable[[], Awaitable[str]]]:
        """Run something that goes on for ever; gives what returns its next line."""
        process = await self._start(*args)
        assert process.stdout is not None
        output = process.stdout

        async def next_line() -> str:
            async with asyncio.timeout(60):
                return (await output.readline()).decode()

        yield next_line
        process.terminate()
        await process.communicate()

    async def _start(self, *args: str) -> asyncio.subprocess.Process:
        assert KUBECTL is not None
        return await asyncio.create_subprocess_exec(
            KUBECTL,
            *args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self.folder,
            env={"PATH": PATH, "KUBECONFIG": str(self._config), "HOME": str(self.folder)},
        )


def rows(table: str) -> list[list[str]]:
    """The cells of a printed table, without its head."""
    return [line.split() for line in table.splitlines()[1:]]
