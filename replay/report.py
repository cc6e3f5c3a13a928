"""What a replay has to say when it is done: a table for people, JSON for programs, placements as CSV. Pure."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from statistics import fmean

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fracgpu.annotations import PlacementPolicy
from replay.runs import HEADING, Experiment, Row, Run
from replay.workloads import GPU_PARTS


class SeedReport(Struct, frozen=True):
    """One seed: pods that came, found a place and found none; GPUs asked for in all; and seconds that it took."""

    arrivals: int
    placed: int
    unplaced: int
    gpus_asked: float
    seconds: float


class Summary(Struct, frozen=True):
    """All seeds; its JSON is what ``fracgpu replay --json`` prints.

    Attributes:
        policy: by which was placed.
        inflate: the ratio.
        per_seed: seed -> allocation ratio, in % of all GPUs.
        mean: of the ratios.
        nodes, gpus: of the cluster.
        seeds: seed -> the rest.
    """

    policy: PlacementPolicy
    inflate: float
    per_seed: dict[str, float]
    mean: float
    nodes: int
    gpus: int
    seeds: dict[str, SeedReport]


def summarize(experiment: Experiment, runs: Sequence[Run]) -> Summary:
    """Sum up at least one run of an experiment."""
    return Summary(
        policy=experiment.policy,
        inflate=experiment.inflate,
        per_seed={str(run.seed): run.ratio_percent for run in runs},
        mean=fmean(run.ratio_percent for run in runs),
        nodes=len(experiment.nodes),
        gpus=sum(node.gpus for node in experiment.nodes),
        seeds={
            str(run.seed): SeedReport(
                run.arrivals,
                run.placed,
                run.arrivals - run.placed,
                run.demand_milli / GPU_PARTS,
                round(run.seconds, 2),
            )
            for run in runs
        },
    )


def render(summary: Summary) -> RenderableType:
    """The summary as a table."""
    table = Table()
    for heading in ("seed", "pods", "placed", "unplaced", "GPUs asked", "allocation ratio", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for seed, found in summary.seeds.items():
        table.add_row(
            seed,
            str(found.arrivals),
            str(found.placed),
            str(found.unplaced),
            f"{found.gpus_asked:.1f}",
            f"{summary.per_seed[seed]:.2f} %",
            f"{found.seconds:.1f}",
        )
    table.add_section()
    table.add_row("mean", *[""] * 4, f"{summary.mean:.2f} %", "")
    what = f"{summary.policy} on {summary.nodes} nodes with {summary.gpus} GPUs, --inflate {summary.inflate:g}"
    return Group(Text(what), table)


def placements_heading() -> str:
    """The first line of the placements file."""
    return written([HEADING])


def written(rows: Iterable[Row | tuple[str, ...]]) -> str:
    """Rows of the placements file as CSV."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
