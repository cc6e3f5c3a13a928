"""The demo as a user runs it: a process of its own, with nothing but PATH and HOME."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cli.demo import run_demo as run_demo_here
from cli.interrupts import Interrupts

EXAMPLES = Path(__file__).parents[2] / "examples"
DEMO = (str(Path(sys.executable).parent / "fracgpu"), "demo")
ENVIRONMENT = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/")}


async def run_demo(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *DEMO,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT | (environment or {}),
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def containers(report: dict[str, Any]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    return {placed["pod"]: placed["containers"] for placed in report["placed"]}


async def test_the_examples_go_where_they_fit_and_the_rest_is_told_why() -> None:
    code, out, err = await run_demo("--once", "--json", environment={"FRACGPU_PORT": "1", "FRACGPU_REPLICAS": "7"})
    assert code == 0, err
    report = json.loads(out)
    assert report.keys() == {"nodes", "placed", "waiting", "refused"}

    placed = containers(report)
    assert sum("embeddings" in pod for pod in placed) == 3
    want_units = {
        "team-a/chat": {"server": [32]},
        "team-b/vision": {"model": [12]},
        "team-b/training": {"trainer": [40, 40]},
        "team-a/transcription": {"whisper": [6]},
        "team-b/from-hami": {"llm": [6]},
    }
    for pod, want in want_units.items():
        assert {name: [share["units"] for share in shares] for name, shares in placed[pod].items()} == want
    assert len({share["gpu"] for share in placed["team-b/training"]["trainer"]}) == 2
    (notebook,) = placed["team-b/notebook"]["jupyter"]
    assert notebook["seats"] == 1

    held: dict[str, int] = {}
    for shares in [shares for found in placed.values() for shares in found.values()]:
        for share in shares:
            held[share["gpu"]] = held.get(share["gpu"], 0) + share["units"]
    gpus = {gpu["uuid"]: gpu for node in report["nodes"] for gpu in node["gpus"]}
    assert {uuid: gpu["units_used"] for uuid, gpu in gpus.items() if gpu["units_used"]} == held
    assert all(gpu["units_used"] <= gpu["units"] and gpu["seats_used"] <= gpu["seats"] for gpu in gpus.values())

    (waiting,) = report["waiting"]
    assert waiting["pod"] == "team-b/too-large"
    assert waiting["reason"].startswith("needs 48 GiB on one GPU; the largest free piece is 40 GiB, on node-1")
    (refused,) = report["refused"]
    assert refused["pod"] == "team-a/mistyped"
    assert "'4GB'" in refused["message"]


async def test_a_users_own_manifests_may_be_anything(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").write_text(
        "kind: Pod\nmetadata: 7\n---\njust text\n---\nkind: Service\nmetadata: {name: s}\n"
    )
    (tmp_path / "2.yaml").write_text("{ not: [yaml")
    (tmp_path / "3.json").write_text(json.dumps({"kind": "Pod", "metadata": {"name": "plain"}, "spec": {}}))
    (tmp_path / "4.yaml").write_bytes(b"\x00\xff\xfe binary")
    (tmp_path / "5.yaml").write_text((EXAMPLES / "01-chat.yaml").read_text().replace("16Gi", "39Gi"))
    code, out, err = await run_demo("--once", "--json", "--manifests", str(tmp_path))
    assert code == 0, err
    report = json.loads(out)
    assert [share["units"] for share in containers(report)["team-a/chat"]["server"]] == [78]
    assert len(report["refused"]) == 6
    assert "Traceback" not in err


async def test_null_and_odd_fields_end_in_refusals(tmp_path: Path) -> None:
    head = {"apiVersion": "v1", "kind": "Pod"}
    pod = {"containers": [{"name": "m", "image": "x"}]}
    specs = {
        "init": pod | {"initContainers": None},
        "tolerations": pod | {"tolerations": 5},
        "env": {"containers": [{"name": "m", "image": "x", "env": [{"value": "b"}]}]},
        "nowhere": pod | {"nodeName": "nowhere"},
        "gated": pod | {"schedulingGates": [{"name": "a.b/c"}]},
    }
    for name, spec in specs.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({**head, "metadata": {"name": name}, "spec": spec}))
    code, out, err = await run_demo("--once", "--json", "--manifests", str(tmp_path))
    assert code == 0, err
    report = json.loads(out)
    assert {entry["pod"] for entry in report["refused"]} == {"default/tolerations", "default/env"}
    assert {entry["pod"] for entry in report["waiting"]} == {"default/nowhere", "default/gated"}
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.0, 0.4, 0.8])  # after its first sign of life, so that all stages are met
async def test_a_signal_at_the_start_ends_it_quietly(number: signal.Signals, seconds: float) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own has too long a path
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *DEMO, "--stay", stdout=pipe, stderr=pipe, env=ENVIRONMENT | {"TMPDIR": folder}
        )
        assert process.stderr is not None
        first = await process.stderr.readline()
        await asyncio.sleep(seconds)
        process.send_signal(number)
        _, err = await process.communicate()
        assert os.listdir(folder) == []
    assert process.returncode in (128 + number, 0)
    assert all(line.startswith("starting: ") for line in (first + err).decode().splitlines())


async def test_a_defect_is_one_line_and_its_trace_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Path) -> None:
        raise RuntimeError("it broke")

    monkeypatch.setattr("playground.manifests.load_objects", fail)
    monkeypatch.setattr("cli.demo.make_directory", lambda: tmp_path)
    options: dict[str, Any] = dict.fromkeys(("manifests", "redis_url", "kubeconfig")) | {"once": True, "as_json": False}
    with Interrupts() as interrupts:
        assert await asyncio.to_thread(run_demo_here, **options, interrupts=interrupts) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "a defect of fracgpu ended the demo (RuntimeError: it broke)" in err
    assert str(tmp_path) in err
    assert "Traceback" in (tmp_path / "demo.log").read_text()


async def test_a_temporary_folder_of_a_long_path_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    code, _, err = await run_demo("--once", environment={"TMPDIR": str(folder)})
    assert code == 2
    assert "set TMPDIR to a shorter one" in err


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        (["--manifests", "/no/such/folder"], "cannot be read"),
        (["--json", "--stay"], "use one of them"),
        (["--kubeconfig", "k", "--once"], "is for a demo that stays"),
        (["--kubeconfig", __file__, "--stay"], "name another file"),
        (["--redis-url", "nonsense"], "redis-url"),
        (["--no-such-flag"], "No such option"),
    ],
)
async def test_wrong_arguments_are_explained(arguments: list[str], want: str) -> None:
    code, out, err = await run_demo(*arguments)
    assert code == 2
    assert want in err
    assert "Traceback" not in err
    assert out == ""


async def test_nothing_outlives_a_killed_demo() -> None:
    process = await asyncio.create_subprocess_exec(*DEMO, "--stay", stdout=asyncio.subprocess.PIPE, env=ENVIRONMENT)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while b"node-4" not in await process.stdout.read(4096):
            pass
    children = descendants(process.pid)
    assert len(children) == 7  # Redis, webhook, extender, four device plugins
    watched = [os.pidfd_open(pid) for pid in children]
    process.send_signal(signal.SIGKILL)
    await process.wait()
    loop = asyncio.get_running_loop()
    for fd in watched:
        ended = asyncio.Event()
        loop.add_reader(fd, ended.set)
        async with asyncio.timeout(20):
            await ended.wait()
        loop.remove_reader(fd)
        os.close(fd)


def descendants(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [grandchild for child in children for grandchild in descendants(child)]
