"""The life of a service process: the event loop, signals, exit codes, and ending with its parent.

async def serve(stop: asyncio.Event) -> None:
    settings = ExtenderSettings.load(sys.argv[1:])
    prepare_process(settings)
    ...
    await stop.wait()

def main() -> int:
    return run_service(serve)
"""

import asyncio
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from fracgpu.errors import FracgpuError, SettingError
from fracgpu.process.logs import configure_logging
from fracgpu.process.settings import ServiceSettings
from fracgpu.process.tracing import end_tracing, start_tracing

EXIT_FAILED: Final = 1
EXIT_BAD_SETTING: Final = 2

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_M_ARENA_MAX: Final = -8  # malloc.h

_logger = logging.getLogger(__name__)


def run_service(main: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run a service until it ends by itself or is asked to, by SIGTERM or SIGINT.

    Args:
        main: the service; it ends soon after the event that it is given has been set.

    Returns:
        The process's exit code: 0; 2 after a SettingError; 1 after any other error. An error of ours is one line on
        stderr, also from within a TaskGroup; anything else is a defect and logged with its traceback.
    """
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_stopped(main))
    except (FracgpuError, BaseExceptionGroup) as exc:
        errors = list(errors_in(exc))
        if not all(isinstance(error, FracgpuError) for error in errors):
            _logger.critical("crashed", exc_info=exc)
            return EXIT_FAILED
        for error in errors:
            print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_SETTING if any(isinstance(error, SettingError) for error in errors) else EXIT_FAILED
    except Exception as exc:
        _logger.critical("crashed", exc_info=exc)
        return EXIT_FAILED
    finally:
        end_tracing()
    return 0


def prepare_process(settings: ServiceSettings) -> None:
    """Apply the settings that concern the process as a whole: logging, traces, and ending with its parent.

    Raises:
        SettingError: traces cannot be sent, or the process cannot be tied to its parent.
    """
    configure_logging(settings.log_level, form=settings.log_format)
    if settings.otlp_endpoint:
        start_tracing(settings.otlp_endpoint, service=type(settings).__module__.partition(".")[0])
    if settings.exit_with_parent:
        _die_with(settings.exit_with_parent)


def use_one_arena() -> None:
    """Have all threads share one heap; does nothing where the C library is not glibc. Call it before threads start.

    glibc gives threads heaps of their own, each of which keeps what it has freed. Python's threads hardly ever allocate
    at the same time, so that several heaps are only larger than one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def _die_with(parent: int) -> None:
    """Let the kernel kill us when the thread that started us ends; and now, if it ended before we could ask."""
    if not sys.platform.startswith("linux"):
        raise SettingError("--exit-with-parent works on Linux only")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise SettingError(f"--exit-with-parent does not work here: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        raise SettingError(f"--exit-with-parent names process {parent}, but our parent is {os.getppid()}")


def announce_ready(url: str, *, ready_file: Path | None, **others: str) -> None:
    """Say that the service is serving: one event, and the file that somebody may wait for, written in one step.

    Args:
        url: where the service is reached.
        ready_file: the file; None for none.
        others: where else, by a name that ends in ``_url``.

    Raises:
        SettingError: the file cannot be written.
    """
    if ready_file is not None:
        draft = ready_file.with_name(f".{ready_file.name}.{os.getpid()}")
        try:
            draft.write_bytes(msgspec.json.encode({"url": url, **others}))
            draft.replace(ready_file)
        except OSError as exc:
            raise SettingError(f"the ready file {ready_file} cannot be written: {exc}") from exc
    _logger.info("ready", extra={"url": url, **others})


async def _until_stopped(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await main(stop)


def errors_in(exc: BaseException) -> Iterator[BaseException]:
    """The errors that a group holds, also in groups within it; or the error itself."""
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from errors_in(inner)
    else:
        yield exc
