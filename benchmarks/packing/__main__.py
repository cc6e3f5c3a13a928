"""Runs the benchmark: ``make bench-packing ARGS="--traces DIR"``, or ``python -m benchmarks.packing --traces DIR``.

Runs all traces in a directory by all policies, prints the table and writes the figures. The exit status is 2 where
there are no traces: the data is not in the repository.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Final

from bench.command import add_output, output_console
from bench.machine import describe_machine
from benchmarks.packing.experiment import BENCH_POLICIES, BenchPolicy, Outcome, Run, carry_out, find_traces
from benchmarks.packing.report import Results, results_of, show
from fracgpu.errors import SettingError
from replay.seeds import parse_seeds
from replay.traces import read_nodes, read_pods

_NEEDED: Final = (
    "the traces are not in this repository: download the node and pod lists (openb_node_list_gpu_node.csv, "
    "openb_pod_list_*.csv) of cluster-trace-gpu-v2023 from alibaba/clusterdata into one directory, and name it with "
    "--traces DIR"
)
_MAX_JOBS: Final = 256


def main(argv: list[str] | None = None) -> int:
    """Run, print, write; returns the exit status."""
    arguments = _arguments(argv)
    try:
        if arguments.traces is None:
            raise SettingError(_NEEDED)
        nodes, pods = find_traces(arguments.traces)
        gpus = sum(node.gpus for node in read_nodes(nodes))
        for file in pods:
            read_pods(file)  # so that a mistake in the last one is told before the others have run
        machine = describe_machine()
        runs = [
            Run(nodes, file, policy, seed)
            for file in pods
            for policy in (*arguments.policies, "bound")
            for seed in arguments.seeds
        ]
        outcomes = dict(_carried_out(runs, jobs=arguments.jobs))
    except SettingError as exc:
        print(f"bench-packing: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    results: Results = {"machine": machine, **results_of(runs, outcomes, gpus=gpus)}
    show(results, output_console())
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def _carried_out(runs: Sequence[Run], *, jobs: int) -> Iterator[tuple[Run, Outcome]]:
    """Do the runs, so many at a time, and say how far they are."""
    if jobs == 1:
        done = ((run, carry_out(run)) for run in runs)
        yield from _told(done, len(runs))
        return
    with ProcessPoolExecutor(jobs) as pool:
        futures = {pool.submit(carry_out, run): run for run in runs}
        try:
            yield from _told(((futures[future], future.result()) for future in as_completed(futures)), len(runs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _told(done: Iterator[tuple[Run, Outcome]], count: int) -> Iterator[tuple[Run, Outcome]]:
    for number, (run, outcome) in enumerate(done, start=1):
        what = f"{run.trace} {run.policy} seed {run.seed}: {outcome.percent:.3f} % in {outcome.seconds:.1f} s"
        print(f"{number}/{count} {what}", file=sys.stderr, flush=True)
        yield run, outcome


def _arguments(argv: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(
        prog="make bench-packing",
        description="Places traces of pods by all policies, and compares how much of the GPUs is allocated in the end.",
    )
    parser.add_argument("--traces", type=Path, metavar="DIR", help="where the lists of nodes and pods are")
    parser.add_argument(
        "--seeds", type=_seeds, default=_seeds("42-51"), metavar="SEEDS", help="as 42-51 or 42,44 (default: 42-51)"
    )
    parser.add_argument(
        "--policies",
        type=_policies,
        default=list(BENCH_POLICIES),
        metavar="NAMES",
        help=f"with commas between: {','.join(BENCH_POLICIES)} (default: all)",
    )
    parser.add_argument("--jobs", type=_jobs, default=1, metavar="N", help="runs at a time (default: 1)")
    add_output(parser, "bench-packing.json")
    return parser.parse_args(argv)


def _seeds(text: str) -> list[int]:
    try:
        return sorted(parse_seeds(text))
    except SettingError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _policies(text: str) -> list[BenchPolicy]:
    names = text.split(",")
    unknown = [name for name in names if name not in BENCH_POLICIES]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such policy: {', '.join(unknown)}; there are {', '.join(BENCH_POLICIES)}")
    return [policy for policy in BENCH_POLICIES if policy in names]


def _jobs(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _MAX_JOBS):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of runs; it is a whole number from 1 to {_MAX_JOBS}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
