"""The packing benchmark: FGD against the paper's words, bounds against known optima, the command from end to end."""

import csv
import json
import math
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.packing.__main__ import main
from benchmarks.packing.bounds import most_milli
from benchmarks.packing.experiment import BENCH_POLICIES, Outcome, Run, find_traces
from benchmarks.packing.fgd import Fgd, FgdPolicies, Fragments, TypicalPod, typical_pods
from benchmarks.packing.published import CLUSTER_GPUS, published_means
from benchmarks.packing.report import results_of, show
from extender.placement.fitting import choose
from extender.placement.policies import Policies
from extender.placement.views import GpuView, HostRoom, NodeView
from fracgpu.errors import SettingError
from fracgpu.hosts import HostAmount
from fracgpu.names import GpuUuid, NodeName
from fracgpu.quantities import Mib
from fracgpu.requests import ContainerRequest, PodRequest
from replay.engine import Cluster
from replay.workloads import TraceNode, TracePod

MODELS = ("A", "B")


def node(name: str = "n", *, cpu: int = 64_000, gpus: int = 1, model: str = "A") -> TraceNode:
    return TraceNode(name, HostAmount(cpu, 1000), gpus, model)


def pod(
    milli: int, *, gpus: int = 1, cpu: int = 0, memory: int = 0, models: tuple[str, ...] = (), name: str = "p"
) -> TracePod:
    return TracePod(name, HostAmount(cpu, memory), gpus, milli, models)


def allocated(nodes: Sequence[TraceNode], pods: Sequence[TracePod], policies: Policies) -> int:
    cluster = Cluster(nodes, policies=policies)
    return sum(each.demand_milli for each in pods if cluster.place(each) is not None)


class PaperNode:
    """A node as the paper has it: free CPU, a model, and free thousandths of each GPU in order."""

    def __init__(self, model: str, cpu: int, free: list[int]) -> None:
        self.model, self.cpu, self.free = model, cpu, free

    def takes(self, task: TypicalPod) -> bool:
        roomy = sum(free >= task.gpu_milli for free in self.free)
        return task.cpu_milli <= self.cpu and roomy >= task.gpus and (not task.models or self.model in task.models)

    def fragment(self, typical: Counter[TypicalPod]) -> Fraction:
        """The expectation, over typical tasks, of the free GPU thousandths that the task cannot use."""
        expected = Fraction(0)
        for task, count in typical.items():
            if task.gpus and self.takes(task):
                useless = sum(free for free in self.free if free < task.gpu_milli)
            else:
                useless = sum(self.free)
            expected += Fraction(count, typical.total()) * useless
        return expected

    def after(self, task: TypicalPod, gpus: Sequence[int]) -> "PaperNode":
        free = [each - task.gpu_milli if number in gpus else each for number, each in enumerate(self.free)]
        return PaperNode(self.model, self.cpu - task.cpu_milli, free)

    def best(self, task: TypicalPod, typical: Counter[TypicalPod]) -> tuple[int, list[int]] | None:
        """The score of the best place for a task, and its GPUs."""
        if not self.takes(task):
            return None
        roomy = [number for number, free in enumerate(self.free) if free >= task.gpu_milli]
        choices = [[number] for number in roomy] if task.gpus == 1 else [roomy[: task.gpus]]
        scores = []
        for gpus in choices:
            less = self.fragment(typical) - self.after(task, gpus).fragment(typical)
            scores.append(math.floor(100 / (1 + math.exp(-float(less) / 1000))))
        return max(scores), choices[scores.index(max(scores))]


def random_task(rng: random.Random) -> TypicalPod:
    gpus = rng.choice((0, 1, 1, 1, 1, 2, 4))
    milli = 0 if not gpus else 1000 if gpus > 1 else rng.choice((1000, rng.randrange(50, 1000, 50)))
    models = tuple(rng.sample(MODELS, 1)) if gpus and rng.random() < 0.3 else ()
    return TypicalPod(rng.randrange(0, 16_001, 2000), gpus, milli, models)


def as_view(node: PaperNode) -> NodeView:
    size = HostAmount(64_000, 1000)
    gpus = [
        GpuView(GpuUuid(f"GPU-{number}"), 1000, 1000, free, free, product=node.model, memory=Mib(1000))
        for number, free in enumerate(node.free)
    ]
    return NodeView.of(NodeName("n"), unit=Mib(1), gpus=gpus, host=HostRoom(size, HostAmount(node.cpu, 1000)))


@pytest.mark.parametrize("seed", range(200))
def test_fgd_scores_and_chooses_as_the_paper_says(seed: int) -> None:
    rng = random.Random(seed)
    typical = Counter({random_task(rng): rng.randrange(1, 100) for _ in range(rng.randrange(1, 12))})
    node = PaperNode(
        rng.choice(MODELS),
        rng.randrange(0, 32_001, 1000),
        [rng.choice((0, 1000, rng.randrange(0, 1001, 10))) for _ in range(rng.randrange(1, 9))],
    )
    task = random_task(rng)._replace(models=())
    want = node.best(task._replace(cpu_milli=min(task.cpu_milli, node.cpu)), typical)

    view, fgd = as_view(node), Fgd(Fragments(typical))
    asked = (ContainerRequest("main", task.gpus, task.gpu_milli, 0),) if task.gpus else ()
    request = PodRequest(asked, host=HostAmount(min(task.cpu_milli, node.cpu), 0))
    rank = fgd.rank(view, request)
    if want is None:
        assert rank is None
        return
    score, gpus = want
    assert rank == (-score, 0)
    if task.gpus:
        plan = choose(view, request, order=fgd.order(view, request))
        assert plan is not None
        assert sorted(plan.per_gpu()) == [f"GPU-{number}" for number in gpus]


def test_typical_pods_are_the_most_frequent_until_95_percent() -> None:
    pods = [pod(500, memory=number) for number in range(90)]  # memory does not tell them apart
    pods += [pod(250, models=("A",))] * 6 + [pod(100)] * 4
    found = typical_pods(pods)
    assert found == {TypicalPod(0, 1, 500, ()): 90, TypicalPod(0, 1, 250, ("A",)): 6}


def test_fgd_keeps_the_cpu_that_typical_pods_need_and_else_takes_the_first_node() -> None:
    trace = [pod(1000, cpu=4000)] * 9 + [pod(0, gpus=0, cpu=2000)]
    nodes = [node("a", cpu=4000), node("b", cpu=32_000), node("c", cpu=32_000)]
    cluster = Cluster(nodes, policies=FgdPolicies(trace))
    without_gpu = cluster.place(pod(0, gpus=0, cpu=2000))
    assert without_gpu is not None
    assert (without_gpu.node, without_gpu.gpus) == ("b", ())
    placed = [cluster.place(trace[0]) for _ in range(4)]
    assert [each and each.node for each in placed] == ["a", "b", "c", None]


BOUNDS = {
    "a share too large for two on a GPU leaves the rest of it": ([node()], [pod(810)] * 3, 810),
    "what is left of it is filled by what fits there": ([node()], [pod(810)] * 3 + [pod(190)], 1000),
    "on each of several GPUs": ([node(gpus=4)], [pod(600)] * 9 + [pod(400)] * 3, 3 * 1000 + 600),
    "no more than what arrives": ([node(gpus=4)], [pod(250)] * 3, 750),
    "no more GPUs than there is CPU for": ([node(cpu=4000, gpus=2)], [pod(1000, cpu=4000)] * 2, 1000),
    "no more than there is memory for": ([node(gpus=2)], [pod(1000, memory=1000)] * 2, 1000),
    "a pod of several GPUs needs them on one node": ([node("a"), node("b")], [pod(1000, gpus=2)], 0),
    "and gets them where one has them": ([node("a", gpus=2), node("b")], [pod(1000, gpus=2)] * 2, 2000),
    "only GPUs of an acceptable model": (
        [node("a"), node("b", model="B")],
        [pod(1000, models=("B", "C"), name="p1"), pod(1000, models=("B", "C"), name="p2")],
        1000,
    ),
    "pods without a GPU need not be placed": ([node(cpu=1000)], [pod(0, gpus=0, cpu=1000), pod(1000, cpu=1000)], 1000),
    "shares too small to count as cuts": ([node()], [pod(5)] * 300, 1000),
    "shares in between two cuts are not taken for larger": ([node()], [pod(333)] * 3, 999),
    "a pod needs its CPU on one node": ([node("a", cpu=4000), node("b", cpu=4000)], [pod(1000, cpu=6000)], 0),
    "nobody asks": ([node()], [], 0),
}


@pytest.mark.parametrize(("nodes", "pods", "want_milli"), BOUNDS.values(), ids=BOUNDS)
def test_the_bound_is_the_optimum_of_small_cases(nodes: list[TraceNode], pods: list[TracePod], want_milli: int) -> None:
    assert most_milli(nodes, pods) == pytest.approx(want_milli)


@pytest.mark.parametrize("seed", range(12))
def test_no_policy_exceeds_the_bound(seed: int) -> None:
    rng = random.Random(seed)
    nodes = [
        node(f"n{number}", cpu=rng.choice((8000, 16_000)), gpus=rng.choice((1, 2, 4)), model=rng.choice(MODELS))
        for number in range(5)
    ]
    sizes = [rng.randrange(1, 1001) for _ in range(4)]  # most are cut in between two hundredths
    pods = [
        pod(rng.choice(sizes), cpu=rng.randrange(0, 6000, 500), models=rng.choice(((), ("A",))), name=f"p{number}")
        for number in range(40)
    ]
    bound = most_milli(nodes, pods)
    found = [
        allocated(nodes, pods, policies)
        for policies in (Policies("fragmentation"), Policies("binpack"), Policies("spread"), FgdPolicies(pods))
    ]
    assert 0 < max(found) <= bound + 1e-6


def write_traces(directory: Path) -> None:
    with (directory / "openb_node_list_gpu_node.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("sn", "cpu_milli", "memory_mib", "gpu", "model"))
        rows.writerows((f"node-{number}", 32_000, 262_144, 4, "A") for number in range(4))
    for trace, sizes in (("default", (1000,)), ("other", (810, 400, 150))):
        with (directory / f"openb_pod_list_{trace}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec"))
            rows.writerows((f"pod-{number}", 2000, 1024, 1, sizes[number % len(sizes)], "") for number in range(12))


def test_the_command_runs_all_traces_and_policies_and_writes_every_figure(tmp_path: Path) -> None:
    write_traces(tmp_path)
    output = tmp_path / "bench.json"
    arguments = ["--traces", str(tmp_path), "--seeds", "1-2,7", "--jobs", "2", "--output", str(output)]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.packing", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(output.read_text())
    assert results["gpus"] == 16
    assert list(results["traces"]) == ["default", "other"]
    for trace in results["traces"].values():
        assert list(trace["policies"]) == list(BENCH_POLICIES)
        assert trace["published"] == {}  # another cluster than the published one
        for found in trace["policies"].values():
            assert found["per_seed"].keys() == trace["bound"]["per_seed"].keys() == {"1", "2", "7"}
            assert found["mean"] == pytest.approx(sum(found["per_seed"].values()) / 3, abs=1e-3)
            assert all(0 < found["per_seed"][seed] <= most for seed, most in trace["bound"]["per_seed"].items())
    # Whole GPUs, more of them than there are, with CPU for all: every policy fills the cluster.
    whole = results["traces"]["default"]["policies"]
    assert {name: found["mean"] for name, found in whole.items()} == dict.fromkeys(BENCH_POLICIES, 100.0)
    assert "30/30 " in run.stderr
    lines = [line.split() for line in run.stdout.splitlines() if line.strip()]
    assert ["default", "100.00", "100.00", "100.00", "100.00", "-", "100.00"] in lines
    assert [line[0] for line in lines if line[0] in ("trace", "default", "other", "mean")] == [
        "trace",
        "default",
        "other",
        "mean",
    ]
    again = tmp_path / "again.json"
    assert main([*arguments[:4], "--policies", "fgd,spread", "--output", str(again)]) == 0
    for name, trace in json.loads(again.read_text())["traces"].items():
        assert list(trace["policies"]) == ["spread", "fgd"]
        for policy, found in trace["policies"].items():
            assert found["per_seed"] == results["traces"][name]["policies"][policy]["per_seed"]


def test_without_traces_it_says_what_is_needed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([]) == 2
    assert "--traces DIR" in capsys.readouterr().err
    assert main(["--traces", str(tmp_path)]) == 2
    assert "no list of nodes" in capsys.readouterr().err
    (tmp_path / "openb_node_list_a.csv").touch()
    assert main(["--traces", str(tmp_path)]) == 2
    assert "no list of pods" in capsys.readouterr().err
    (tmp_path / "openb_pod_list_a.csv").touch()
    assert main(["--traces", str(tmp_path), "--seeds", "1", "--output", str(tmp_path / "out.json")]) == 2
    assert "openb_node_list_a.csv has no column sn" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_of_several_lists_of_nodes_that_of_nodes_with_gpus_is_taken(tmp_path: Path) -> None:
    for name in ("openb_node_list_all_node.csv", "openb_node_list_other.csv", "openb_pod_list_a.csv"):
        (tmp_path / name).touch()
    with pytest.raises(SettingError, match="several"):
        find_traces(tmp_path)
    (tmp_path / "openb_node_list_gpu_node.csv").touch()
    nodes, pods = find_traces(tmp_path)
    assert nodes.name == "openb_node_list_gpu_node.csv"
    assert [file.name for file in pods] == ["openb_pod_list_a.csv"]


REFUSED = {
    "seeds backwards": (("--seeds", "5-3"), "ends before it begins"),
    "no seed": (("--seeds", "42,x"), "'x'; seeds are whole numbers"),
    "too many seeds": (("--seeds", "1-1001"), "more than 1000 seeds"),
    "unknown policy": (("--policies", "fgd,best"), "no such policy: best"),
    "no jobs": (("--jobs", "0"), "whole number from 1"),
}


@pytest.mark.parametrize(("arguments", "want_sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused(
    arguments: tuple[str, ...], want_sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 2
    assert want_sentence in capsys.readouterr().err


def test_the_table_tells_the_difference_to_what_was_published() -> None:
    outcomes = {
        Run(Path("nodes.csv"), Path(f"openb_pod_list_{trace}.csv"), policy, seed): Outcome(percent + seed, 1.0)
        for trace, percent in (("default", 95.0), ("gpuspec33", 94.0))
        for policy in ("fgd", "bound")
        for seed in (0, 1)
    }
    results = {
        "machine": {"cpus": 2, "cpu": "CPU", "python": "3.11", "date": "today"},
        **results_of(outcomes, outcomes, gpus=CLUSTER_GPUS),
    }
    console = Console(width=120)
    with console.capture() as printed:
        show(results, console)
    lines = [line.split() for line in printed.get().splitlines()]
    assert ["default", "95.50", "+0.11", "95.39", "95.50"] in lines
    assert ["gpuspec33", "94.50", "-0.05", "94.55", "94.50"] in lines
    assert ["mean", "95.00", "+0.03", "94.97", "95.00"] in lines
    assert ["default", "87.47", "90.85", "91.88", "92.00", "93.08", "95.39"] in lines


def test_published_means_are_of_the_published_cluster_only() -> None:
    assert published_means("multigpu30", gpus=CLUSTER_GPUS)["FGD"] == 96.46
    assert published_means("multigpu30", gpus=16) == published_means("unknown", gpus=CLUSTER_GPUS) == {}
