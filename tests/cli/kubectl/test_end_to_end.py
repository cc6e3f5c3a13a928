"""`kubectl fracgpu` through the real kubectl, on the playground's cluster with the real services in it."""

import asyncio
import contextlib
import json
import os
import pty
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.simulation import SimulatedNode
from playground.api.apiserver import ApiServer
from tests.cli.kubectl.kubectl import binary, environment, kubectl
from tests.system.cluster import Cluster, pod

NODES = (SimulatedNode("node-1", "Test GPU", 10240, 1), SimulatedNode("node-2", "Test GPU", 10240, 1))


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """Two nodes with a GPU of 10 GiB each, on which `left` and `right` run, and `waiting` waits."""
    binary()
    directory = Path(tempfile.mkdtemp(prefix="fg-"))  # tmp_path is too long for Unix sockets
    cluster = Cluster(directory, nodes=NODES)
    await cluster.start()
    try:
        await cluster.create(pod("left", "6Gi"))
        await cluster.running("left")
        await cluster.create(pod("right", "5Gi"))
        await cluster.running("right")
        await cluster.create(pod("waiting", "8Gi"))
        await cluster.waiting("waiting")
        await cluster.grants("node-1", lambda names: bool(names))
        await cluster.grants("node-2", lambda names: bool(names))
        yield cluster
    finally:
        await cluster.stop()
        shutil.rmtree(directory)


@pytest.fixture
def kubeconfig(cluster: Cluster, tmp_path: Path) -> Path:
    file = tmp_path / "kubeconfig"
    file.write_text(cluster.api.kubeconfig())
    return file


async def test_a_session_of_a_user(cluster: Cluster, kubeconfig: Path) -> None:
    async def fracgpu(*words: str) -> tuple[int, str, str]:
        return await kubectl("fracgpu", *words, kubeconfig=kubeconfig)

    where = {name: (await cluster.get(name))["spec"]["nodeName"] for name in ("left", "right")}
    assert set(where.values()) == {"node-1", "node-2"}

    code, out, err = await fracgpu("top", "-o", "wide")
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "NODE GPU MODEL MEMORY USED GRANTED OF SEATS"
    for name, size in (("left", "6 GiB"), ("right", "5 GiB")):
        place = next(n for n, line in enumerate(lines) if line.startswith(where[name]))
        assert lines[place].endswith(f"{size} 10 GiB 0/4")
        assert lines[place + 1].startswith(f"team-a/{name} ")
    assert "11 GiB of 20 GiB granted (55 %)" in lines[-1]
    assert lines[-1].endswith("1 pod waits for GPUs: team-a/waiting.")

    code, out, err = await fracgpu("pods", "-n", "team-a")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split() for line in out.splitlines()[1:4]}
    assert rows["left"][1:3] == [where["left"], "0"]
    assert {name: row[-2] for name, row in rows.items()} == {
        "left": "granted",
        "right": "granted",
        "waiting": "waiting",
    }
    assert out.splitlines()[-1].startswith("waiting: needs 8 GiB on one GPU; the largest free piece is 5 GiB")

    code, out, err = await fracgpu("explain", "left", "--namespace", "team-a")
    assert (code, err) == (0, "")
    assert out.startswith(f"team-a/left has 6 GiB on GPU 0 (Test GPU) of {where['left']}\n")
    assert "plan, limits and grant agree" in out

    code, out, err = await fracgpu("explain", "waiting", "-n", "team-a", "-o", "json")
    assert (code, err) == (3, "")
    found = json.loads(out)
    assert found["state"] == "waiting"
    assert [remedy["kind"] for remedy in found["remedies"]] == ["ask-less", "end-pods", "add-node"]
    assert found["remedies"][1]["pods"] == ["team-a/right"]
    assert "Insufficient fracgpu.io/memory" in found["schedulerSays"]

    # What it said would help does help.
    await cluster.delete("right")
    await cluster.running("waiting")
    code, out, err = await fracgpu("explain", "team-a/waiting")
    assert (code, err) == (0, "")

    code, out, err = await fracgpu("doctor")  # nothing is installed as pods there
    assert (code, err) == (0, "")
    assert "a simulated one (v1.36.2+playground)" in out.splitlines()[0]
    assert {line.split()[0] for line in out.splitlines()[:-2]} == {"ok"}


async def test_the_extender_is_not_needed_to_look_and_to_watch(cluster: Cluster, kubeconfig: Path) -> None:
    await cluster.extender.kill()
    process = await asyncio.create_subprocess_exec(
        *(binary(), "fracgpu", "top", "-w", "-o", "json"),
        env=environment(kubeconfig),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        first = await next_object(process.stdout)
        code, out, err = await kubectl("fracgpu", "top", "-o", "yaml", kubeconfig=kubeconfig)
        assert (code, err) == (0, "")
        assert taken(yaml.safe_load(out)) == taken(first)
        assert sorted(taken(first)) == [5120, 6144]
        assert [waiting["name"] for waiting in first["waiting"]] == ["waiting"]

        await tab_names_what_there_is(kubeconfig)

        await cluster.delete("waiting", force=True)
        async with asyncio.timeout(60):
            while (await next_object(process.stdout))["waiting"]:
                pass
    finally:
        process.send_signal(signal.SIGINT)
        code = await process.wait()
    assert code == 130


def taken(picture: Any) -> list[int]:
    return [gpu["takenMiB"] for node in picture["nodes"] for gpu in node["gpus"]]


async def tab_names_what_there_is(kubeconfig: Path) -> None:
    async def tab(*words: str) -> list[str]:
        code, out, _ = await kubectl("__complete", "fracgpu", *words, kubeconfig=kubeconfig)
        assert code == 0
        return out.split("\n:")[0].splitlines()

    assert await tab("explain", "-n", "team-a", "") == ["left", "right", "waiting"]
    assert await tab("top", "node-2", "") == ["node-1"]
    assert "kube-system" in await tab("pods", "-n", "")
    assert await tab("top", "--context", "") == ["playground"]


async def next_object(stream: asyncio.StreamReader) -> Any:
    """The next object of JSON that is printed over many lines."""
    text = b""
    async with asyncio.timeout(60):
        while True:
            text += await stream.readline()
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads(text)


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    server = ApiServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def lonely(api: ApiServer, tmp_path: Path) -> Path:
    """The kubeconfig of a cluster with one node, on which nothing runs."""
    spec = {
        "memoryUnitMiB": 512,
        "gpus": [{"uuid": "GPU-1", "index": 0, "product": "NVIDIA L4", "memoryMiB": 23034, "units": 44, "replicas": 4}],
    }
    await api.cluster.create("gpunodes", {"metadata": {"name": "node-1"}, "spec": spec})
    await api.cluster.patch("gpunodes", "node-1", {"status": {"observedPods": "1"}}, subresource="status")
    file = tmp_path / "kubeconfig"
    file.write_text(api.kubeconfig())
    return file


@pytest.mark.parametrize(
    ("words", "want_code", "want"),
    [
        (("explain",), 2, "Missing argument 'POD'"),
        (("top", "--no-such-flag"), 2, "No such option: --no-such-flag"),
        (("top", "-o", "csv"), 2, "'csv' is not one of 'table', 'wide', 'json', 'yaml'"),
        (("top", "-w", "-o", "yaml"), 2, "-o yaml and --watch do not go together"),
        (("top", "--context", "other"), 2, "the kubeconfig has no context 'other'; its contexts are playground"),
        (("top", "--kubeconfig", "/no/such/file"), 2, "--kubeconfig /no/such/file does not exist"),
        (("explain", "a/b", "-n", "c"), 2, "'a/b' names the namespace 'a', and -n names 'c'"),
        (("explain", "deploy/chat"), 2, "explain is about pods, and 'deploy/chat' is none"),
        (("top", "node-9"), 1, "no node 'node-9' has announced GPUs; those that have are node-1"),
        (("pods", "nobody"), 1, "no pod nobody asks for GPUs in namespace default"),
        (("explain", "nobody"), 1, "there is no pod default/nobody; one that was refused when it was created never"),
    ],
)
async def test_errors_are_one_sentence(lonely: Path, words: tuple[str, ...], want_code: int, want: str) -> None:
    code, out, err = await kubectl("fracgpu", *words, kubeconfig=lonely)

    assert (code, out) == (want_code, "")
    assert want in err
    assert "Traceback" not in err
    if "Usage" not in err:
        assert err.startswith("error: ")
        assert err.count("\n") == 1


async def test_an_api_server_that_does_not_answer_is_told(api: ApiServer, lonely: Path) -> None:
    await api.stop()

    for command in (("top",), ("doctor",), ("explain", "x"), ("top", "-w")):
        code, out, err = await kubectl("fracgpu", *command, kubeconfig=lonely)
        assert (code, out) == (1, "")
        assert err.startswith("error: the API server cannot be reached")
        assert err.count("\n") == 1


async def test_a_refused_pod_of_a_controller_is_told_by_its_events(api: ApiServer, lonely: Path) -> None:
    await api.cluster.create(
        "events",
        {
            "metadata": {"name": "chat.1", "namespace": "default"},
            "involvedObject": {"kind": "ReplicaSet", "name": "chat-7d9f", "namespace": "default"},
            "reason": "FailedCreate",
            "message": 'admission webhook "pods.fracgpu.io" denied the request: annotation is too long',
        },
    )

    code, _, err = await kubectl("fracgpu", "explain", "chat-7d9f-abcde", kubeconfig=lonely)

    assert code == 1
    assert "the ReplicaSet chat-7d9f tried to create such a pod, and was refused: admission webhook" in err


async def test_a_deployment_is_answered_with_its_pods(api: ApiServer, lonely: Path) -> None:
    for name in ("chat-7d9f-b", "chat-7d9f-a", "chatter"):
        spec = {"containers": [{"name": "main", "image": "a"}]}
        await api.cluster.create("pods", {"metadata": {"name": name, "namespace": "default"}, "spec": spec})

    code, out, err = await kubectl("fracgpu", "explain", "chat", kubeconfig=lonely)

    assert (code, out) == (1, "")
    assert err == ("error: there is no pod default/chat; but of such a name there are chat-7d9f-a and chat-7d9f-b\n")


async def test_a_stolen_node_gives_the_terminal_no_orders(api: ApiServer, lonely: Path) -> None:
    product = "\x1b]0;mine\x1b[2J\nnode-9  0"
    gpu = {"uuid": "GPU-1", "index": 0, "product": product, "memoryMiB": 23034, "units": 44, "replicas": 4}
    await api.cluster.patch("gpunodes", "node-1", {"spec": {"gpus": [gpu | {"healthy": False, "problem": product}]}})
    spec = {"containers": [{"name": "main", "image": "a", "resources": {"limits": {"fracgpu.io/memory": "8"}}}]}
    await api.cluster.create("pods", {"metadata": {"name": "chat", "namespace": "default"}, "spec": spec})

    for words in (("top",), ("explain", "chat"), ("doctor",)):
        _, piped, _ = await kubectl("fracgpu", *words, kubeconfig=lonely)
        coloured = await asyncio.to_thread(shown, *words, kubeconfig=lonely, columns=200)
        for text in (piped, coloured):
            assert "\ufffd]0;mine\ufffd[2J node-9  0" in text, words
            assert "\x1b]" not in text
            assert "\x1b[2J" not in text

    def watch() -> str:
        with on_terminal("top", "-w", kubeconfig=lonely, columns=200) as (pid, read_until):
            text = read_until("Ctrl-C ends it")
            os.kill(pid, signal.SIGINT)
            read_until("")
            os.waitpid(pid, 0)
            return text

    watched = await asyncio.to_thread(watch)
    assert "\ufffd]0;mine\ufffd[2J node-9  0" in watched
    assert "\x1b]" not in watched


async def test_the_version_is_told(lonely: Path) -> None:
    code, out, err = await kubectl("fracgpu", "--version", kubeconfig=lonely)

    assert (code, err) == (0, "")
    assert re.fullmatch(r"kubectl fracgpu \d+\.\d+\.\d+\S*\n", out)


@contextlib.contextmanager
def on_terminal(
    *words: str, kubeconfig: Path, columns: int = 120, **more: str
) -> Iterator[tuple[int, Callable[[str], str]]]:
    """Run it on a terminal: its process, and what reads until something is written there, or to the end."""
    parent, child = pty.openpty()
    with os.fdopen(parent, "rb", buffering=0) as terminal:
        pid = os.posix_spawn(
            binary(),
            ["kubectl", "fracgpu", *words],
            environment(kubeconfig, TERM="xterm-256color", COLUMNS=str(columns), LINES="40", **more),
            file_actions=[(os.POSIX_SPAWN_DUP2, child, 1), (os.POSIX_SPAWN_CLOSE, child)],
        )
        os.close(child)

        def read_until(wanted: str) -> str:
            text = b""
            with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
                while piece := terminal.read(65536):
                    text += piece
                    if wanted and wanted.encode() in text:
                        break
            return text.decode().replace("\r\n", "\n")

        yield pid, read_until


def shown(*words: str, kubeconfig: Path, columns: int = 120, **more: str) -> str:
    """What is written to a terminal of so many columns."""
    with on_terminal(*words, kubeconfig=kubeconfig, columns=columns, **more) as (pid, read_until):
        text = read_until("")
        os.waitpid(pid, 0)
    return text


async def test_watching_on_a_terminal_ends_with_ctrl_c_and_gives_the_screen_back(lonely: Path) -> None:
    def watch() -> tuple[str, str, int]:
        with on_terminal("top", "-w", kubeconfig=lonely) as (pid, read_until):
            before = read_until("Ctrl-C ends it")
            os.kill(pid, signal.SIGINT)
            after = read_until("")
            return before, after, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    before, after, code = await asyncio.to_thread(watch)

    assert "NVIDIA L4" in before
    assert "1 node with 1 GPU" in before
    assert code == 130
    assert "\x1b[?1049l" in after  # the screen as it was
    assert "Traceback" not in after


async def test_colours_are_for_terminals_that_want_them(lonely: Path) -> None:
    coloured = await asyncio.to_thread(shown, "top", kubeconfig=lonely)
    plain = await asyncio.to_thread(shown, "top", kubeconfig=lonely, NO_COLOR="1")

    assert re.search(r"\x1b\[[0-9;]*m", coloured)
    assert not re.search(r"\x1b\[(3|4|9)[0-9]", plain)  # no colour; bold and dim are none
    assert "NVIDIA L4" in plain


async def test_a_narrow_terminal_cuts_nothing_off(lonely: Path) -> None:
    text = await asyncio.to_thread(shown, "top", kubeconfig=lonely, columns=60, NO_COLOR="1")

    assert "…" not in text
    assert "22 GiB" in text


async def test_nothing_heavy_is_imported_where_it_is_not_needed(lonely: Path) -> None:
    """Importing the Kubernetes client takes longer than most commands; and TAB and --help wait for nothing."""

    async def imported(*words: str) -> set[str]:
        _, _, err = await kubectl("fracgpu", *words, kubeconfig=lonely, PYTHONPROFILEIMPORTTIME="1")
        return {line.rpartition("|")[2].strip() for line in err.splitlines() if line.startswith("import time")}

    for_help, for_top = await imported("--help"), await imported("top")

    assert "cli.kubectl.main" in for_help
    assert not for_help & {"aiohttp", "rich.table", "extender.index", "cryptography", "asyncio"}
    assert {"aiohttp", "rich.table", "extender.index"} <= for_top
    assert not for_top & {"kubernetes", "cryptography.x509", "fastapi", "redis", "pydantic_settings"}


async def test_help_is_there_at_once_and_for_every_command(lonely: Path) -> None:
    for command in ("top", "pods", "explain", "doctor"):
        code, out, err = await kubectl("fracgpu", command, "--help", kubeconfig=lonely)
        assert (code, err) == (0, "")
        assert f"Usage: kubectl fracgpu {command}" in out
    code, out, _ = await kubectl("plugin", "list", kubeconfig=lonely)
    assert code == 0
    assert "kubectl-fracgpu" in out
