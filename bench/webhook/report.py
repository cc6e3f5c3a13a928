"""The results as tables for people, beside what they should be."""

from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console

from bench.command import figures_table, machine_line

Results = dict[str, Any]
Line = tuple[str, str, str, str]  # what, measured, what it should be, whether it is

_P50_MS: Final = 2.0
_P99_MS: Final = 6.0
_GROWTH_MB: Final = 2.0  # flat: what an allocator's pages come and go by
_TOO_LARGE: Final = 413


def show(results: Results, console: Console) -> None:
    """Print everything that was measured."""
    console.print(machine_line(results["machine"]))
    if rows := list(_latencies(results)):
        columns = ("ms", "bytes", "p50", "p99", "longest", "floor p50", "p99", "ratio p50", "p99")
        console.print(figures_table(columns, rows))
    if lines := list(_lines(results)):
        console.print(figures_table(("", "measured", "target", ""), lines))
    for name, found in results.items():
        if reason := found.get("skipped") or found.get("failed"):
            console.print(f"{name} {'skipped' if 'skipped' in found else 'failed'}: {reason}")


def _latencies(results: Results) -> Iterator[tuple[str, ...]]:
    latency, large = _measured(results, "latency"), _measured(results, "large")
    if latency:
        yield "usual mix", "", *_figures(latency)
        for kind, row in latency["kinds"].items():
            yield f"  {kind}", str(row["bytes"]), *_figures(row)
    for kind, row in large.get("kinds", {}).items():
        yield f"largest, {kind}", str(row["bytes"]), *_figures(row)
    if large:
        yield f"larger: {large['too_large']['statuses']}", "", *_figures(large["too_large"])


def _figures(row: Results) -> Iterator[str]:
    names = ("p50_ms", "p99_ms", "max_ms", "floor_p50_ms", "floor_p99_ms", "p50_ratio", "p99_ratio")
    return (f"{row[name]:.2f}" if name in row else "" for name in names)


def _lines(results: Results) -> Iterator[Line]:
    if latency := _measured(results, "latency"):
        yield _at_most("p50 at 200 reviews/s", latency["p50_ms"], _P50_MS, "ms")
        yield _at_most("p99 at 200 reviews/s", latency["p99_ms"], _P99_MS, "ms")
        turns = f"{latency['turn_p99_ms']:.2f} ms; floor {latency['floor_turn_p99_ms']:.2f} ms"
        yield "p99 of a turn, median", turns, "", ""
        yield "cores that others used meanwhile", f"{latency['cores_of_others']:.2f}", "", ""
        yield "CPU per review", f"{latency['cpu_ms']:.2f} ms", "", ""
        yield "as fast as they go", f"{latency['per_second']} reviews/s", "", ""
        yield "the floor", f"{latency['floor_per_second']} reviews/s", "", ""
    if large := _measured(results, "large"):
        found = large["too_large"]
        is_refused = found["statuses"] == [_TOO_LARGE]
        yield "a body without end", f"{found['statuses']}", f"[{_TOO_LARGE}]", _met(is_refused)
        yield "memory after large bodies", f"{large['rss_mb']:.1f} MB", "", ""
        yield "sent of it until the answer", f"{found['sent_mib']:.1f} MiB", "", ""
    if memory := _measured(results, "memory"):
        for count, size in memory["rss_mb"].items():
            yield f"memory after {count} reviews", f"{size:.1f} MB", "", ""
        _, settled, *_, last = memory["rss_mb"]
        yield _at_most(f"growth from {settled} to {last}", memory["growth_mb"], _GROWTH_MB, "MB")
    for in_flight, burst in _measured(results, "burst").items():
        yield f"pods, {in_flight} requests at a time: created", f"{burst['created']}", *_all(burst, "created")
        yield "stored with their limits", f"{burst['with_limits']}", *_all(burst, "with_limits")
        yield _at_most("admission time-outs", burst["timeouts"], 0, "")
        yield _at_most("calls of the webhook that failed", burst["failed_calls"], 0, "")
        yield "created", f"{burst['pods_per_second']:.0f} pods/s", "", ""
        yield "the floor: no annotation, no webhook", f"{burst['floor_pods_per_second']:.0f} pods/s", "", ""
        yield "mean of kube-apiserver's calls of the webhook", f"{burst['admission_mean_ms']:.0f} ms", "", ""
        yield "most memory of the webhook", f"{burst['webhook_peak_mb']:.1f} MB", "", ""
        yield "the slowest pod, from request to answer", f"{burst['create_max_ms']:.0f} ms", "", ""


def _measured(results: Results, section: str) -> Results:
    """What was measured in a section; empty where nothing was."""
    found: Results = results.get(section, {})
    return {} if "skipped" in found or "failed" in found else found


def _all(burst: Results, name: str) -> tuple[str, str]:
    return f"all {burst['pods']}", _met(burst[name] == burst["pods"])


def _at_most(what: str, value: float, goal: float, unit: str) -> Line:
    return what, f"{value:g} {unit}", f"at most {goal:g} {unit}", _met(value <= goal)


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"
