"""What the commands of all benchmarks share: flags, where the results are printed, and how."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_WIDTH: Final = 120  # of the tables where nobody knows how wide it is


def add_quick(parser: argparse.ArgumentParser) -> None:
    """Take ``--quick``."""
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works; the numbers mean nothing")


def add_output(parser: argparse.ArgumentParser, file: str) -> None:
    """Take ``--output``, by default this file."""
    parser.add_argument(
        "--output", type=Path, default=Path(file), metavar="FILE", help=f"the results (default: {file})"
    )


def output_console() -> Console:
    """Where the tables go: as wide as the terminal, or of a width of their own."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)


def machine_line(machine: Mapping[str, Any]) -> str:
    """What `describe_machine` said, for people."""
    return (
        f"{machine['cpus']} x {machine['cpu']}, {machine['memory_gb']} GB, Linux {machine['kernel']}, "
        f"Python {machine['python']}, load before {machine['load_before']}, {machine['date']}"
    )


def figures_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Rows of figures behind their name."""
    table = Table(box=SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
