"""What `doctor` reads: what services answer over the API server's proxy, what is absent, and what one may not see."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cli.kubectl.facts import Facts, Page, Read, gather
from cli.kubectl.flags import Where
from cli.kubectl.session import connected
from fracgpu.kube.errors import KubeError

SERVICES = "/api/v1/namespaces/gpus/services"
NOT_READY = "the ledger is not readable or not complete yet"
REGISTRATION = {
    "metadata": {"name": "fracgpu"},
    "webhooks": [{"clientConfig": {"service": {"namespace": "gpus", "name": "fracgpu-webhook"}}}],
}
FORBIDDEN = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no"}
WEBHOOK = {
    "metadata": {"name": "fracgpu-webhook"},
    "spec": {"template": {"spec": {"containers": [{"args": ["webhook", "--tls-secret=gpus/of-its-own"]}]}}},
}
EXTENDER = {
    "metadata": {"name": "fracgpu-extender"},
    "spec": {"template": {"spec": {"volumes": [{"name": "tls", "secret": {"secretName": "mounted"}}]}}},
}
ANSWERS: dict[str, tuple[int, object]] = {
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/fracgpu": (200, REGISTRATION),
    f"{SERVICES}/https:fracgpu-extender:pages/proxy/readyz": (503, NOT_READY),
    f"{SERVICES}/https:fracgpu-extender:pages/proxy/metrics": (200, "a 1.0\n"),
    f"{SERVICES}/https:fracgpu-webhook:https/proxy/readyz": (403, FORBIDDEN),
    "/apis/apps/v1/namespaces/gpus/deployments/fracgpu-webhook": (200, WEBHOOK),
    "/apis/apps/v1/namespaces/gpus/deployments/fracgpu-extender": (200, EXTENDER),
    "/api/v1/namespaces/gpus/secrets/of-its-own": (200, {"metadata": {"name": "of-its-own"}}),
    "/api/v1/namespaces/gpus/secrets/mounted": (403, FORBIDDEN),
    "/api/v1/namespaces/kube-system/pods": (403, FORBIDDEN),
    "/apis/apps/v1/namespaces/gpus/daemonsets/fracgpu-plugin": (500, {"message": "etcd is away", "code": 500}),
}


@pytest.fixture
async def kubeconfig(tmp_path: Path) -> AsyncIterator[Path]:
    """Of an API server that answers what is above, and of anything else that it does not exist."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split()[1].partition("?")[0]
        status, said = ANSWERS.get(path, (404, {"kind": "Status", "code": 404, "reason": "NotFound", "message": "no"}))
        body = (said if isinstance(said, str) else json.dumps(said)).encode()
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    file = tmp_path / "kubeconfig"
    write_kubeconfig(file, port=server.sockets[0].getsockname()[1])
    yield file
    server.close()


def write_kubeconfig(file: Path, *, port: int) -> None:
    config = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
    }
    file.write_text(json.dumps(config))


async def facts_of(kubeconfig: Path, *, namespace: str = "") -> Facts:
    async with connected(Where(kubeconfig)) as session:
        return await gather(session, namespace=namespace)


async def test_each_answer_becomes_a_fact(kubeconfig: Path) -> None:
    facts = await facts_of(kubeconfig)

    assert facts.namespace == "gpus"  # as the registration says
    assert facts.readiness["extender"] == Read(Page(problem=NOT_READY))
    assert facts.metrics == Read(Page("a 1.0\n"))
    assert facts.readiness["webhook"].unknown == ("needs get on services/proxy (https:fracgpu-webhook:https) in gpus")
    assert facts.secrets["webhook"].value is not None
    assert facts.secrets["webhook"].value.metadata.name == "of-its-own"
    assert facts.secrets["extender"] == Read(unknown="needs get on secrets/mounted in gpus")
    assert facts.secrets["plugin"] == Read()
    assert facts.kube_schedulers == Read(unknown="needs list on pods in kube-system")
    assert facts.plugin.unknown.endswith("etcd is away")
    assert facts.validating == Read()
    assert facts.cluster.value is None


async def test_the_namespace_may_be_named(kubeconfig: Path) -> None:
    facts = await facts_of(kubeconfig, namespace="elsewhere")

    assert (facts.namespace, facts.webhook, facts.readiness["extender"]) == ("elsewhere", Read(), Read())


async def test_names_are_those_that_the_chart_was_told_to_use(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = {"namespace": "gpus", "name": "shared-webhook"}
    registration = {**REGISTRATION, "webhooks": [{"clientConfig": {"service": service}}]}
    path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/fracgpu"
    monkeypatch.setitem(ANSWERS, path, (200, registration))
    monkeypatch.setitem(ANSWERS, "/apis/apps/v1/namespaces/gpus/deployments/shared-extender", (200, EXTENDER))

    facts = await facts_of(kubeconfig)

    assert facts.prefix == "shared"
    assert facts.extender.value is not None
    assert facts.webhook == Read()


async def test_no_answer_at_all_is_no_fact(kubeconfig: Path) -> None:
    write_kubeconfig(kubeconfig, port=1)

    with pytest.raises(KubeError, match="cannot be reached"):
        await facts_of(kubeconfig)
