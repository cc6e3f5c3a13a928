"""fracgpu replay as a user runs it: a process of its own, on a trace that is made up here, and on an API server."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import random
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from fracgpu.names import ANNOTATION_GPU_MEMORY
from playground.api.apiserver import ApiServer
from tests.extender.builders import gpu_node, grant
from tests.replay.checking import problems_of, ratio_of

ROOT = Path(__file__).parents[2]
REPLAY = (sys.executable, "-c", "from cli.main import main; main()", "replay")
ENVIRONMENT = {"PATH": os.defpath, "HOME": "/nonexistent"}


async def run_replay(*arguments: str | Path, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *REPLAY,
        *map(str, arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT | (environment or {}),
        cwd=ROOT,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    file = tmp_path / "nodes.csv"
    lines = [f"node-{n},{16000 + 16000 * (n % 3)},65536,{1 + n % 4},{'T4' if n % 2 else 'G2'}" for n in range(8)]
    file.write_text("\n".join(["sn,cpu_milli,memory_mib,gpu,model", *lines, ""]))
    return file


@pytest.fixture
def pods(tmp_path: Path) -> Path:
    rng = random.Random(7)
    file = tmp_path / "pods.csv"
    lines = []
    for number in range(60):
        gpus = rng.choice([0, 1, 1, 1, 1, 2, 4])
        milli = 1000 if gpus > 1 else rng.choice([125, 250, 500, 1000]) if gpus else 0
        models = rng.choice(["", "", "", "T4", "T4|G2"]) if gpus else ""
        lines.append(
            f"pod-{number},{rng.choice([1000, 2000, 4000])},{rng.choice([1024, 4096])},{gpus},{milli},{models}"
        )
    file.write_text("\n".join(["name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec", *lines, ""]))
    return file


@pytest.mark.parametrize("policy", ["fragmentation", "binpack", "spread"])
async def test_a_replay_prints_what_its_placements_add_up_to(
    nodes: Path, pods: Path, tmp_path: Path, policy: str
) -> None:
    written = tmp_path / "placements.csv"
    code, out, err = await run_replay(
        *("--nodes", nodes, "--pods", pods, "--policy", policy, "--seeds", "1-2,7", "--placements", written),
        *("--json", "--jobs", "1"),
    )
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert problems_of(written, nodes=nodes, pods=pods) == []
    assert list(summary["per_seed"]) == ["1", "2", "7"]
    for seed, ratio in summary["per_seed"].items():
        assert ratio == pytest.approx(ratio_of(written, nodes=nodes, pods=pods, seed=int(seed)))
    assert summary["mean"] == pytest.approx(sum(summary["per_seed"].values()) / 3)
    assert (summary["policy"], summary["inflate"], summary["nodes"], summary["gpus"]) == (policy, 1.3, 8, 20)
    lines = written.read_text().splitlines()
    assert len(lines) == 1 + sum(found["arrivals"] for found in summary["seeds"].values())
    assert sum(line.endswith(",") for line in lines) == sum(found["placed"] for found in summary["seeds"].values())
    assert all(found["unplaced"] > 0 for found in summary["seeds"].values())  # 1.3 times what there is


async def test_two_runs_and_any_number_of_jobs_say_the_same(nodes: Path, pods: Path, tmp_path: Path) -> None:
    texts, pictures, ratios = set(), set(), set()
    for number, (jobs, hash_seed) in enumerate([("1", "1"), ("2", "2"), ("2", "3")]):
        written, plot = tmp_path / f"{number}.csv", tmp_path / f"{number}.png"
        code, out, err = await run_replay(
            *("--nodes", nodes, "--pods", pods, "--seeds", "5,3", "--jobs", jobs, "--json"),
            *("--placements", written, "--plot", plot),
            environment={"PYTHONHASHSEED": hash_seed, "MPLCONFIGDIR": str(tmp_path)},
        )
        assert (code, err) == (0, "")
        texts.add(written.read_text())
        pictures.add(plot.read_bytes())
        ratios.add(json.dumps(json.loads(out)["per_seed"]))
    assert len(texts) == len(pictures) == len(ratios) == 1
    assert pictures.pop().startswith(b"\x89PNG")


async def test_a_person_gets_a_table(nodes: Path, pods: Path) -> None:
    code, out, err = await run_replay("--nodes", nodes, "--pods", pods, "--inflate", "1")
    assert (code, err) == (0, "")
    assert "fragmentation on 8 nodes with 20 GPUs, --inflate 1" in out
    (row,) = [line for line in out.splitlines() if line.startswith("│   42")]
    assert row.split("│")[2].strip() == "60"  # each pod of the trace once
    assert "mean" in out
    assert max(map(len, out.splitlines())) <= 80


TRACE = ("--nodes", "NODES", "--pods", "PODS")


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        ((), "name a trace with --nodes NODES.csv and --pods PODS.csv"),
        (("--nodes", "NODES"), "name a trace"),
        (("--nodes", "/no/such/file", "--pods", "PODS"), "/no/such/file cannot be read"),
        (("--nodes", "PODS", "--pods", "PODS"), "has no column sn"),
        ((*TRACE, "--policy", "best"), "--policy is 'best'; it is binpack, spread or fragmentation"),
        ((*TRACE, "--seeds", "x"), "seeds are whole numbers"),
        ((*TRACE, "--seeds", ""), "seeds are whole numbers"),
        ((*TRACE, "--inflate", "0"), "--inflate is 0; it is the demand as a multiple of all GPUs"),
        ((*TRACE, "--inflate", "-1.5"), "--inflate is -1.5"),
        ((*TRACE, "--inflate", "nan"), "--inflate is nan"),
        ((*TRACE, "--inflate", "inf"), "--inflate is inf"),
        ((*TRACE, "--jobs", "0"), "--jobs is 0"),
        ((*TRACE, "--placements", "/no/such/folder/p.csv"), "--placements /no/such/folder/p.csv cannot be written"),
        ((*TRACE, "--plot", "/no/such/folder/p.png"), "--plot /no/such/folder/p.png cannot be written"),
        ((*TRACE, "--add-nodes", "4"), "--add-nodes is about a real cluster"),
        ((*TRACE, "--manifests", "examples"), "--nodes is about replaying a trace"),
        (("--manifests", "examples"), "it goes with --from-cluster"),
        (("--from-cluster",), "name a directory of manifests with --manifests DIR"),
        (("--from-cluster", "--manifests", "/no/such/folder"), "--manifests /no/such/folder cannot be read"),
        (("--from-cluster", "--manifests", "examples", "--like", "node-1"), "say with --add-nodes how many"),
        (("--from-cluster", "--manifests", "examples"), "no Kubernetes service account to use"),
        (("--from-cluster", "--manifests", "examples", "--kubeconfig", "/no/file"), "/no/file does not exist"),
        (("--no-such-flag",), "No such option"),
    ],
)
async def test_wrong_arguments_are_explained(nodes: Path, pods: Path, arguments: tuple[str, ...], want: str) -> None:
    files = {"NODES": str(nodes), "PODS": str(pods)}
    code, out, err = await run_replay(*(files.get(argument, argument) for argument in arguments))
    assert code == 2, err
    assert want in err
    assert "Traceback" not in err
    assert out == ""


async def test_a_plot_without_matplotlib_says_what_to_install(nodes: Path, pods: Path, tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')")
    code, _, err = await run_replay(
        *("--nodes", nodes, "--pods", pods, "--plot", tmp_path / "p.png"),
        environment={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONSAFEPATH": "1"},
    )
    assert code == 2
    assert "pip install '.[replay]'" in err
    assert not (tmp_path / "p.png").exists()


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_and_its_processes_quietly(
    nodes: Path, pods: Path, number: signal.Signals, jobs: str
) -> None:
    """The progress bar on a terminal shows that it runs; Ctrl-C there reaches all processes of the group."""
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *REPLAY,
        *("--nodes", str(nodes), "--pods", str(pods), "--inflate", "100", "--seeds", "0-999", "--jobs", jobs),
        stdout=asyncio.subprocess.PIPE,
        stderr=slave,
        env=ENVIRONMENT | {"TERM": "xterm"},
        cwd=ROOT,
        start_new_session=True,
    )
    os.close(slave)
    shown = b""
    loop = asyncio.get_running_loop()
    while not re.search(rb"[1-9]\d* of 1000 seeds done", shown):
        shown += await asyncio.wait_for(loop.run_in_executor(None, os.read, master, 4096), timeout=60)
    os.killpg(process.pid, number) if number is signal.SIGINT else process.send_signal(number)
    out, _ = await process.communicate()
    assert process.returncode == 128 + number
    assert out == b""
    while True:  # what it wrote last, until no process has the terminal any more
        try:
            rest = await asyncio.wait_for(loop.run_in_executor(None, os.read, master, 4096), timeout=60)
        except OSError:
            break
        shown += rest
    os.close(master)
    assert b"Traceback" not in shown


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    server = ApiServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def kubeconfig(api: ApiServer, tmp_path: Path) -> Path:
    """Of a cluster with two nodes, each with a GPU of 40 GiB; one of them is half taken."""
    for name, grants in (("node-1", (grant("someone", "GPU-1", units=40),)), ("node-2", ())):
        node = msgspec.to_builtins(gpu_node(name, f"GPU-{name[-1]}", grants=grants))
        node["metadata"] = {"name": name}
        for gpu in node["spec"]["gpus"]:
            gpu.pop("numaNode", None)
        node["spec"] = {key: value for key, value in node["spec"].items() if value is not None}
        node["status"] = {key: value for key, value in node["status"].items() if value is not None}
        await api.cluster.create("gpunodes", node)
        await api.cluster.patch("gpunodes", name, {"status": node["status"]}, subresource="status")
        host = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        await api.cluster.create("nodes", host)
        await api.cluster.patch(
            "nodes", name, {"status": {"allocatable": {"cpu": "8", "memory": "32Gi"}}}, subresource="status"
        )
    file = tmp_path / "kubeconfig"
    file.write_text(api.kubeconfig())
    return file


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    folder = tmp_path / "manifests"
    folder.mkdir()
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "chat", "namespace": "team-a"},
        "spec": {
            "replicas": 4,
            "template": {
                "metadata": {"annotations": {ANNOTATION_GPU_MEMORY: "20Gi"}},
                "spec": {
                    "containers": [{"name": "main", "image": "x", "resources": {"requests": {"cpu": "1"}}}],
                },
            },
        },
    }
    (folder / "chat.json").write_text(json.dumps(deployment))
    return folder


async def test_it_says_what_would_fit_into_a_cluster(api: ApiServer, kubeconfig: Path, manifests: Path) -> None:
    before = await api.cluster.list("pods"), await api.cluster.list("gpunodes")
    question = ("--from-cluster", "--manifests", manifests)
    code, out, err = await run_replay(*question, "--kubeconfig", kubeconfig)
    assert (code, err) == (0, "")
    assert "3 of 4 pods that ask for GPUs would fit; the cluster has 2 nodes with 2 GPUs." in " ".join(out.split())
    assert "the largest free piece is 0 MiB" in " ".join(out.split())

    code, out, err = await run_replay(*question, "--json", environment={"KUBECONFIG": str(kubeconfig)})
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["asking"], found["fitting"], found["nodes"], found["added_nodes"]) == (4, 3, 2, [])
    assert [pod["node"] for pod in found["pods"]].count("node-1") == 1
    assert before == (await api.cluster.list("pods"), await api.cluster.list("gpunodes"))


async def test_it_says_what_would_fit_after_a_change(kubeconfig: Path, manifests: Path) -> None:
    question = ("--from-cluster", "--kubeconfig", kubeconfig, "--manifests", manifests, "--json")
    code, out, err = await run_replay(*question, "--add-nodes", "1", "--like", "node-2", "--what-if-replicas", "8")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["asking"], found["fitting"], found["added_nodes"], found["replicas"]) == (4, 4, ["added-1"], 8)


async def test_a_cluster_that_does_not_answer_is_told(kubeconfig: Path, manifests: Path, api: ApiServer) -> None:
    await api.stop()
    code, out, err = await run_replay("--from-cluster", "--kubeconfig", kubeconfig, "--manifests", manifests)
    assert (code, out) == (1, "")
    assert "the API server cannot be reached" in err
    assert "Traceback" not in err
