"""`fracgpu replay`: a trace through the placement engine, or a question about a cluster; files and terminal."""

import contextlib
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO, get_args

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cli.interrupts import Interrupts
from extender.placement.policies import DEFAULT_POLICY
from fracgpu.annotations import PlacementPolicy
from fracgpu.errors import FracgpuError, SettingError
from replay.parallel import OnProgress, Stopped, run_seeds
from replay.plotting import check_plotting, draw
from replay.report import placements_heading, render, summarize, written
from replay.runs import Experiment
from replay.seeds import parse_seeds
from replay.traces import read_nodes, read_pods

DEFAULT_INFLATE: Final = 1.3
DEFAULT_SEEDS: Final = "42"
_MAX_INFLATE: Final = 100.0
_EXIT_FAILED: Final = 1
_EXIT_USAGE: Final = 2


@dataclass(frozen=True, slots=True)
class Options:
    """The flags of the command as they were given; None and empty for those that were not."""

    nodes: Path | None
    pods: Path | None
    policy: str
    inflate: float | None
    seeds: str | None
    jobs: int | None
    placements: Path | None
    plot: Path | None
    as_json: bool
    from_cluster: bool
    kubeconfig: Path | None
    manifests: Path | None
    what_if_replicas: int | None
    add_nodes: int | None
    like: str | None


def run_replay(options: Options, *, interrupts: Interrupts) -> int:
    """Replay a trace, or ask whether manifests would fit.

    Args:
        options: the flags.
        interrupts: entered by the caller, before it imported us.

    Returns:
        0, also where pods fit nowhere; 1 where something that we need failed; 2 where the arguments cannot be used; 128
        and the signal's number where one ended it.
    """
    try:
        if options.from_cluster or options.manifests is not None:
            from cli.wouldfit import ask_cluster

            _check_unused(options, _OF_TRACES, why="is about replaying a trace (--nodes with --pods)")
            return ask_cluster(
                policy=_policy(options.policy),
                as_json=options.as_json,
                from_cluster=options.from_cluster,
                kubeconfig=options.kubeconfig,
                manifests=options.manifests,
                replicas=options.what_if_replicas,
                add_nodes=options.add_nodes or 0,
                like=options.like or "",
                interrupts=interrupts,
            )
        _check_unused(options, _OF_CLUSTERS, why="is about a real cluster (--from-cluster with --manifests)")
        return _replay(options, interrupts=interrupts)
    except Stopped:
        return interrupts.exit_code
    except SettingError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return _EXIT_USAGE
    except FracgpuError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return _EXIT_FAILED


_OF_TRACES: Final = ("nodes", "pods", "inflate", "seeds", "jobs", "placements", "plot")
_OF_CLUSTERS: Final = ("kubeconfig", "what_if_replicas", "add_nodes", "like")


def _check_unused(options: Options, names: Sequence[str], *, why: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise SettingError(f"--{name.replace('_', '-')} {why}; leave it out, or ask the one or the other")


def _replay(options: Options, *, interrupts: Interrupts) -> int:
    if options.nodes is None or options.pods is None:
        raise SettingError(
            "there is nothing to replay: name a trace with --nodes NODES.csv and --pods PODS.csv, or ask about a "
            "cluster with --from-cluster and --manifests DIR"
        )
    experiment = Experiment(
        nodes=tuple(read_nodes(options.nodes)),
        pods=tuple(read_pods(options.pods)),
        policy=_policy(options.policy),
        inflate=_inflate(DEFAULT_INFLATE if options.inflate is None else options.inflate),
        wants_rows=options.placements is not None,
    )
    seeds = parse_seeds(DEFAULT_SEEDS if options.seeds is None else options.seeds)
    jobs = _cores() if options.jobs is None else options.jobs
    if jobs < 1:
        raise SettingError(f"--jobs is {jobs}; it is how many seeds are replayed at a time, at least 1")
    inputs = {options.nodes.resolve(), options.pods.resolve()}
    for flag, output in (("--placements", options.placements), ("--plot", options.plot)):
        if output is not None and output.resolve() in inputs:
            raise SettingError(f"{flag} {output} is what is read; name another file to write")
    if options.plot is not None:
        check_plotting()
        _check_writable(options.plot, flag="--plot")
    runs = []
    with _written_to(options.placements) as file, _progress(seeds) as on_progress:
        found = run_seeds(
            experiment,
            seeds=seeds,
            jobs=min(jobs, len(seeds)),
            on_progress=on_progress,
            is_stopping=lambda: bool(interrupts.number),
        )
        for run in found:
            if file is not None:
                with _told(f"--placements {options.placements}"):
                    file.write(written(run.rows))
                    file.flush()
            runs.append(run._replace(rows=[]))
    summary = summarize(experiment, runs)
    if options.plot is not None:
        with _told(f"--plot {options.plot}"):
            draw(runs, title=f"{summary.policy}, {summary.gpus} GPUs, --inflate {summary.inflate:g}", file=options.plot)
    with _told("standard output"):
        if options.as_json:
            print(msgspec.json.format(msgspec.json.encode(summary)).decode(), flush=True)
        else:
            Console().print(render(summary))
            sys.stdout.flush()
    return 0


def _policy(text: str) -> PlacementPolicy:
    known = get_args(PlacementPolicy)
    if text not in known:
        raise SettingError(
            f"--policy is {text[:40]!r}; it is {', '.join(known[:-1])} or {known[-1]}, by default {DEFAULT_POLICY}"
        )
    found: PlacementPolicy = text  # type: ignore[assignment] # one of them
    return found


def _inflate(ratio: float) -> float:
    if not (math.isfinite(ratio) and 0 < ratio <= _MAX_INFLATE):
        raise SettingError(
            f"--inflate is {ratio:g}; it is the demand as a multiple of all GPUs, above 0 and at most "
            f"{_MAX_INFLATE:g}, for example {DEFAULT_INFLATE}; 1 leaves the trace as it is"
        )
    return ratio


def _cores() -> int:
    """Those that we may use: in a container fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _written_to(path: Path | None) -> Iterator[TextIO | None]:
    """Open the file for the placements, with its heading; at the start, so that no run is for nothing."""
    if path is None:
        yield None
        return
    with _told(f"--placements {path}"):
        file = path.open("w", encoding="utf-8", newline="")
    try:
        with _told(f"--placements {path}"):
            file.write(placements_heading())
            file.flush()
        yield file
    finally:
        with contextlib.suppress(OSError):  # all that counts was flushed, and told where that failed
            file.close()


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise SettingError(f"{what} cannot be written: {exc.strerror or exc}") from exc


def _check_writable(path: Path, *, flag: str) -> None:
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise SettingError(f"{flag} {path} cannot be written: name a file in a folder that exists")


@contextlib.contextmanager
def _progress(seeds: Sequence[int]) -> Iterator[OnProgress]:
    """Show on a terminal's stderr how far the runs are."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda seed, part: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(_described(0, seeds), total=len(seeds))
        parts: dict[int, float] = {}  # seed -> which part is done

        def on_progress(seed: int, part: float) -> None:
            parts[seed] = part
            done = sum(part == 1.0 for part in parts.values())
            progress.update(task, completed=sum(parts.values()), description=_described(done, seeds))

        yield on_progress


def _described(done: int, seeds: Sequence[int]) -> str:
    return f"replaying, {done} of {len(seeds)} seeds done" if len(seeds) > 1 else f"replaying seed {seeds[0]}"
