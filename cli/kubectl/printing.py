"""Results on standard output: tables that fit the terminal, or are as wide as they need to be in a pipe; JSON; YAML.

What people see goes through `harmless`; what programs read is to the letter.
"""

import io
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import yaml
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cli.kubectl.flags import Output
from cli.kubectl.harmless import harmless_text

_FOLDED: Final = 30  # a column of sentences is not narrower, unless they are short
_LONG: Final = 1000  # rows
_GAP: Final = "  "  # between columns, as in `table`
_PIPE_WIDTH: Final = 4000  # wider than any line; tables do not fill it
_RAW: Final = re.compile("[\x7f-\x9f]")  # control characters that JSON does not escape by itself
_STEPS: Final = (("d", 86400), ("h", 3600), ("m", 60))


def terminal(*, width: int | None = None) -> Console:
    """Standard output as a person sees it; colours only on a terminal, and none where NO_COLOR is set."""
    return Console(width=width, highlight=False, emoji=False, markup=False)


def show(found: Group) -> None:
    """Print for a person: a table that is wider than the terminal as a whole, as kubectl does, and not cut off."""
    console, parts = terminal(), [harmless(part) for part in found.renderables]
    # Nobody reads thousands of lines for their colours, which take half a millisecond each.
    if not console.is_terminal or any(isinstance(part, Table) and part.row_count > _LONG for part in parts):
        sys.stdout.write(plain(Group(*parts)))
        return
    for part in parts:
        terminal(width=max(console.width, least_width(part))).print(part, crop=False)


def harmless(found: RenderableType) -> RenderableType:
    """The same without characters that a terminal obeys, whatever it is made of."""
    if isinstance(found, str):
        return harmless_text(found)
    if isinstance(found, Text):
        if not found.plain.isprintable():
            found = found.copy()
            found.plain = harmless_text(found.plain)  # as long as before, so styles stay where they are
        return found
    if isinstance(found, Padding):
        found.renderable = harmless(found.renderable)
    elif isinstance(found, Group):
        return Group(*map(harmless, found.renderables))
    elif isinstance(found, Table):
        _make_harmless(found)
    return found


def _make_harmless(found: Table) -> None:
    rows = list(zip(*(column.cells for column in found.columns), strict=True))
    if all(_is_harmless(cell) for row in rows for cell in row):
        return
    found.columns, found.rows = [column.copy() for column in found.columns], []  # without their cells
    for row in rows:
        found.add_row(*map(harmless, row))


def _is_harmless(cell: RenderableType) -> bool:
    return str(cell).isprintable()  # a cell is a str or a Text


def least_width(part: RenderableType) -> int:
    """How wide a table has to be so that nothing is cut off; 0 for what may be folded as a whole."""
    if not isinstance(part, Table):
        return 0
    widths = []
    for column in part.columns:
        cells = [Text(cell) if isinstance(cell, str) else cell for cell in (column.header, *column.cells)]
        widest = max((cell.cell_len for cell in cells if isinstance(cell, Text)), default=0)
        widths.append((widest if column.no_wrap else min(widest, _FOLDED)) + sum(part.padding[1::2]))
    return sum(widths)


def plain(found: RenderableType, *, width: int = _PIPE_WIDTH) -> str:
    """The text without colours, and without the spaces at the ends of lines."""
    found = harmless(found)
    if isinstance(found, Group):
        return "".join(plain(part, width=width) for part in found.renderables)
    if isinstance(found, Table) and found.row_count > _LONG:
        return _plain_table(found)
    text = io.StringIO()
    Console(file=text, width=width, color_system=None, highlight=False, emoji=False, markup=False).print(found)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _plain_table(found: Table) -> str:
    """The same of a table of single lines, which rich takes half a minute for where there are 40,000 of them."""
    padded = []
    for column in found.columns:
        cells = [cell.plain if isinstance(cell, Text) else str(cell) for cell in (column.header, *column.cells)]
        widest = max(map(cell_len, cells))
        spaces = [" " * (widest - cell_len(cell)) for cell in cells]
        is_right = column.justify == "right"
        padded.append([space + cell if is_right else cell + space for cell, space in zip(cells, spaces, strict=True)])
    return "".join(f"{_GAP.join(row).rstrip()}\n" for row in zip(*padded, strict=True))


def show_data(found: Any, *, output: Output) -> None:
    """Print for programs, as JSON or YAML.

    Args:
        found: anything that msgspec can encode.
        output: which of the two.
    """
    data = msgspec.to_builtins(found)
    if output is Output.JSON:
        text = msgspec.json.format(msgspec.json.encode(data)).decode()
        text = _RAW.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    else:
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10**6).rstrip("\n")
    print(text, flush=True)  # whoever watches wants it now


def table(*columns: str) -> Table:
    """An empty table as kubectl's: capital heads, no lines."""
    made = Table(box=None, pad_edge=False, padding=(0, len(_GAP), 0, 0), header_style="bold")
    for name in columns:
        made.add_column(Text(name), no_wrap=True)
    return made


def age(since: str, *, now: datetime) -> str:
    """How long ago that was, as kubectl writes it: ``5d``, ``3h20m``, ``42s``; empty where it is not known."""
    try:
        seconds = int((now - datetime.fromisoformat(since)).total_seconds())
    except (ValueError, TypeError):
        return ""
    for place, (letter, size) in enumerate(_STEPS):
        whole, rest = divmod(max(0, seconds), size)
        if whole:
            smaller = _STEPS[place + 1] if place + 1 < len(_STEPS) else ("s", 1)
            second = rest // smaller[1] if whole < 10 else 0
            return f"{whole}{letter}{second}{smaller[0]}" if second else f"{whole}{letter}"
    return f"{max(0, seconds)}s"


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)
