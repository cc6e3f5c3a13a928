"""Run the unmodified device plugin against simulated GPUs: ``python -m playground.node.plugin_launcher STATE -- ARGS``.

It sets pynvml's library handle, then calls the plugin's own entry point in this process. The plugin is imported by
name at run time: the playground never imports a service.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from playground.node.nvml import install


def main(arguments: list[str]) -> int:
    """Start the plugin with the GPUs of a state file and return its exit status."""
    if len(arguments) < 2 or arguments[1] != "--":
        print("usage: python -m playground.node.plugin_launcher STATE_FILE -- ARGS...", file=sys.stderr)
        return 2
    install(Path(arguments[0]))
    plugin = importlib.import_module("plugin.__main__")
    return int(plugin.main(arguments[2:]))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
