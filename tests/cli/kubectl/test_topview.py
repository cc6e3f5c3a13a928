"""`top` and `pods` as a person reads them, to the letter, and as programs get them."""

import re
from datetime import UTC, datetime

import msgspec
import pytest
from rich.console import Console

from cli.kubectl import podrows
from cli.kubectl.bars import bar
from cli.kubectl.cluster import Cluster
from cli.kubectl.printing import age, least_width, plain
from cli.kubectl.topview import draw, lines_of, only, summary
from fracgpu.pods import PodStatus
from tests.cli.kubectl.clusters import cluster, created, deleted, gpu, node, placed, waiting
from tests.extender.builders import pod

NOW = datetime(2026, 11, 21, 15, 20, tzinfo=UTC)


def some() -> Cluster:
    """Two nodes; on the second nothing is measured, and its plugin has not said what is granted."""
    return cluster(
        node(
            "node-1",
            gpu("GPU-1"),
            gpu("GPU-1b", index=1, problem="Xid 79"),
            held={"chat": ("GPU-1", 40), "over": ("GPU-1", 10), "gone": ("GPU-1", 2)},
            used={"chat": 10240, "over": 6144},
        ),
        node("node-2", gpu("GPU-2", units=44, product="NVIDIA L4"), observed=""),
        placed("chat", "node-1", "GPU-1", units=40),
        placed("over", "node-1", "GPU-1", units=10),
        placed("new", "node-2", "GPU-2", units=4, phase="Pending"),
        waiting("large", units=90, says="no"),
    )


def test_top() -> None:
    assert plain(draw(some().picture, with_pods=False)) == (
        "NODE    GPU  MODEL                  MEMORY                  USED  GRANTED      OF  SEATS\n"
        "node-1  0    NVIDIA A100-SXM4-40GB  ████████▒▒▒▒▒░░░░░░░  16 GiB   26 GiB  40 GiB    0/4\n"
        "        1    NVIDIA A100-SXM4-40GB  ░░░░░░░░░░░░░░░░░░░░   0 MiB    0 MiB  40 GiB    0/4\n"
        "node-2  0    NVIDIA L4              ▒▒░░░░░░░░░░░░░░░░░░       -    2 GiB  22 GiB    0/4\n"
        "\n"
        "node-2: its device plugin has not said yet what is granted there\n"
        "node-1, GPU 1: not healthy: Xid 79\n"
        "2 nodes with 3 GPUs: 28 GiB of 102 GiB granted (27 %), 16 GiB used. 1 pod waits for GPUs: team-a/large.\n"
    )


def test_top_with_who_holds_what() -> None:
    text = plain(draw(some().picture, with_pods=True, bar_width=5))

    assert text.splitlines()[1:5] == [
        "node-1  0    NVIDIA A100-SXM4-40GB  ██▒░░                   16 GiB   26 GiB  40 GiB    0/4",
        "               team-a/chat                                  10 GiB   20 GiB",
        "               team-a/gone                                       -    1 GiB",
        "               team-a/over                                   6 GiB    5 GiB",
    ]
    assert text.splitlines()[7] == "               team-a/new             bound, not given yet       -    2 GiB"


@pytest.mark.parametrize("with_pods", [True, False])
def test_the_lines_are_foretold(with_pods: bool) -> None:
    picture = some().picture

    drawn = draw(picture, with_pods=with_pods)

    assert len(plain(drawn).splitlines()) == lines_of(picture, with_pods=with_pods)


def test_a_table_says_how_wide_it_has_to_be() -> None:
    table, *_ = draw(some().picture, with_pods=True).renderables

    widest = max(map(len, plain(table).splitlines()))
    least = least_width(table)

    assert widest <= least < widest + 3  # the last column's own space
    assert "…" not in plain(table, width=least)
    assert "…" in plain(table, width=least - 10)


def test_top_of_one_node_and_of_none() -> None:
    picture = only(some().picture, nodes=["node-2"])

    assert [found.name for found in picture.nodes] == ["node-2"]
    assert summary(picture).startswith("1 node with 1 GPU: 2 GiB of 22 GiB granted (9 %).")
    assert plain(draw(cluster().picture, with_pods=False)) == ("No node has announced GPUs (kubectl get gpunodes).\n")


@pytest.mark.parametrize(
    ("taken", "used", "want"),
    [
        (0, None, "░░░░░░░░░░"),
        (100, None, "▒▒▒▒▒▒▒▒▒▒"),
        (1, None, "▒░░░░░░░░░"),  # whatever is not nothing is seen
        (99, 99, "█████████░"),  # and only what is full looks full
        (50, 20, "██▒▒▒░░░░░"),
        (50, 1, "█▒▒▒▒░░░░░"),
        (50, 80, "█████░░░░░"),  # what is used beyond that is red, and no part of it
        (120, 0, "▒▒▒▒▒▒▒▒▒▒"),
    ],
)
def test_bars(taken: int, used: int | None, want: str) -> None:
    assert bar(offered=100, taken=taken, used=used, width=10).plain == want


def test_overuse_is_red_on_a_terminal_and_nothing_is_coloured_elsewhere() -> None:
    found = draw(some().picture, with_pods=True)

    console = Console(force_terminal=True, color_system="standard", width=200, no_color=False)
    with console.capture() as captured:
        console.print(found)

    assert re.search(r"\x1b\[31m *6 GiB", captured.get())
    assert "\x1b" not in plain(found)


def test_pods() -> None:
    failed = created(pod("refused", units=4, node="node-1", phase="Failed"))
    refused = msgspec.structs.replace(failed, status=PodStatus("Failed", message="Allocate failed: no"))
    ending = deleted(placed("ending", "node-1", "GPU-1", units=4))
    unread = created(pod("unread", annotations={"fracgpu.io/gpu-memory": "4Gi"}))
    found = cluster(
        node(
            "node-1",
            gpu("GPU-1"),
            held={"chat": ("GPU-1", 40), "ending": ("GPU-1", 4)},
            used={"chat": 10240},
        ),
        *(placed("chat", "node-1", "GPU-1", units=40), placed("new", "node-1", "GPU-1", units=4, phase="Pending")),
        *(refused, ending, unread, waiting("large", units=90)),
    )

    rows = podrows.rows_of(found, namespace="team-a", names=())

    assert plain(podrows.draw(rows, now=NOW, is_wide=False, with_namespace=False)) == (
        "NAME     NODE    GPU  MODEL                  ASKED              GRANTED  USED    STATE    AGE\n"
        "chat     node-1  0    NVIDIA A100-SXM4-40GB  20 GiB on one GPU  20 GiB   10 GiB  granted  3h20m\n"
        "ending   node-1  0    NVIDIA A100-SXM4-40GB  2 GiB on one GPU   2 GiB    -       ending   3h20m\n"
        "large    -       -    -                      45 GiB on one GPU  -        -       waiting  3h20m\n"
        "new      node-1  0    NVIDIA A100-SXM4-40GB  2 GiB on one GPU   -        -       bound    3h20m\n"
        "refused  node-1  -    -                      2 GiB on one GPU   -        -       failed   3h20m\n"
        "unread   -       -    -                      -                  -        -       unread   3h20m\n"
        "\n"
        "large: needs 45 GiB on one GPU; the largest free piece is 16 GiB, on node-1; no node could hold it even when "
        "empty: the largest GPU has 40 GiB\n"
        "refused: Allocate failed: no\n"
        "unread: asks by annotation, but was created without the webhook; kubectl fracgpu explain says what to do\n"
    )
    assert podrows.rows_of(found, namespace="team-b", names=()) == []
    assert [row.name for row in podrows.rows_of(found, namespace="", names=["chat"])] == ["chat"]


def test_pods_in_full() -> None:
    rows = podrows.rows_of(some(), namespace="", names=["chat", "gone"])

    lines = plain(podrows.draw(rows, now=NOW, is_wide=True, with_namespace=True)).splitlines()

    assert " ".join(lines[0].split()) == (
        "NAMESPACE NAME NODE GPU MODEL ASKED GRANTED USED STATE AGE CONTAINERS UUID PHASE"
    )
    assert lines[1].split()[-4:] == ["3h20m", "main", "GPU-1", "Running"]
    # Of a pod that is gone, or that one may not see, the grant is known.
    assert " ".join(lines[2].split()) == ("team-a gone node-1 0 NVIDIA A100-SXM4-40GB - 1 GiB - granted - main GPU-1 -")
    part = msgspec.to_builtins(podrows.PodList(rows))["pods"][0]["parts"][0]
    assert part == {
        "index": 0,
        "uuid": "GPU-1",
        "product": "NVIDIA A100-SXM4-40GB",
        "containers": ["main"],
        "plannedMiB": 20480,
        "grantedMiB": 20480,
        "seats": 0,
        "usedMiB": 10240,
    }


@pytest.mark.parametrize(
    ("since", "want"),
    [
        ("2026-11-21T15:19:18Z", "42s"),
        ("2026-11-21T15:16:00Z", "4m"),
        ("2026-11-21T15:15:59Z", "4m1s"),
        ("2026-11-21T15:08:59Z", "11m"),
        ("2026-11-21T12:00:00Z", "3h20m"),
        ("2026-11-19T12:00:00Z", "2d3h"),
        ("2026-10-01T12:00:00Z", "51d"),
        ("2026-11-21T15:20:05Z", "0s"),  # the clocks differ
        ("", ""),
    ],
)
def test_ages(since: str, want: str) -> None:
    assert age(since, now=NOW) == want
