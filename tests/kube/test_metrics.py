"""What is counted of requests to the API server: every one once, with how it ended."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.kube.reflector import Reflector
from fracgpu.kube.resources import PODS
from fracgpu.names import NodeName, PodUid
from fracgpu.pods import Pod
from fracgpu.process.metrics import KubeCalls
from tests.kube.server import Server, make_pod


class Counted:
    """A client whose requests are counted."""

    def __init__(self, client: KubeClient, registry: CollectorRegistry) -> None:
        self.client = client
        self._registry = registry

    def calls(self, verb: str, resource: str = "pods") -> dict[str, float]:
        """Code -> how often."""
        return {
            sample.labels["code"]: sample.value
            for metric in self._registry.collect()
            for sample in metric.samples
            if sample.name == "fracgpu_test_kube_requests_total"
            and (sample.labels["verb"], sample.labels["resource"]) == (verb, resource)
        }

    def timed(self, verb: str, resource: str = "pods") -> float | None:
        labels = {"verb": verb, "resource": resource}
        return self._registry.get_sample_value("fracgpu_test_kube_request_duration_seconds_count", labels)


@pytest.fixture
async def counted(server: Server, tmp_path: Path) -> Counted:
    registry = CollectorRegistry()
    observer = KubeCalls("test", registry=registry)
    return Counted(await KubeClient.connect(kubeconfig=server.kubeconfig(tmp_path), observer=observer), registry)


async def test_reads_writes_and_refusals(counted: Counted, server: Server) -> None:
    server.answers.append(make_pod("u1", version=7, name="train"))
    await counted.client.get(PODS, "train", namespace="default")
    server.refuse("GET", 404, "NotFound")
    with pytest.raises(KubeError):
        await counted.client.get(PODS, "train", namespace="default")
    server.refuse("POST", 409, "Conflict")
    with pytest.raises(KubeError):
        await counted.client.bind(
            namespace="default",
            name="train",
            uid=PodUid("u1"),
            node=NodeName("n"),
            annotations={},
            timeout_seconds=5,
        )
    await counted.client.close()

    assert counted.calls("get") == {"ok": 1, "404": 1}
    assert counted.calls("bind", "pods/binding") == {"409": 1}
    assert (counted.timed("get"), counted.timed("bind", "pods/binding")) == (2, 1)


async def test_a_request_without_an_answer_has_no_code(counted: Counted, server: Server) -> None:
    server.hang = asyncio.Event()
    with pytest.raises(KubeError):
        await counted.client.get(PODS, "train", namespace="default", timeout_seconds=0.2)
    server.hang.set()
    await counted.client.close()

    assert counted.calls("get") == {"none": 1}


async def test_lists_and_watches_tell_of_restarts(counted: Counted, server: Server) -> None:
    reflector: Reflector[Pod] = Reflector(counted.client, PODS, on_change=lambda _: None)
    following = asyncio.create_task(reflector.run())
    first = await server.watches.get()
    first.bookmark(5)
    first.cut()  # follows on from where it was
    second = await server.watches.get()
    second.send("ERROR", {"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired", "message": "too old"})
    second.end()
    await server.watches.get()  # after a list
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await counted.client.close()

    assert counted.calls("list") == {"ok": 2}
    assert counted.calls("watch")["410"] == 1
    assert counted.calls("watch")["none"] == 1
    assert counted.calls("watch")["ok"] >= 2
    assert counted.timed("watch") == counted.calls("watch")["ok"]  # how long a watch took that broke says nothing
