"""What `doctor` reads: what services answer over the API server's proxy, what is absent, and what one may not see."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cli.kubectl.facts import Facts, Page, Read
from cli.kubectl.flags import Where
from cli.kubectl.gathering import gather
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
EXTENDER_PATH = "/apis/apps/v1/namespaces/gpus/deployments/fracgpu-extender"
ANSWERS: dict[str, tuple[int, object]] = {
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/fracgpu": (200, REGISTRATION),
    f"{SERVICES}/https:fracgpu-extender:pages/proxy/readyz": (503, NOT_READY),
    f"{SERVICES}/https:fracgpu-extender:pages/proxy/metrics": (200, "a 1.0\n"),
    f"{SERVICES}/https:fracgpu-webhook:https/proxy/readyz": (403, FORBIDDEN),
    "/apis/apps/v1/namespaces/gpus/deployments/fracgpu-webhook": (200, WEBHOOK),
    EXTENDER_PATH: (200, EXTENDER),
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


def closed(*args: str, **variables: str) -> object:
    env = [{"name": name, "value": value} for name, value in variables.items()]
    spec = {"template": {"spec": {"containers": [{"name": "main", "args": ["extender", *args], "env": env}]}}}
    return {"metadata": {"name": "fracgpu-extender"}, "spec": spec}


@pytest.mark.parametrize(
    "extender", [closed("--no-pages"), closed("--pages=false"), closed(FRACGPU_PAGES="False")], ids=str
)
async def test_pages_that_are_closed_are_unknown_and_not_ill(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, extender: object
) -> None:
    """Of a port that a Service has not, kube-apiserver says what it says where nothing behind it is ready."""
    said = {"kind": "Status", "code": 503, "reason": "ServiceUnavailable", "message": "no endpoints available"}
    monkeypatch.setitem(ANSWERS, EXTENDER_PATH, (200, extender))
    for page in ("readyz", "metrics"):
        monkeypatch.setitem(ANSWERS, f"{SERVICES}/https:fracgpu-extender:pages/proxy/{page}", (503, said))

    facts = await facts_of(kubeconfig)

    assert facts.readiness["extender"].unknown == facts.metrics.unknown
    assert "pages are closed (--no-pages)" in facts.metrics.unknown


async def test_a_port_of_pages_that_are_closed_still_tells_whether_it_is_ready(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without the chart, whose Service has the port all the same."""
    monkeypatch.setitem(ANSWERS, EXTENDER_PATH, (200, closed("--no-pages")))
    monkeypatch.setitem(ANSWERS, f"{SERVICES}/https:fracgpu-extender:pages/proxy/readyz", (200, "ready"))
    monkeypatch.setitem(ANSWERS, f"{SERVICES}/https:fracgpu-extender:pages/proxy/metrics", (404, "Not Found"))

    facts = await facts_of(kubeconfig)

    assert facts.readiness["extender"] == Read(Page("ready"))
    assert "pages are closed (--no-pages)" in facts.metrics.unknown


NOTHING = {"metadata": {"resourceVersion": "1"}, "items": []}


async def test_a_cluster_without_nodes_is_not_one_whose_nodes_may_not_be_listed(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("/api/v1/pods", "/api/v1/nodes", "/apis/fracgpu.io/v1alpha1/gpunodes"):
        monkeypatch.setitem(ANSWERS, path, (200, NOTHING))

    assert (await facts_of(kubeconfig)).hosts == Read([])

    monkeypatch.setitem(ANSWERS, "/api/v1/nodes", (403, FORBIDDEN))
    assert (await facts_of(kubeconfig)).hosts == Read(unknown="needs list on nodes")


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
