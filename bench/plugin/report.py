"""The results as tables for people, beside what they should be."""

from collections.abc import Iterator
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.command import machine_line

Results = dict[str, Any]
Line = tuple[str, str, str, str, str]  # node, what, measured, what it should be, whether it is

_MESSAGE_MIB: Final = 3.0
_MEMORY_MB: Final = 80.0
_WRITES: Final = 2.0  # per pod, and per idle minute


def show(results: Results, console: Console) -> None:
    """Print everything that was measured."""
    console.print(machine_line(results["machine"]))
    nodes: dict[str, Results] = results["nodes"]
    rows = {name: row for name, row in nodes.items() if "failed" not in row}
    if rows:
        console.print(_latencies(rows))
        table = _table("node", "", "measured", "target", "")
        for name, row in rows.items():
            for line in _lines(row):
                table.add_row(name, *line)
            table.add_section()
        console.print(table)
    for name, row in nodes.items():
        if "failed" in row:
            console.print(f"{name} failed: {row['failed']}")


def _latencies(rows: dict[str, Results]) -> Table:
    table = _table("ms", "node", "p50", "p99", "floor", "ratio")
    for verb, title in (("prefer", "GetPreferredAllocation"), ("allocate", "Allocate")):
        for name, row in rows.items():
            found = row[verb]
            figures = (f"{found[key]:.2f}" for key in ("p50_ms", "p99_ms", "floor_p50_ms"))
            table.add_row(title, name, *figures, f"{found['ratio']:.1f}")
    return table


def _lines(row: Results) -> Iterator[tuple[str, str, str, str]]:
    yield "start to advertised", f"{row['advertised_seconds']:.2f} s", "", ""
    yield "start to ready", f"{row['ready_seconds']:.2f} s", "", ""
    share = f"{row['pod_resources_ms']:.2f} ms, {100 * row['pod_resources_share']:.0f} %"
    yield "PodResources in Allocate", share, "", ""
    size = row["memory_list_bytes"] / 2**20
    yield "ListAndWatch, memory", f"{size:.2f} MiB", f"below {_MESSAGE_MIB:g} MiB", _met(size < _MESSAGE_MIB)
    size = row["replica_list_bytes"] / 2**20
    yield "ListAndWatch, replica", f"{size:.3f} MiB", f"below {_MESSAGE_MIB:g} MiB", _met(size < _MESSAGE_MIB)
    yield "resident memory", f"{row['rss_mb']:.1f} MB", f"below {_MEMORY_MB:g} MB", _met(row["rss_mb"] < _MEMORY_MB)
    yield "the most it ever was", f"{row['peak_mb']:.1f} MB", "", ""
    for key, what in (
        ("writes_per_life", "API writes per pod, one by one"),
        ("writes_per_pod_in_burst", "API writes per pod, in a burst"),
        ("writes_per_idle_minute", "API writes per idle minute"),
    ):
        yield what, f"{row[key]:.2f}", f"at most {_WRITES:g}", _met(row[key] <= _WRITES)
    yield "CPU per pod", f"{row['cpu_ms_per_pod']:.1f} ms", "", ""


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 2 else "right", no_wrap=True)
    return table
