"""Draws what came of a replay: the allocation curve, and the pieces of GPUs that are left. Needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from fracgpu.errors import SettingError
from replay.runs import BINS, Run
from replay.workloads import GPU_PARTS

_LEGEND: Final = 12  # seeds that are named; more would cover the curves


def check_plotting() -> None:
    """Look whether plots can be drawn, before there is something to draw.

    Raises:
        SettingError: matplotlib is missing.
    """
    try:
        import matplotlib  # noqa: F401 (is it there?)
    except ImportError as exc:
        raise SettingError(
            "--plot needs matplotlib, which is not installed; install fracgpu with its extra replay "
            "(pip install '.[replay]' in the repository), or leave --plot out"
        ) from exc


def draw(runs: Sequence[Run], *, title: str, file: Path) -> None:
    """Draw a PNG; the same runs give the same picture.

    Args:
        runs: at least one.
        title: above it all.
        file: to write.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    _draw_curves(left, runs)
    _draw_pieces(right, runs)
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None})


def _draw_curves(axes: Any, runs: Sequence[Run]) -> None:
    most = max(run.curve[-1][0] for run in runs)
    ideal = [(0.0, 0.0), (min(1.0, most), min(1.0, most)), (most, min(1.0, most))]
    axes.plot(*_percent(ideal), color="grey", linestyle="--", linewidth=1, label="ideal")
    for run in runs:
        axes.plot(*_percent(run.curve), linewidth=1, label=f"seed {run.seed}: {run.ratio_percent:.2f} %")
    axes.set(title="Allocation", xlabel="demand that has arrived (% of all GPUs)", ylabel="allocated (% of all GPUs)")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 102)
    axes.grid(alpha=0.3)
    if len(runs) <= _LEGEND:
        axes.legend(loc="lower right", fontsize="small")


def _draw_pieces(axes: Any, runs: Sequence[Run]) -> None:
    """A bar for each size, as high as its pieces are GPUs together: the mean of all seeds."""
    places = range(BINS)
    stranded = [sum(run.bins[place].stranded_milli for run in runs) / len(runs) / GPU_PARTS for place in places]
    free = [sum(run.bins[place].free_milli for run in runs) / len(runs) / GPU_PARTS for place in places]
    usable = [whole - part for whole, part in zip(free, stranded, strict=True)]
    centres = [(place + 0.5) / BINS for place in places]
    width = 0.9 / BINS
    axes.bar(centres, usable, width=width, label=f"CPU and memory are left: {sum(usable):.1f} GPUs")
    axes.bar(
        centres,
        stranded,
        width=width,
        bottom=usable,
        label=f"too little CPU or memory for any pod with a GPU: {sum(stranded):.1f} GPUs",
    )
    axes.set(
        title="What is left" + (f" (mean of {len(runs)} seeds)" if len(runs) > 1 else ""),
        xlabel="size of the free piece (part of a GPU)",
        ylabel="free pieces of that size, in GPUs together",
    )
    axes.set_xlim(0, 1)
    axes.grid(alpha=0.3, axis="y")
    axes.legend(loc="upper right", fontsize="small")


def _percent(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [100 * x for x, _ in points], [100 * y for _, y in points]
