"""Runs of made-up traces: what they place breaks no rule, and is the same every time."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fracgpu.annotations import PlacementPolicy
from fracgpu.errors import SettingError
from fracgpu.hosts import HostAmount
from replay.parallel import Stopped, run_seeds
from replay.report import placements_heading, summarize, written
from replay.runs import Bin, Experiment, run_seed, sort_into_bins
from replay.workloads import TraceNode, TracePod, inflated
from tests.replay.checking import problems_of, ratio_of
from tests.replay.traces import nodes, pods, write_nodes, write_pods

POLICIES: tuple[PlacementPolicy, ...] = get_args(PlacementPolicy)
BIG = HostAmount(64000, 262144)


@pytest.mark.parametrize("policy", POLICIES)
@given(nodes=nodes(), pods=pods(), inflate=st.sampled_from([0.5, 1.0, 1.3]), seed=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_no_placement_breaks_a_rule(
    policy: PlacementPolicy, nodes: list[TraceNode], pods: list[TracePod], inflate: float, seed: int
) -> None:
    experiment = Experiment(tuple(nodes), tuple(pods), policy, inflate, wants_rows=True)
    run = run_seed(experiment, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        placements = Path(folder) / "placements.csv"
        placements.write_text(placements_heading() + written(run.rows))
        files = {
            "nodes": write_nodes(Path(folder) / "nodes.csv", nodes),
            "pods": write_pods(Path(folder) / "pods.csv", pods),
        }
        assert problems_of(placements, **files) == []
        assert run.ratio_percent == ratio_of(placements, **files, seed=seed)
    assert run.arrivals == len(run.rows)
    assert run.placed == sum(bool(row[3]) for row in run.rows)
    assert run.capacity_milli - run.placed_milli == sum(bin.free_milli for bin in run.bins)


@given(nodes=nodes(), pods=pods(), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_what_found_no_place_has_none(nodes: list[TraceNode], pods: list[TracePod], seed: int) -> None:
    """Without deletions room only shrinks: a pod that is turned away would not fit on what is left at the end."""
    experiment = Experiment(tuple(nodes), tuple(pods), "fragmentation", 1.0, wants_rows=True)
    run = run_seed(experiment, seed=seed)
    free = {(node.name, gpu): 1000 for node in nodes for gpu in range(node.gpus)}
    hosts = {node.name: node.host for node in nodes}
    by_name = {pod.name: pod for pod in pods}
    for _, _, name, where, gpus, _ in run.rows:
        if where:
            hosts[where] = hosts[where].minus(by_name[name].host)
            for gpu in gpus.split("+") if gpus else ():
                free[where, int(gpu)] -= by_name[name].gpu_milli
    for _, _, name, where, _, reason in run.rows:
        pod = by_name[name]
        for node in nodes if not where else ():
            room = sum(free[node.name, gpu] >= pod.gpu_milli for gpu in range(node.gpus))
            accepted = not pod.models or node.model in pod.models
            has_host = all(asked <= left for asked, left in zip(pod.host, hosts[node.name], strict=True))
            assert not (has_host and (not pod.gpus or (accepted and room >= pod.gpus))), reason


@pytest.mark.parametrize(
    ("pod", "want"),
    [
        (TracePod("a", HostAmount(4000, 999999), 0, 0), "no node has 4 CPUs and 976.56 GiB of memory free"),
        (TracePod("a", HostAmount(1000, 1024), 1, 500, ("T4",)), "nodes with 1 CPU and 1 GiB of memory free none has"),
        (TracePod("a", HostAmount(1000, 1024), 1, 800), "none has 0.8 of a GPU free: the largest piece there is 0.7"),
        (TracePod("a", HostAmount(1000, 1024), 1, 1000), "none has a whole GPU free: the largest piece there is 0.7"),
        (TracePod("a", HostAmount(), 3, 1000), "none has 3 whole GPUs free: the most on one there are 0"),
    ],
)
def test_the_reason_says_what_is_missing(pod: TracePod, want: str) -> None:
    nodes = (TraceNode("n-1", BIG, 2, "G2"), TraceNode("n-2", BIG, 1, "G2"))
    fillers = [TracePod(f"f-{number}", HostAmount(1000, 1024), 1, 300) for number in range(3)]
    experiment = Experiment(nodes, (*fillers, pod), "spread", 1.0, wants_rows=True)
    runs = [run_seed(experiment, seed=seed) for seed in range(20)]
    last = [run for run in runs if run.rows[-1][2] == "a"]  # in some order the fillers come first, one on each GPU
    assert last
    for run in last:
        assert run.rows[-1][3:5] == ("", "")
        assert want in run.rows[-1][5]
        assert "," not in run.rows[-1][5]


def test_one_leaves_the_trace_as_it_is_and_shuffles_it() -> None:
    pods = tuple(TracePod(f"p-{number:02}", HostAmount(100, 100), 1, 100) for number in range(30))
    experiment = Experiment((TraceNode("n", BIG, 1, "G2"),), pods, "binpack", 1.0, wants_rows=True)
    orders = [[row[2] for row in run_seed(experiment, seed=seed).rows] for seed in (1, 2)]
    assert sorted(orders[0]) == sorted(orders[1]) == [pod.name for pod in pods]
    assert orders[0] != orders[1]


def test_the_curve_ends_where_the_numbers_do() -> None:
    pods = tuple(TracePod(f"p-{number}", HostAmount(100, 100), 1, 400) for number in range(7))
    run = run_seed(Experiment((TraceNode("n", BIG, 2, "G2"),), pods, "binpack", 1.3), seed=3)
    assert run.curve[0] == (0.0, 0.0)
    assert run.curve[-1] == (run.demand_milli / 2000, run.placed_milli / 2000)
    assert all(left <= right for left, right in zip(run.curve, run.curve[1:], strict=False))
    assert run.rows == []


def test_free_pieces_are_sorted_by_size_and_by_what_is_left_beside_them() -> None:
    askers = [TracePod("small", HostAmount(1000, 4096), 1, 100), TracePod("cpu-only", HostAmount(), 0, 0)]
    pieces = [
        ("with-room", HostAmount(1000, 4096), [0, 100, 1000]),
        ("no-cpu", HostAmount(999, 99999), [101, 950]),
    ]
    bins = sort_into_bins(pieces, askers=askers)
    assert bins[0] == Bin(100, 0)
    assert bins[1] == Bin(101, 101)
    assert bins[9] == Bin(1950, 950)
    assert sum(bin.free_milli for bin in bins) == 2151


def test_processes_do_not_change_the_result() -> None:
    pods = tuple(TracePod(f"p-{number}", HostAmount(100, 100), 1, 1 + 37 * number) for number in range(20))
    nodes = tuple(TraceNode(f"n-{number}", BIG, 2, "G2") for number in range(3))
    experiment = Experiment(nodes, pods, "fragmentation", 1.3, wants_rows=True)
    told: list[int] = []
    alone = list(run_seeds(experiment, seeds=[5, 3, 4], jobs=1))
    together = list(run_seeds(experiment, seeds=[5, 3, 4], jobs=2, on_progress=lambda seed, part: told.append(seed)))
    assert [run._replace(seconds=0) for run in together] == [run._replace(seconds=0) for run in alone]
    assert [run.seed for run in together] == [5, 3, 4]
    assert set(told) == {3, 4, 5}
    summary = summarize(experiment, alone)
    assert list(summary.per_seed) == ["5", "3", "4"]
    assert summary.mean == pytest.approx(sum(summary.per_seed.values()) / 3)


@pytest.mark.parametrize("jobs", [1, 2])
def test_runs_end_when_asked_to(jobs: int) -> None:
    pods = tuple(TracePod(f"p-{number}", HostAmount(100, 100), 1, 1 + number) for number in range(20))
    experiment = Experiment((TraceNode("n", BIG, 8, "G2"),), pods, "spread", 50.0)
    with pytest.raises(Stopped):
        list(run_seeds(experiment, seeds=[1, 2], jobs=jobs, is_stopping=lambda: True))


def test_gpus_are_named_by_their_index() -> None:
    pods = (TracePod("p", HostAmount(), 2, 1000),)
    run = run_seed(Experiment((TraceNode("n", BIG, 2, "G2"),), pods, "binpack", 1.0, wants_rows=True), seed=1)
    assert run.rows == [(1, 0, "p", "n", "0+1", "")]


def test_a_demand_that_takes_millions_of_arrivals_is_refused() -> None:
    pods = [TracePod("small", HostAmount(1, 1), 1, 1), *(TracePod(f"p{n}", HostAmount(1, 1), 0, 0) for n in range(99))]
    with pytest.raises(SettingError, match="some 130,000,000 pods would have to arrive"):
        inflated(pods, capacity_milli=1_000_000, ratio=1.3, seed=1)
