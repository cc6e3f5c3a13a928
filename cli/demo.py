"""`fracgpu demo`: the main job on a simulated cluster, live in the terminal or once for a program."""

import asyncio
import contextlib
import logging
import shutil
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.live import Live

from cli.demokubeconfig import check, how_to_use, written
from cli.display import render
from cli.interrupts import Interrupts
from cli.report import Report
from cli.workplace import EXAMPLES, make_directory, unless
from fracgpu.errors import FracgpuError, SettingError
from fracgpu.quantities import DEFAULT_MEMORY_UNIT
from playground.cluster import JsonObject

LOG: Final = "demo.log"
KUBECONFIG: Final = "config"
_SETTLE_SECONDS: Final = 60.0
_SETTLE_SECONDS_PER_POD: Final = 0.2
_REFRESH_SECONDS: Final = 0.5
_EXIT_FAILED: Final = 1
_EXIT_USAGE: Final = 2

_logger = logging.getLogger(__name__)


def run_demo(
    *,
    once: bool | None,
    as_json: bool,
    manifests: Path | None,
    redis_url: str | None,
    kubeconfig: Path | None,
    interrupts: Interrupts,
) -> int:
    """Run the demo.

    Args:
        once: end with the final table; None: only where there is no terminal.
        as_json: print the final table as JSON on stdout and nothing else there.
        manifests: a directory to apply instead of the examples.
        redis_url: a Redis to use instead of an embedded one.
        kubeconfig: where to write kubectl's file while the demo stays; None for a folder of its own.
        interrupts: entered by the caller, before it imported us.

    Returns:
        0; 1 where the services did not work as they should; 2 where the arguments cannot be used; 128 and the
        signal's number where one ended the demo before there was something to show.
    """
    ends = as_json or (not sys.stdout.isatty() if once is None else once)
    if as_json and once is False:
        print("error: --json prints the final table, and --stay never comes to one; use one of them", file=sys.stderr)
        return _EXIT_USAGE
    if kubeconfig is not None and ends:
        print("error: --kubeconfig is for a demo that stays; leave it out, or add --stay", file=sys.stderr)
        return _EXIT_USAGE
    try:
        directory = make_directory()
    except (SettingError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return _EXIT_USAGE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # pynvml's, about its own name
            _log_to(directory / LOG)
            simulation = _demo(
                directory,
                ends=ends,
                as_json=as_json,
                manifests=manifests or EXAMPLES,
                redis_url=redis_url,
                kubeconfig=kubeconfig,
                interrupts=interrupts,
            )
            code = asyncio.run(simulation)
    except SettingError as exc:
        print(f"error: {exc}", file=sys.stderr)
        code = _EXIT_USAGE
    except FracgpuError as exc:
        print(f"error: {exc}\nThe logs are kept in {directory}", file=sys.stderr)
        return _EXIT_FAILED
    except Exception as exc:
        _logger.critical("crashed", exc_info=exc)
        what = " ".join(f"{type(exc).__name__}: {exc}".split())
        print(f"error: a defect of fracgpu ended the demo ({what}); the logs are kept in {directory}", file=sys.stderr)
        return _EXIT_FAILED
    shutil.rmtree(directory, ignore_errors=True)
    return code


async def _demo(
    directory: Path,
    *,
    ends: bool,
    as_json: bool,
    manifests: Path,
    redis_url: str | None,
    kubeconfig: Path | None,
    interrupts: Interrupts,
) -> int:
    from cli.simulation import Simulation
    from playground.manifests import load_objects

    if kubeconfig is not None:
        check(kubeconfig)
    try:
        wanted = load_objects(manifests)
    except OSError as exc:
        raise SettingError(f"--manifests {manifests} cannot be read ({exc.strerror}); name a directory") from exc
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    interrupts.tell(lambda: loop.is_closed() or loop.call_soon_threadsafe(stop.set))
    await asyncio.sleep(0)  # a signal of before counts from here
    console = Console()
    with _progress() as on_step:
        simulation = Simulation(directory, redis_url=redis_url, serves_kubectl=True, on_step=on_step)
        if not await unless(stop, simulation.start()):
            await simulation.stop()
            return interrupts.exit_code
    settle_seconds = _SETTLE_SECONDS + _SETTLE_SECONDS_PER_POD * sum(map(_pods_asked_for, wanted.objects))
    settled = False

    async def settle() -> None:
        nonlocal settled
        await applying
        settled = await simulation.settled(timeout_seconds=settle_seconds)

    try:
        for refused in wanted.refused:
            simulation.refuse(refused.name, refused.message)
        applying = asyncio.create_task(simulation.apply(wanted.objects))
        if not ends:
            with written(simulation.api.kubeconfig(), kubeconfig or directory / KUBECONFIG) as path:
                how = f"the cluster as a web page: {simulation.pages_url}/\n{how_to_use(path)}"
                await _show_live(console, simulation.report, how=how, stop=stop)
            applying.cancel()
            await asyncio.wait({applying})
            return 0
        if not await unless(stop, settle()):
            return interrupts.exit_code
        report = await simulation.report()
    finally:
        await simulation.stop()
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        console.print(render(report, unit=DEFAULT_MEMORY_UNIT))
    return _verdict(report, settled=settled, settle_seconds=settle_seconds)


def _pods_asked_for(manifest: JsonObject) -> int:
    """How many pods a manifest will come to, for the time they may take; it may be anything."""
    spec = manifest.get("spec")
    counts = [spec.get(field) for field in ("replicas", "parallelism")] if isinstance(spec, dict) else []
    return next((count for count in counts if isinstance(count, int)), 1)


def _log_to(file: Path) -> None:
    """Log to a file: the terminal shows the picture, and an error in one line."""
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)


def _verdict(report: Report, *, settled: bool, settle_seconds: float) -> int:
    """The exit code: waiting and refused pods are results, an over-committed GPU is a defect."""
    for sentence in report.overcommitted():
        print(f"error: over-committed: {sentence}", file=sys.stderr)
    if not settled:
        print(f"error: not every pod was settled within {settle_seconds:.0f} s", file=sys.stderr)
    return _EXIT_FAILED if report.overcommitted() or not settled else 0


async def _show_live(
    console: Console, report: Callable[[], Awaitable[Report]], *, how: str, stop: asyncio.Event
) -> None:
    """Show the picture until asked to stop: in place on a terminal, elsewhere anew at every change.

    How to look at it is said first, and again below the picture, which may be higher than the terminal.
    """
    shown: Report | None = None
    console.print(how, markup=False, highlight=False, soft_wrap=True)
    with Live(console=console, auto_refresh=False, transient=console.is_terminal) as live:
        while not stop.is_set():
            found = await report()
            if found != shown:
                picture = render(found, unit=DEFAULT_MEMORY_UNIT, footer=f"{how}\nCtrl-C ends the demo.")
                if console.is_terminal:
                    live.update(picture, refresh=True)
                else:
                    console.print(picture)
                shown = found
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REFRESH_SECONDS):
                    await stop.wait()
    if shown is not None and console.is_terminal:  # whole, whatever the terminal's height
        console.print(render(shown, unit=DEFAULT_MEMORY_UNIT))


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Say on stderr what is being started: a spinner on a terminal, lines elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: console.print(f"starting: {step}")
        return
    with console.status("starting") as status:
        yield lambda step: status.update(f"starting: {step}")
