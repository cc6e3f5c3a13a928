"""A wall clock that jumps, for one child process: a preloaded library reads the shift from a mapped file.

Only where a C compiler is found and the process is linked dynamically (Linux); elsewhere clocks do not jump, and
`ShiftedClock.missing` says why. Monotonic clocks go on, as they do when somebody sets the time of day.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

_SOURCE = Path(__file__).with_name("clockshift.c")


class ShiftedClock:
    """The clock of one process, which has to be started with `environment`.

    Args:
        directory: where the library and the shift are kept.
        program: the program that will be started.

    Attributes:
        missing: why the clock cannot be shifted; empty where it can.
    """

    def __init__(self, directory: Path, *, program: Path) -> None:
        self._library = directory / "clockshift.so"
        self._file = directory / "clockshift"
        self.set(seconds=0)
        self.missing = self._compile() or self._try(program)

    @property
    def environment(self) -> dict[str, str]:
        """What the process must have in its environment."""
        if self.missing:
            return {}
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(self._file)}

    def set(self, *, seconds: float) -> None:
        """From now on the clock is so much ahead of the machine's."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:  # in place: the page is mapped
            file.write(int(seconds * 1000).to_bytes(8, sys.byteorder, signed=True))

    def _compile(self) -> str:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            return "no C compiler"
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(self._library), str(_SOURCE)]
        compiled = subprocess.run(command, capture_output=True, text=True, check=False)
        return "" if compiled.returncode == 0 else f"{compiler} failed: {compiled.stderr[:200]}"

    def _try(self, program: Path) -> str:
        """Have the loader say whether the program would take the library."""
        environment = os.environ | {"LD_PRELOAD": str(self._library), "LD_TRACE_LOADED_OBJECTS": "1"}
        told = subprocess.run([program], capture_output=True, text=True, check=False, env=environment, timeout=10)
        return "" if self._library.name in told.stdout else f"{program.name} is not linked dynamically"
