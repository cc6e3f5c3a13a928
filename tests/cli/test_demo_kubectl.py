"""kubectl on the cluster of a demo that stays, as its own words tell to use it."""

import asyncio
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.playground.kubectl import KUBECTL, MISSING, Kubectl, rows

pytestmark = pytest.mark.skipif(KUBECTL is None, reason=MISSING)

ROOT = Path(__file__).parents[2]
DEMO = (str(Path(sys.executable).parent / "fracgpu"), "demo", "--stay")
EXPORT = re.compile(r"export KUBECONFIG=(\S+)")

OURS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: mine}
spec:
  replicas: 2
  selector: {matchLabels: {app: mine}}
  template:
    metadata: {labels: {app: mine}, annotations: {fracgpu.io/gpu-memory: 6Gi}}
    spec: {containers: [{name: main, image: "web:1"}]}
"""


class Demo:
    """A demo that runs, what it has printed, and where it says that its kubeconfig is."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.printed = ""

    async def read_until(self, is_there: Callable[[str], object]) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(90):
            while not is_there(self.printed):
                found = await self.process.stdout.readline()
                assert found, self.printed
                self.printed += found.decode()

    @property
    def kubeconfig(self) -> Path:
        found = EXPORT.search(self.printed)
        assert found is not None
        return Path(*shlex.split(found[1]))


@pytest.fixture
async def demo() -> AsyncIterator[Demo]:
    environment = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/")}
    process = await asyncio.create_subprocess_exec(*DEMO, stdout=asyncio.subprocess.PIPE, env=environment)
    demo = Demo(process)
    await demo.read_until(EXPORT.search)
    yield demo
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
        await process.communicate()


@pytest.fixture
async def kubectl(demo: Demo, tmp_path: Path) -> Kubectl:
    return Kubectl(demo.kubeconfig.read_text(), tmp_path)


async def test_what_is_applied_is_placed_and_shown(demo: Demo, kubectl: Kubectl) -> None:
    await kubectl("wait", "--for=condition=Available", "deploy/embeddings", "-n", "team-a", "--timeout=60s")
    # The examples are there; one of them is refused, and one cannot be applied again, in a real cluster neither.
    _, again = await kubectl.attempt("apply", "-f", str(ROOT / "examples"))
    assert again.count("unchanged") == 7
    assert "annotation fracgpu.io/gpu-memory is '4GB'" in again
    assert "from-hami" in again

    await kubectl("apply", "-f", "-", manifest=OURS)
    await kubectl("rollout", "status", "deploy/mine", "--timeout=60s")
    await demo.read_until(lambda text: text.count("default/mine-") >= 2)
    described = await kubectl("describe", "pods", "-l", "app=mine", "--show-events=true")
    assert {"Scheduled", "Started"} <= set(described.split())
    assert "fracgpu.io/memory:  12" in described

    # Four do not fit beside the rest: the waiting ones are told of with their reason.
    await kubectl("apply", "-f", "-", manifest=OURS.replace("6Gi", "30Gi").replace("mine", "large").replace("2", "4"))
    await demo.read_until(lambda text: "default/large" in text.rpartition("waiting")[2])
    await kubectl("wait", "--for=jsonpath={.status.readyReplicas}=2", "deploy/large", "--timeout=60s")
    events = await kubectl("get", "events", "--field-selector", "reason=FailedScheduling", "-n", "default")
    assert "needs 30 GiB on one GPU" in events

    await kubectl("delete", "deploy", "mine", "large")
    await kubectl("wait", "--for=delete", "pod", "--all", "--timeout=60s")
    nodes = rows(await kubectl("get", "gpunodes"))
    assert [row[0] for row in nodes] == ["node-1", "node-2", "node-3", "node-4"]

    # A mistake in a template is warned of, and told in events.
    manifest = OURS.replace("6Gi", "6GB")
    warned = await kubectl("apply", "-f", "-", manifest=manifest)
    assert "Warning: " in warned
    assert "annotation fracgpu.io/gpu-memory is '6GB'" in warned
    await kubectl("wait", "--for=condition=ReplicaFailure", "deploy/mine", "--timeout=60s")
    described = await kubectl("describe", "rs", "-l", "app=mine")
    assert 'Error creating: admission webhook "pods.fracgpu.io" denied the request' in described
    await demo.read_until(lambda text: "default/mine-" in text.rpartition("refused")[2])

    # What kubectl needs is private, and gone at the end.
    path = demo.kubeconfig
    assert len(str(path)) < 50
    assert path.stat().st_mode & 0o077 == 0
    demo.process.send_signal(signal.SIGINT)
    rest, _ = await demo.process.communicate()
    assert demo.process.returncode == 0
    assert f"export KUBECONFIG={path}\nCtrl-C ends the demo." in demo.printed + rest.decode()
    assert not path.exists()


async def test_the_file_may_be_written_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "my config"
    process = await asyncio.create_subprocess_exec(
        *DEMO, "--kubeconfig", str(path), stdout=asyncio.subprocess.PIPE, env={"PATH": os.defpath, "HOME": "/"}
    )
    demo = Demo(process)
    await demo.read_until(lambda text: f"export KUBECONFIG='{path}'" in text)
    assert "current-context" in path.read_text()
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 0
    assert not path.exists()
