"""Tables as text."""

import json

import pytest
import yaml
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cli.kubectl.flags import Output
from cli.kubectl.printing import harmless, plain, show, show_data, table
from cli.kubectl.session import tell

HOSTILE = "\x1b]0;mine\x1b[2J\x9b31m\x7fA100\nnode-9\t\u202eok\u2028"
SHOWN = "\ufffd]0;mine\ufffd[2J\ufffd31m\ufffdA100 node-9 \ufffdok "


def rows(count: int) -> Table:
    made = table("NODE", "MEMORY", "MODEL")
    made.columns[1].justify = "right"
    for _ in range(count):
        made.add_row(Text("节点-1", style="bold"), "40 GiB", "")
    return made


def test_a_long_table_looks_as_a_short_one() -> None:
    (head, row) = plain(rows(1)).splitlines()
    assert row == "节点-1  40 GiB"
    assert plain(Group(rows(3000), Text("the end"))).splitlines() == [head, *[row] * 3000, "the end"]


def hostile() -> Group:
    """Text of others in every place where there can be text."""
    made = table("NODE", "MODEL")
    made.columns[1].no_wrap = False
    made.add_row(Text(HOSTILE, style="bold"), HOSTILE)
    return Group(made, Text(HOSTILE), Padding(Text(HOSTILE), (0, 0, 0, 2)))


def test_what_others_wrote_gives_the_terminal_no_orders() -> None:
    shown = SHOWN.rstrip()
    assert plain(hostile()).splitlines() == [
        f"{'NODE':{len(SHOWN)}}  MODEL",
        f"{SHOWN}  {shown}",
        shown,
        f"  {shown}",
    ]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_nor_does_it_where_there_are_colours(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")

    show(hostile())

    out, _ = capsys.readouterr()
    assert out.count("\n") == 4
    assert out.count(SHOWN.strip()) == 4
    orders = out.replace("\x1b[1m", "").replace("\x1b[0m", "")  # bold and its end are our own
    assert is_terminal == (orders != out)
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in orders.replace("\n", ""))


def test_styles_stay_where_they_were() -> None:
    cleaned = harmless(Text.assemble(("\x1b", "red"), "a\nb"))

    assert isinstance(cleaned, Text)
    assert (cleaned.plain, [(span.start, span.end) for span in cleaned.spans]) == ("\ufffda b", [(0, 1)])


def test_programs_get_it_to_the_letter(capsys: pytest.CaptureFixture[str]) -> None:
    for output, read in ((Output.JSON, json.loads), (Output.YAML, yaml.safe_load)):
        show_data({"product": HOSTILE}, output=output)
        out, _ = capsys.readouterr()

        assert read(out) == {"product": HOSTILE}
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in out.replace("\n", ""))


def test_errors_and_warnings_give_no_orders_either(capsys: pytest.CaptureFixture[str]) -> None:
    tell(f"error: there is no {HOSTILE}")

    _, err = capsys.readouterr()
    assert err == f"error: there is no {' '.join(SHOWN.split())}\n"
