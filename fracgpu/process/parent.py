"""Starting a child that ends with us, however we end, from its first instruction on."""

import os
import sys
from typing import Final

_END_WITH_PARENT: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL (linux/prctl.h)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Run in a Python of its own that then becomes the child: after a fork in a process with threads, as gRPC's and
uvloop's users are, nothing but exec is safe."""


def ending_with_us(*command: str) -> list[str]:
    """Return a command that runs ``command``, whose first part is a path, in the same process.

    The kernel kills it when the thread that started it ends. Linux only.
    """
    return [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, str(os.getpid()), *command]
