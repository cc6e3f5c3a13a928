"""Builds the C twin of the simulated NVML: ``libnvidia-ml.so.1``, for processes that load the library by its name.

It reads the state file that `STATE_VARIABLE` names, at ``nvmlInit``. Point LD_LIBRARY_PATH to its folder.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

LIBRARY = "libnvidia-ml.so.1"
STATE_VARIABLE = "FRACGPU_NVML_STATE"

_SOURCE = Path(__file__).with_name("libnvidia_ml.c")


def build_library(folder: Path) -> Path | None:
    """Compile the library into a folder and return its path; None where there is no C compiler.

    Raises:
        subprocess.CalledProcessError: the compiler refused it, and has said why on stderr.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / LIBRARY
    flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-pthread"]
    subprocess.run(  # noqa: S603 - our own source
        [compiler, *flags, f"-Wl,-soname,{LIBRARY}", "-o", library, _SOURCE], check=True
    )
    return library
