"""``python -m plugin``: the device plugin's process."""

import asyncio
import sys
from collections.abc import Sequence

from fracgpu.process.running import prepare_process, run_service, use_one_arena
from plugin.app import serve
from plugin.sharing.file import load_settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the device plugin until SIGTERM or SIGINT.

    Args:
        argv: the command line without the program's name; None for this process's own.

    Returns:
        The process's exit code, see `fracgpu.process.running.run_service`.
    """
    use_one_arena()  # else large answers of the kubelet's, read in several threads, make it 6 MB larger

    async def run(stop: asyncio.Event) -> None:
        arguments = sys.argv[1:] if argv is None else argv
        settings, file = load_settings(arguments)
        prepare_process(settings)
        await serve(arguments, settings, file, stop)

    return run_service(run)


if __name__ == "__main__":
    raise SystemExit(main())
