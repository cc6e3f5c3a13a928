"""docker-compose.yml without Docker: compose accepts it, and its very commands, as processes of this machine, work.

Hosts, ports and the shared folder are replaced, nothing else. What only Docker can show is left out: that the images
build, and that the volume belongs to whom it should.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from extender.ledger.embedded import find_binary
from extender.settings import ExtenderSettings
from fracgpu.process.parent import ending_with_us
from tests.deploy.conftest import DEPLOY
from tests.redisservers import free_port
from tests.waiting import eventually
from webhook.settings import WebhookSettings

ROOT: Final = DEPLOY.parent
BIN: Final = Path(sys.executable).parent
DEADLINE_SECONDS: Final = 90.0
SHARED: Final = "/var/lib/fracgpu"
T = TypeVar("T")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file as compose understands it."""
    command = [str(BIN / "docker-compose"), "--file", str(ROOT / "docker-compose.yml"), "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_services_of_the_issue_are_there(compose: dict[str, Any]) -> None:
    assert compose["services"].keys() == {"redis", "webhook", "extender", "playground"}


def test_what_is_published_is_published_on_this_machine_alone(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}
    assert {int(port["published"]) for port in published} == {8001, 8081}


def test_every_image_is_built_here_or_pinned(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
        else:
            assert service["image"].rpartition(":")[2][0].isdigit()


def test_the_services_accept_their_flags_as_they_stand(compose: dict[str, Any]) -> None:
    services = compose["services"]
    extender = ExtenderSettings.load(services["extender"]["command"][1:])
    webhook = WebhookSettings.load(services["webhook"]["command"][1:])
    assert (extender.host, extender.pages_port, webhook.host) == ("0.0.0.0", 8081, "0.0.0.0")


def test_its_commands_place_the_examples(compose: dict[str, Any]) -> None:
    with running(compose["services"]) as (shared, ports):
        kubeconfig = json.loads((shared / "kubectl.kubeconfig").read_text())
        server = kubeconfig["clusters"][0]["cluster"]["server"]
        assert server == f"http://127.0.0.1:{ports[8001]}"

        def where_chat_runs() -> str:
            pods = get(f"{server}/api/v1/namespaces/team-a/pods")["items"]
            running = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in pods if is_running(pod)}
            return str(running.get("chat", ""))

        node = eventually(where_chat_runs, seconds=DEADLINE_SECONDS)
        picture = get(f"http://127.0.0.1:{ports[8081]}/v1/cluster")
        (holding,) = [found for found in picture["nodes"] if found["name"] == node]
        assert "chat" in [share["name"] for gpu in holding["gpus"] for share in gpu["pods"]]
        # The webhook was asked: it says what the pod's annotation means.
        chat = get(f"{server}/api/v1/namespaces/team-a/pods/chat")
        assert chat["spec"]["containers"][0]["resources"]["limits"] == {"fracgpu.io/memory": "32"}
        shown = kubectl("get", "pods,gpunodes", "--all-namespaces", kubeconfig=shared / "kubectl.kubeconfig")
        assert re.search(r"^team-a +pod/chat +1/1 +Running", shown, re.MULTILINE)
        assert re.search(r"gpunode.fracgpu.io/node-2 +NVIDIA L4 ", shown)


def kubectl(*arguments: str, kubeconfig: Path) -> str:
    command = [str(BIN / "kubectl"), "--kubeconfig", str(kubeconfig), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def is_running(pod: dict[str, Any]) -> bool:
    return bool(pod["status"].get("phase") == "Running")


@contextlib.contextmanager
def running(services: dict[str, Any]) -> Iterator[tuple[Path, dict[int, int]]]:
    """The services in the order of compose; the shared folder, and port in the file -> port here."""
    ports = {port: free_port() for port in (6379, 8001, 8080, 8081, 8083, 8443)}
    # pytest's own folder has too long a path for the sockets of simulated kubelets.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, contextlib.ExitStack() as stack:
        shared = Path(folder) / "shared"
        shared.mkdir()

        def local(text: str) -> str:
            for name in ("redis", "playground", "webhook", "extender"):
                text = text.replace(f"//{name}:", "//127.0.0.1:")
            for port, here in ports.items():
                text = text.replace(f":{port}", f":{here}").replace(f"port={port}", f"port={here}")
            if text == "redis-server":
                return str(find_binary())
            return text.replace("0.0.0.0", "127.0.0.1").replace(SHARED, str(shared))

        try:
            for name in started_in_order(services):
                service = services[name]
                command = [*entry_point(name), *map(local, service["command"])]
                if name == "redis":
                    command += ["--port", str(ports[6379]), "--dir", folder]
                log = stack.enter_context((Path(folder) / f"{name}.log").open("wb"))
                environment = {"PATH": os.defpath, "TMPDIR": folder}
                process = subprocess.Popen(ending_with_us(*command), stdout=log, stderr=log, cwd=ROOT, env=environment)
                stack.callback(end, process)
                if check := service.get("healthcheck"):
                    is_healthy = partial(succeeds, health_command(list(map(local, check["test"])), port=ports[6379]))
                    eventually(is_healthy, seconds=DEADLINE_SECONDS)
            yield shared, ports
        except BaseException:
            for log_file in Path(folder).glob("*.log"):
                print(f"--- {log_file.stem}\n{log_file.read_text()[-3000:]}")
            raise


def started_in_order(services: dict[str, Any]) -> list[str]:
    """Those first that others wait for."""
    order: list[str] = []
    while len(order) < len(services):
        order += [
            name
            for name, service in services.items()
            if name not in order and set(service.get("depends_on", {})) <= set(order)
        ]
    return order


def entry_point(name: str) -> list[str]:
    """What the image of a service runs its command with, as deploy/Dockerfile says; of Redis, nothing."""
    if name == "redis":
        return []
    stages = (DEPLOY / "Dockerfile").read_text().split("\nFROM ")
    (stage,) = [
        text for text in stages if text.splitlines()[0].endswith("playground" if name == "playground" else "services")
    ]
    (line,) = [line for line in stage.splitlines() if line.startswith("ENTRYPOINT ")]
    program, *arguments = json.loads(line.removeprefix("ENTRYPOINT "))
    return [str(BIN / program), *arguments]


def health_command(test: list[str], *, port: int) -> list[str]:
    kind, *command = test
    assert kind == "CMD"
    if command[0] == "redis-cli":  # not everybody has it; what it asks, and what it hears
        asked = f"import socket; s = socket.create_connection(('127.0.0.1', {port})); s.sendall(b'PING\\r\\n')"
        return [sys.executable, "-c", f"{asked}; assert s.recv(7) == b'+PONG\\r\\n'"]
    return [sys.executable, *command[1:]]


def succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) in (0, -signal.SIGTERM), process.args


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)
