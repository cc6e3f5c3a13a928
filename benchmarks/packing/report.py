"""The outcomes as figures for machines, and as tables for people, beside what others published."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, Final

from rich.console import Console

from bench.command import figures_table
from benchmarks.packing.experiment import Outcome, Run
from benchmarks.packing.published import FGD_NAME, NAMES, published_means

Results = dict[str, Any]

_MEAN: Final = "mean"
_NOTE: Final = (
    f"Allocated GPUs in % of all, means of the seeds; behind it the difference to the published {FGD_NAME}. "
    "`fgd` is our implementation of that; no policy can exceed the bound."
)


def results_of(runs: Iterable[Run], outcomes: Mapping[Run, Outcome], *, gpus: int) -> Results:
    """Everything that was found.

    Args:
        runs: in the order in which they are told.
        outcomes: run -> what came of it.
        gpus: of the cluster.
    """
    traces: dict[str, Any] = {}
    for run in runs:
        trace = traces.setdefault(run.trace, {"published": published_means(run.trace, gpus=gpus), "policies": {}})
        found = trace["policies"].setdefault(run.policy, {"per_seed": {}, "seconds_per_seed": {}})
        found["per_seed"][str(run.seed)] = round(outcomes[run].percent, 4)
        found["seconds_per_seed"][str(run.seed)] = round(outcomes[run].seconds, 1)
    for trace in traces.values():
        for found in trace["policies"].values():
            found["mean"] = round(fmean(found["per_seed"].values()), 4)
        trace["bound"] = trace["policies"].pop("bound")
    return {"gpus": gpus, "traces": traces}


def show(results: Results, console: Console) -> None:
    """Print a row for each trace, and their mean."""
    machine, traces = results["machine"], results["traces"]
    console.print(
        f"{machine['cpus']} x {machine['cpu']}, Python {machine['python']}, {machine['date']}; {_seeds(traces)}"
    )
    console.print(_NOTE)
    policies = list(next(iter(traces.values()))["policies"])
    console.print(figures_table(("trace", *policies, FGD_NAME, "bound"), _rows(traces, policies)))
    published = {name: trace["published"] for name, trace in traces.items() if trace["published"]}
    if published:
        console.print("Published means:")
        rows = [(name, *(f"{means[policy]:.2f}" for policy in NAMES)) for name, means in published.items()]
        means = (f"{fmean(each[policy] for each in published.values()):.2f}" for policy in NAMES)
        console.print(figures_table(("trace", *NAMES), [*rows, (_MEAN, *means)]))


def _rows(traces: Mapping[str, Any], policies: Sequence[str]) -> list[tuple[str, ...]]:
    rows = [
        _row(
            name,
            [trace["policies"][policy]["mean"] for policy in policies],
            trace["published"].get(FGD_NAME),
            trace["bound"]["mean"],
        )
        for name, trace in traces.items()
    ]
    goals = [trace["published"].get(FGD_NAME) for trace in traces.values()]
    found = [[trace["policies"][policy]["mean"] for trace in traces.values()] for policy in policies]
    bound = fmean(trace["bound"]["mean"] for trace in traces.values())
    return [*rows, _row(_MEAN, [fmean(means) for means in found], None if None in goals else fmean(goals), bound)]


def _row(name: str, means: Iterable[float], goal: float | None, bound: float) -> tuple[str, ...]:
    if goal is None:
        return name, *(f"{mean:.2f}" for mean in means), "-", f"{bound:.2f}"
    return name, *(f"{mean:.2f} {mean - goal:+.2f}" for mean in means), f"{goal:.2f}", f"{bound:.2f}"


def _seeds(traces: Mapping[str, Any]) -> str:
    seeds = sorted(map(int, next(iter(traces.values()))["bound"]["per_seed"]))
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds from {seeds[0]} to {seeds[-1]}"
