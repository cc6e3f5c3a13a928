"""What the chart configures, run as processes: Redis, extender and kube-scheduler, with Helm's certificates.

Only addresses and folders differ from the pods': Redis by the chart's own start script and file over TLS, the extender
by the flags of its container under its account, kube-scheduler by the chart's configuration under its own.
"""

import asyncio
import base64
import contextlib
import re
import shutil
import ssl
import sys
import urllib.error
import urllib.request
from asyncio.subprocess import STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from cli.processes import ServiceProcess
from fracgpu.names import ANNOTATION_ALLOCATION
from fracgpu.process.parent import ending_with_us
from tests.conformance.lab import poll
from tests.deploy import chart
from tests.deploy.chart import Manifest
from tests.deploy.conftest import EXTENDER, PODS, SCHEDULER_ACCOUNT, Api, pod, refused_pod, webhook_process
from tests.deploy.workloads import of_kind, workloads
from tests.realcluster import RealControlPlane, assets_dir, missing_binaries
from tests.redisservers import free_port, server_binaries

pytestmark = pytest.mark.e2e

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{chart.NAMESPACE}/leases/fracgpu-scheduler"
GPUNODES = "/apis/fracgpu.io/v1alpha1/gpunodes"
MEMORY = "fracgpu.io/memory"
HOST = "127.0.0.1"


@pytest.fixture
def release(tmp_path: Path) -> list[Manifest]:
    """What is in the cluster, with each Secret's files in a folder of its name."""
    manifests = chart.manifests(chart.values_of("default"))
    for name, secret in of_kind(manifests, "Secret").items():
        (tmp_path / name).mkdir()
        for file, value in secret.get("data", {}).items():
            (tmp_path / name / file).write_bytes(base64.b64decode(value))
    return manifests


@asynccontextmanager
async def started(command: list[str], *, log: Path) -> AsyncIterator[Process]:
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*ending_with_us(*command), stdout=output, stderr=STDOUT)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def missing_redis() -> str:
    """Why the chart's Redis cannot run here; empty if it can."""
    path = Path(shutil.which("redis-server") or "")
    can = shutil.which("redis-cli") and any(binary.has_tls for binary in server_binaries() if binary.path == path)
    return "" if can else "no redis-server with TLS, or no redis-cli, on the PATH"


@asynccontextmanager
async def redis(manifests: list[Manifest], folder: Path) -> AsyncIterator[str]:
    """The chart's Redis; the URL that its extender is given, but for the address."""
    port = free_port()
    files = of_kind(manifests, "ConfigMap")["fracgpu-redis"]["data"]
    own = folder / "redis"
    for name in ("conf", "run", "data"):
        (own / name).mkdir(parents=True)
    places = {
        "/etc/redis/conf": str(own / "conf"),
        "/etc/redis/password": str(folder / "fracgpu-redis"),
        "/etc/redis/tls": str(folder / "fracgpu-redis-tls"),
        "/run/redis": str(own / "run"),
        "/data": str(own / "data"),
        "tls-port 6379": f"tls-port {port}",
    }
    for name, text in files.items():
        (own / "conf" / name).write_text(replaced(text, places))
    log = folder / "redis.log"
    async with started([shutil.which("sh") or "", str(own / "conf" / "start.sh")], log=log) as process:

        async def accepts() -> bool:
            assert process.returncode is None, log.read_text()
            return "eady to accept connections" in log.read_text()

        await poll(accepts)
        (url,) = (
            variable["value"]
            for variable in workloads(manifests)["extender"].container["env"]
            if variable["name"] == "FRACGPU_REDIS_URL"
        )
        yield replaced(
            url,
            {
                "$(REDIS_PASSWORD)": (folder / "fracgpu-redis" / "password").read_text(),
                "fracgpu-redis.fracgpu-system.svc:6379": f"{HOST}:{port}",
                "/etc/fracgpu/redis": str(folder / "fracgpu-redis-tls"),
            },
        )


def replaced(text: str, places: dict[str, str]) -> str:
    for old, new in places.items():
        text = text.replace(old, new)
    return text


def extender(manifests: list[Manifest], folder: Path, *flags: str) -> ServiceProcess:
    """The extender by the flags of its container; those given besides win."""
    _, *arguments = workloads(manifests)["extender"].container["args"]
    own = [argument.replace("/etc/fracgpu/tls", str(folder / "fracgpu-extender-tls")) for argument in arguments]
    moved = [argument for argument in own if not argument.startswith(("--host", "--port", "--pages-"))]
    here = [f"--host={HOST}", "--port=0", "--pages-port=0"]
    return ServiceProcess("extender", arguments=["-m", "extender", *moved, *here, *flags], directory=folder)


def scheduler_config(manifests: list[Manifest], folder: Path, *, url: str, kubeconfig: Path) -> Path:
    """The chart's configuration; its serverName stays, so the certificate is looked at as in a cluster."""
    text = of_kind(manifests, "ConfigMap")["fracgpu-scheduler"]["data"]["kube-scheduler-config.yaml"]
    settings = yaml.safe_load(text.replace("/etc/fracgpu/tls", str(folder / "fracgpu-scheduler-tls")))
    settings["extenders"][0]["urlPrefix"] = url
    settings["clientConnection"] = {"kubeconfig": str(kubeconfig)}
    path = folder / "kube-scheduler-config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def add_paper_node(api: Api, name: str) -> None:
    """A Node and a GPUNode with one GPU of 4 units, without a kubelet."""
    gpu = {"uuid": f"GPU-{name}", "index": 0, "product": "Paper", "memoryMiB": 2048, "units": 4, "replicas": 4}
    gpunode = {"apiVersion": "fracgpu.io/v1alpha1", "kind": "GPUNode", "metadata": {"name": name}}
    answer = made(api.call("POST", GPUNODES, gpunode | {"spec": {"memoryUnitMiB": 512, "gpus": [gpu]}}))
    answer["status"] = {"observedPods": answer["metadata"]["resourceVersion"], "grants": []}
    made(api.call("PUT", f"{GPUNODES}/{name}/status", answer))
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    made(api.call("POST", "/api/v1/nodes", node))
    amounts = {"cpu": "4", "memory": "8Gi", "pods": "10", MEMORY: "4", "fracgpu.io/replica": "4"}
    patch = "application/merge-patch+json"
    status = {"status": {"capacity": amounts, "allocatable": amounts}}
    made(api.call("PATCH", f"/api/v1/nodes/{name}/status", status, content_type=patch))
    # a controller would, and none runs here
    made(api.call("PATCH", f"/api/v1/nodes/{name}", {"spec": {"taints": None}}, content_type=patch))


def made(answer: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    assert answer[0] in (200, 201), answer
    return answer[1]


def gpu_pod(name: str, *, scheduler: str) -> dict[str, Any]:
    container = {"name": "main", "image": "example.com/app:1", "resources": {"limits": {MEMORY: "2"}}}
    spec = {"schedulerName": scheduler, "automountServiceAccountToken": False, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


async def test_a_gpu_pod_is_placed_by_the_second_scheduler(
    plane: RealControlPlane, release: list[Manifest], tmp_path: Path
) -> None:
    if reason := missing_binaries("kube-scheduler"):
        pytest.skip(reason)
    api = Api(plane)
    await asyncio.to_thread(apply_all, api, release)
    async with AsyncExitStack() as stack:
        ledger = f"--redis-dir={tmp_path / 'embedded'}"  # where the chart's Redis cannot run
        if not missing_redis():
            ledger = f"--redis-url={await stack.enter_async_context(redis(release, tmp_path))}"
        process = extender(release, tmp_path, f"--kubeconfig={plane.kubeconfig(EXTENDER)}", ledger)
        await process.start()
        stack.push_async_callback(process.stop)
        config = scheduler_config(
            release, tmp_path, url=await process.ready(), kubeconfig=plane.kubeconfig(SCHEDULER_ACCOUNT)
        )
        log = tmp_path / "kube-scheduler.log"
        command = [str(assets_dir() / "kube-scheduler"), f"--config={config}", f"--secure-port={free_port()}"]
        command += [f"--bind-address={HOST}", f"--cert-dir={tmp_path / 'scheduler-certs'}"]
        await stack.enter_async_context(started(command, log=log))

        await asyncio.to_thread(api.wait_until, lambda: api.call("GET", LEASE)[1]["spec"].get("holderIdentity"))
        await asyncio.to_thread(add_paper_node, api, "paper")
        pods = f"/api/v1/namespaces/{chart.NAMESPACE}/pods"
        for name, scheduler in (("ours", "fracgpu-scheduler"), ("theirs", "default-scheduler")):
            made(await asyncio.to_thread(api.call, "POST", pods, gpu_pod(name, scheduler=scheduler)))
        try:
            await asyncio.to_thread(api.wait_until, lambda: api.call("GET", f"{pods}/ours")[1]["spec"].get("nodeName"))
        except AssertionError:
            pytest.fail(f"{log.read_text()[-3000:]}\n{process.log.read_text()[-3000:]}")

        # what `helm test` runs in its pod
        _, _, program, *_ = workloads(release)["test"].container["command"]
        authority = tmp_path / "fracgpu-extender-tls" / "ca.crt"
        asked = f"{process.urls['pages_url']}/readyz"
        test = await asyncio.create_subprocess_exec(sys.executable, "-c", program, asked, str(authority))
        assert await test.wait() == 0

        _, ours = await asyncio.to_thread(api.call, "GET", f"{pods}/ours")
        _, theirs = await asyncio.to_thread(api.call, "GET", f"{pods}/theirs")
        assert ours["spec"]["nodeName"] == "paper"
        assert "GPU-paper" in ours["metadata"]["annotations"][ANNOTATION_ALLOCATION]
        assert "nodeName" not in theirs["spec"], "it looks at its own pods only"


def apply_all(api: Api, manifests: list[Manifest]) -> None:
    """As much of a release as is needed: accounts and their rights, CRDs, policies, the Lease."""
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": chart.NAMESPACE}})
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "DaemonSet", "StatefulSet", "Pod") or "Webhook" in manifest["kind"]:
            continue
        api.apply(manifest)
    api.wait_until(lambda: api.is_established("gpunodes") and api.is_established("sharingpolicies"))
    api.wait_until(lambda: api.call("GET", GPUNODES)[0] == 200)


async def test_only_the_schedulers_certificate_opens_the_verbs(
    plane: RealControlPlane, release: list[Manifest], tmp_path: Path
) -> None:
    """The plugins' are of the same CA, and lie on every node."""
    process = extender(release, tmp_path, f"--kubeconfig={plane.kubeconfig(EXTENDER)}", f"--redis-dir={tmp_path / 'r'}")
    await process.start()
    try:
        url = await process.ready()
        pages = process.urls["pages_url"]
        statuses = {
            who: await asyncio.to_thread(call, f"{url}/filter", context_of(tmp_path, certificate_of=who), body=b"{}")
            for who in ("fracgpu-scheduler", "fracgpu-plugin")
        }
        with pytest.raises(OSError, match=r"EOF|certificate|reset|closed"):
            await asyncio.to_thread(call, f"{url}/filter", context_of(tmp_path), body=b"{}")
        probe, page = [
            await asyncio.to_thread(call, f"{pages}/{path}", context_of(tmp_path)) for path in ("healthz", "metrics")
        ]
    finally:
        await process.stop()

    assert statuses == {"fracgpu-scheduler": 200, "fracgpu-plugin": 403}
    assert (probe, page) == (200, 200), "for which nobody needs one"


def context_of(folder: Path, *, certificate_of: str = "") -> ssl.SSLContext:
    """TLS of a client that trusts the chart's CA, and shows one of its certificates."""
    context = ssl.create_default_context(cafile=str(folder / "fracgpu-extender-tls" / "ca.crt"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # Python's default from 3.13 on
    if certificate_of:
        own = folder / f"{certificate_of}-tls"
        context.load_cert_chain(own / "tls.crt", own / "tls.key")
    return context


def call(url: str, context: ssl.SSLContext, *, body: bytes | None = None) -> int:
    """The status of an answer."""
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code


async def test_redis_lets_in_the_extender_and_answers_probes(release: list[Manifest], tmp_path: Path) -> None:
    if reason := missing_redis():
        pytest.skip(reason)
    conf = of_kind(release, "ConfigMap")["fracgpu-redis"]["data"]["redis.conf"]
    assert "\nprotected-mode no\n" in conf, "else it would refuse all other machines, which no test on loopback shows"
    async with redis(release, tmp_path) as url:
        ledger = Redis.from_url(url)
        stranger = Redis.from_url(url.replace("rediss://fracgpu:", "rediss://fracgpu:not-"))
        nobody = Redis.from_url("rediss://" + url.partition("@")[2])

        assert await ledger.set("{fracgpu}:test", "1")
        for forbidden in (ledger.set("other", "1"), ledger.flushall(), nobody.get("{fracgpu}:test"), nobody.info()):
            with pytest.raises(NoPermissionError):
                await forbidden
        with pytest.raises(AuthenticationError):
            await stranger.ping()

        (port,) = re.findall(r":(\d+)\?", url)
        command = workloads(release)["redis"].container["readinessProbe"]["exec"]["command"]
        places = {"/etc/redis/tls": str(tmp_path / "fracgpu-redis-tls"), "redis-cli": f"redis-cli -p {port}"}
        probe = await asyncio.create_subprocess_exec(*(replaced(word, places) for word in command))
        assert await probe.wait() == 0
        for client in (ledger, stranger, nobody):
            await client.aclose()


async def test_kube_apiserver_hands_gpu_pods_to_the_second_scheduler(
    plane: RealControlPlane, release: list[Manifest], tmp_path: Path
) -> None:
    """It fills in "default-scheduler" before any webhook sees the pod."""
    api = Api(plane)
    arguments = workloads(release)["webhook"].container["args"][1:]
    flags = [flag for flag in arguments if not flag.startswith(("--host", "--port", "--tls", "--metrics"))]
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}}
    made(api.call("POST", "/apis/node.k8s.io/v1/runtimeclasses", runtime | {"handler": "nvidia"}))
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a"}})
    configuration = of_kind(release, "MutatingWebhookConfiguration")["fracgpu"]
    with webhook_process(tmp_path, *flags) as (url, authority):
        bundle = base64.b64encode(authority.cert_pem.bytes()).decode()
        configuration["webhooks"][0]["clientConfig"] = {"url": f"{url}/mutate", "caBundle": bundle}
        await asyncio.to_thread(api.apply, configuration)
        try:
            await asyncio.to_thread(
                api.wait_until, lambda: api.call("POST", f"{PODS}?dryRun=All", refused_pod())[0] == 403
            )
            asked = pod("asks", {"fracgpu.io/gpu-memory": "4Gi"})
            _, asking = await asyncio.to_thread(api.call, "POST", f"{PODS}?dryRun=All", asked)
            _, other = await asyncio.to_thread(api.call, "POST", f"{PODS}?dryRun=All", pod("other"))
        finally:
            api.delete(configuration)

    assert asking["spec"]["schedulerName"] == "fracgpu-scheduler"
    assert asking["spec"]["runtimeClassName"] == "nvidia"
    assert ("nvidia.com/gpu", "NoSchedule") in [(t.get("key"), t.get("effect")) for t in asking["spec"]["tolerations"]]
    assert other["spec"]["schedulerName"] == "default-scheduler"
