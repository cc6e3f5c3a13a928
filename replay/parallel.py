"""Runs several seeds at once, each in a process of its own, and tells how far they are.

The processes get everything with their start and share nothing, so the results do not depend on how many there are.
They are blind to Ctrl-C, which a terminal sends to all processes of a command: their parent ends them, and the kernel
does where the parent itself was killed.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Final

from fracgpu.errors import UnavailableError
from replay.runs import Experiment, Run, run_seed

_LOOK_SECONDS: Final = 0.1
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h

OnProgress = Callable[[int, float], None]
"""Told the seed, and which part of it is done."""


class Stopped(Exception):
    """The runs were ended because they were asked to."""


def run_seeds(
    experiment: Experiment,
    *,
    seeds: Sequence[int],
    jobs: int,
    on_progress: OnProgress = lambda seed, part: None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Run]:
    """Replay seeds, and yield their runs in the order of the seeds.

    Args:
        experiment: what is replayed.
        seeds: each once.
        jobs: how many processes at a time; 1 stays in this one.
        on_progress: told how far each seed is.
        is_stopping: asked now and then; once it is true, all is ended.

    Raises:
        Stopped: `is_stopping` was.
        UnavailableError: a process ended before its run did.
    """
    if jobs == 1 or len(seeds) == 1:
        for seed in seeds:

            def tell(part: float, seed: int = seed) -> None:
                if is_stopping():
                    raise Stopped
                on_progress(seed, part)

            yield run_seed(experiment, seed=seed, on_progress=tell)
            on_progress(seed, 1.0)
        return
    with _workers() as workers:
        yield from _run_side_by_side(
            workers, experiment, seeds=seeds, jobs=jobs, on_progress=on_progress, is_stopping=is_stopping
        )


class _Workers:
    """Processes at work, each at the other end of a connection."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks
        self.running: dict[Connection, tuple[int, multiprocessing.process.BaseProcess]] = {}  # to it -> its seed, it

    def start(self, experiment: Experiment, *, seed: int) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(theirs, experiment, seed, os.getpid()), daemon=True)
        resource_tracker.ensure_running()  # here: where it has to start, it lifts the mask that follows
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # it inherits that, from its first moment
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.running[ours] = seed, process

    def end(self, connection: Connection) -> None:
        _, process = self.running.pop(connection)
        process.join()
        connection.close()


@contextmanager
def _workers() -> Iterator[_Workers]:
    workers = _Workers()
    try:
        yield workers
    finally:
        for connection, (_, process) in workers.running.items():
            process.kill()  # it has nothing to tidy up
            process.join()
            connection.close()


def _run_side_by_side(
    workers: _Workers,
    experiment: Experiment,
    *,
    seeds: Sequence[int],
    jobs: int,
    on_progress: OnProgress,
    is_stopping: Callable[[], bool],
) -> Iterator[Run]:
    waiting = list(reversed(seeds))
    done: dict[int, Run] = {}  # seed -> its run, until those of the seeds before it are there
    for next_seed in seeds:
        while next_seed not in done:
            while waiting and len(workers.running) < jobs:
                workers.start(experiment, seed=waiting.pop())
            for connection in wait(list(workers.running), timeout=_LOOK_SECONDS):
                assert isinstance(connection, Connection)  # noqa: S101 (we gave nothing else)
                seed, process = workers.running[connection]
                try:
                    told = connection.recv()
                except EOFError:
                    process.join()
                    raise UnavailableError(
                        f"the process that replayed seed {seed} ended early (exit code {process.exitcode}); "
                        "where memory is short, run fewer at a time with --jobs 1"
                    ) from None
                if isinstance(told, Run):
                    done[seed] = told
                    workers.end(connection)
                    on_progress(seed, 1.0)
                else:
                    on_progress(seed, told)
            if is_stopping():
                raise Stopped
        yield done.pop(next_seed)


def _work(connection: Connection, experiment: Experiment, seed: int, parent: int) -> None:
    """What a process does."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == parent:
        connection.send(run_seed(experiment, seed=seed, on_progress=connection.send))
