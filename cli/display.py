"""The demo in the terminal: a bar per GPU, who holds how much, who waits and why: reports as rich renderables."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cli.report import GpuReport, NodeReport, Report
from fracgpu.quantities import Mib, format_mib

_BAR_WIDTH = 16
_NAME_WIDTH = 26  # with the other columns, 80 in all
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red", "bright_cyan", "bright_magenta")


def render(report: Report, *, unit: Mib, footer: str = "") -> RenderableType:
    """The whole picture."""
    colours = {placed.pod: _COLOURS[n % len(_COLOURS)] for n, placed in enumerate(report.placed)}
    parts: list[RenderableType] = [_gpu_table(report, colours, unit=unit)]
    if report.waiting:
        parts.append(_list_panel("waiting", [(one.pod, one.reason) for one in report.waiting], style="yellow"))
    if report.refused:
        parts.append(_list_panel("refused", [(one.pod, one.message) for one in report.refused], style="red"))
    if footer:
        parts.append(Text(footer, style="dim"))
    return Group(*parts)


def _gpu_table(report: Report, colours: dict[str, str], *, unit: Mib) -> RenderableType:
    """A line per node, one per GPU, and under it one per pod that holds a part of it."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(min_width=30, max_width=44, no_wrap=True)
    for _ in range(3):
        table.add_column(no_wrap=True)
    for node in report.nodes:
        table.add_row(Text(node.name, style="bold"))
        for number, gpu in enumerate(node.gpus):
            holders = _holders(report, node, gpu)
            memory = f"{format_mib(gpu.units_used * unit)} of {format_mib(gpu.units * unit)}"
            seats = f"{gpu.seats_used}/{gpu.seats} seats"
            table.add_row(Text(f"  {number} {gpu.product}"), _bar(gpu, holders, colours), memory, seats)
            for pod, units in holders:
                table.add_row(Text(f"    {_shorten(pod)}", style=colours.get(pod, "")), "", format_mib(units * unit))
    return table


def _shorten(name: str) -> str:
    """Leave the middle out of a long name: the end tells replicas apart."""
    if len(name) <= _NAME_WIDTH:
        return name
    tail = _NAME_WIDTH // 3
    return f"{name[: _NAME_WIDTH - tail - 1]}…{name[-tail:]}"


def _holders(report: Report, node: NodeReport, gpu: GpuReport) -> list[tuple[str, int]]:
    """Pods with a share of this GPU, and its units."""
    found: dict[str, int] = {}
    for placed in report.placed:
        for shares in placed.containers.values() if placed.node == node.name else ():
            for share in shares:
                if share.gpu == gpu.uuid:
                    found[placed.pod] = found.get(placed.pod, 0) + share.units
    return sorted(found.items())


def _bar(gpu: GpuReport, holders: Sequence[tuple[str, int]], colours: dict[str, str]) -> Text:
    """One cell per share of the GPU's memory, in its holder's colour."""
    bar, done, units = Text(), 0, 0
    for pod, taken in holders:
        units += taken
        cells = round(_BAR_WIDTH * units / max(1, gpu.units)) - done
        bar.append("█" * cells, style=colours.get(pod, ""))
        done += cells
    return bar.append("░" * (_BAR_WIDTH - done), style="dim")


def _list_panel(title: str, rows: list[tuple[str, str]], *, style: str) -> Panel:
    table = Table.grid(padding=(0, 2, 0, 0))
    for pod, sentence in rows:
        table.add_row(Text(pod, style="bold"), escape(sentence))
    return Panel(table, title=title, title_align="left", border_style=style, expand=False)
