"""Tables as text."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli.kubectl.printing import plain, table


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
