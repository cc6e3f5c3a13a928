"""The results as tables for people, beside what they should be."""

from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console

from bench.command import figures_table, machine_line
from bench.latency import VERBS

Results = dict[str, Any]
Line = tuple[str, str, str, str]  # what, measured, what it should be, whether it is

_JUDGED: Final = {(5000, 5000), (1000, 1000), (5000, 500)}  # nodes, and sent: where filter and prioritize have a target
_FLOORS: Final = 2.5  # times the floor
_P99_MS: Final = 8.0  # with 5000 nodes sent
_MEMORY_MB: Final = 250
_RESTART_SECONDS: Final = 5.0
_PODS_PER_SECOND: Final = 300
_CONFLICTS: Final = 0.01  # of binds, with holds
_SCHEDULER_RATIO: Final = 0.9  # of an extender that only echoes and binds


def show(results: Results, console: Console) -> None:
    """Print everything that was measured."""
    console.print(machine_line(results["machine"]))
    if latencies := list(_latencies(results)):
        columns = ("ms", "nodes", "sent", "p50", "floor", "ratio", "target", "", "p99", "CPU", "new shape", "busy p50")
        console.print(figures_table(columns, latencies))
    if lines := [*_memory_and_start(results), *_throughput(results)]:
        console.print(figures_table(("", "measured", "target", ""), lines))
    for name, found in results.items():
        if isinstance(found, dict) and (reason := found.get("skipped") or found.get("failed")):
            console.print(f"{name} {'skipped' if 'skipped' in found else 'failed'}: {reason}")


def _latencies(results: Results) -> Iterator[tuple[str, ...]]:
    for verb in VERBS:
        for section in (name for name in results if name.startswith(verb)):
            for nodes, row in _rows(results[section]):
                figures = [f"{row[name]:.2f}" for name in ("p50_ms", "floor_p50_ms", "ratio")]
                goal = ("", "")
                if (int(nodes), row["sent"]) in _JUDGED:
                    is_late = row["sent"] == 5000 and row["p99_ms"] > _P99_MS
                    goal = (f"{_FLOORS}", _met(row["ratio"] <= _FLOORS and not is_late))
                rest = [f"{row[name]:.2f}" for name in ("p99_ms", "cpu_ms", "cold_ms", "busy_p50_ms")]
                yield (verb, nodes, str(row["sent"]), *figures, *goal, *rest)


def _memory_and_start(results: Results) -> Iterator[Line]:
    for nodes, row in _rows(results.get("memory", {})):
        yield _at_most(f"memory, {nodes} nodes", row["rss_mb"], _MEMORY_MB, "MB")
    start = results.get("start", {})
    if "restart_seconds" in start:
        yield _at_most("ready after a restart", start["restart_seconds"], _RESTART_SECONDS, "s")
        yield "ready after Redis was lost", f"{start['rebuild_seconds']:.2f} s", "", ""


def _throughput(results: Results) -> Iterator[Line]:
    for replicas, row in _rows(results.get("bind", {})):
        what = f"bind, replicas: {replicas} (conflicts: {row['conflicts']})"
        if replicas == "1":
            yield _at_least(what, row["pods_per_second"], _PODS_PER_SECOND, "pods/s")
        else:
            yield what, f"{row['pods_per_second']:.2f} pods/s", "", ""
    for kind, row in _rows(results.get("burst", {})):
        if "conflicts" in row:
            percent = 100 * row["conflicts"] / max(1, row["binds"])
            if kind == "holds":
                yield _at_most(f"conflicts in a burst of {row['binds']} pods", percent, 100 * _CONFLICTS, "%")
            else:
                yield "the same without holds", f"{percent:.2f} %", "", ""
    scheduler = results.get("scheduler", {})
    if "ratio" in scheduler:
        for case, what in (("alone", "without extender"), ("echo", "echoing extender"), ("fracgpu", "fracgpu")):
            yield f"kube-scheduler, {what}", f"{scheduler[case]:.2f} pods/s", "", ""
        yield _at_least("fracgpu to the echoing extender", scheduler["ratio"], _SCHEDULER_RATIO, "x")


def _rows(section: Results) -> Iterator[tuple[str, Results]]:
    """The measured rows of a section; none where it failed."""
    return ((name, row) for name, row in section.items() if isinstance(row, dict))


def _at_most(what: str, value: float, goal: float, unit: str) -> Line:
    return what, f"{value:.2f} {unit}", f"at most {goal:g} {unit}", _met(value <= goal)


def _at_least(what: str, value: float, goal: float, unit: str) -> Line:
    return what, f"{value:.2f} {unit}", f"at least {goal:g} {unit}", _met(value >= goal)


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"
