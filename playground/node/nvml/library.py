"""The Python object that the unchanged ``pynvml`` takes for the driver's library.

``pynvml`` looks each function up by name on its library handle and passes ctypes arguments, so an object with methods
of those names is a driver to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pynvml

from playground.node.nvml.devices import DeviceFunctions, MigFunctions
from playground.node.nvml.health import EventFunctions, HealthFunctions
from playground.node.nvml.session import put, put_text, returns_code


class SimulatedNvml(DeviceFunctions, MigFunctions, HealthFunctions, EventFunctions):
    """The library handle: every public method named nvml... is that C function and returns its code."""

    @staticmethod
    def nvmlErrorString(code: int) -> bytes:
        """Return the text of a code; static, because pynvml sets attributes on the function."""
        names: dict[int, str] = {
            value: name.removeprefix("NVML_ERROR_")
            for name, value in vars(pynvml).items()
            if name.startswith("NVML_ERROR_")
        }
        names[pynvml.NVML_SUCCESS] = "SUCCESS"
        return names.get(code, "UNKNOWN").replace("_", " ").capitalize().encode()

    @returns_code
    def nvmlSystemGetDriverVersion(self, buffer: Any, length: Any) -> None:
        """Return the driver's version."""
        put_text(self.state().driver.version, buffer, length)

    @returns_code
    def nvmlSystemGetCudaDriverVersion_v2(self, version: Any) -> None:
        """Return the CUDA version that the driver serves, 1000 * major + 10 * minor."""
        put(version, self.state().driver.cuda_version)


def install(path: Path) -> SimulatedNvml:
    """Make ``pynvml`` talk to the GPUs of ``path`` from now on, in this process."""
    library = SimulatedNvml(path)
    pynvml.nvmlLib = library
    pynvml._nvmlGetFunctionPointer_cache.clear()
    return library
