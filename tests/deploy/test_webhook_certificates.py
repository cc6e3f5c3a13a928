"""The self-made certificate on a real kube-apiserver, under the rights in deploy/: Secret, caBundle, and a rotation."""

import asyncio
import ssl
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509

from fracgpu.kube.client import KubeClient
from fracgpu.process.serving import HttpServer
from tests.deploy.conftest import WEBHOOK, Api, documents
from tests.realcluster import READY_SECONDS, RealControlPlane
from tests.webhook.certificates.pem import visit
from webhook.app import create_app
from webhook.certificates.files import CertificateFiles
from webhook.certificates.keeping import SETTLE_SECONDS, Certificates
from webhook.certificates.pairs import read_bundle
from webhook.certificates.registrations import Registrations
from webhook.certificates.secret import CertificateSecret
from webhook.policy import Policy

pytestmark = pytest.mark.e2e

SECRET = "/api/v1/namespaces/fracgpu-system/secrets/fracgpu-webhook-tls"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
MUTATING = f"{ADMISSION}/mutatingwebhookconfigurations/fracgpu"
VALIDATING = f"{ADMISSION}/validatingwebhookconfigurations/fracgpu"
PODS = "/api/v1/namespaces/team-a/pods"


class Clock:
    """The time that replicas go by; kube-apiserver has the real one, so ours may be behind but never ahead."""

    def __init__(self, *, behind: timedelta = timedelta(0)) -> None:
        self._ahead = -behind
        self.settled_seconds = 0.0

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def skip(self, ahead: timedelta) -> None:
        self._ahead += ahead


class Replica:
    """One webhook with its own view of the API server."""

    def __init__(self, certificates: Certificates, server: HttpServer) -> None:
        self.certificates = certificates
        self.server = server

    @property
    def url(self) -> str:
        return self.server.url + "/mutate"

    async def missing(self) -> str:
        """What keeps it from its work, as its probe says; empty where nothing does."""
        visitor = await visit(self.server.port)
        answer = await visitor.ask_for_text("/readyz")
        await visitor.leave()
        return "" if answer == "ok" else answer

    async def shown(self) -> x509.Certificate:
        """The certificate that a new connection gets."""
        pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", self.server.port))
        return x509.load_pem_x509_certificate(pem.encode())


def hanging_up(app: Callable[..., Any]) -> Callable[..., Any]:
    """The app, with one request per connection: else kube-apiserver would go on with one handshake for minutes."""

    async def wrapped(scope: dict[str, Any], receive: Any, send: Any) -> None:
        async def send_closing(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await app(scope, receive, send_closing)

    return wrapped


@asynccontextmanager
async def replica(plane: RealControlPlane, clock: Clock) -> AsyncIterator[Replica]:
    """A webhook with a certificate of its own making, as the account fracgpu-webhook."""
    async with AsyncExitStack() as stack:
        kube = await KubeClient.connect(kubeconfig=plane.kubeconfig(WEBHOOK))
        stack.push_async_callback(kube.close)
        changed = asyncio.Event()
        certificates = Certificates(
            CertificateSecret(
                kube,
                namespace="fracgpu-system",
                name="fracgpu-webhook-tls",
                names=["127.0.0.1"],
                changed=changed,
                now=clock,
            ),
            registrations=Registrations(kube, changed=changed, now=clock),
            changed=changed,
            now=clock,
            clock=lambda: clock.settled_seconds,
            look_seconds=0.1,
        )
        await certificates.start()
        app = hanging_up(create_app(Policy(), missing=certificates.missing))
        server = HttpServer(app, host="127.0.0.1", port=0, tls=certificates.context)
        await server.start()
        stack.push_async_callback(server.stop)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(certificates.run())
            try:
                yield Replica(certificates, server)
            finally:
                running.cancel()


async def until(holds: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Ask until something is so that others do in their own time; each question is one over a connection."""
    async with asyncio.timeout(READY_SECONDS):
        while not await holds():
            pass


async def ready(*replicas: Replica) -> None:
    async def all_are() -> bool:
        return not any([await replica.missing() for replica in replicas])

    await until(all_are)


async def call(api: Api, method: str, path: str, body: object = None, **more: str) -> tuple[int, dict[str, Any]]:
    return await asyncio.to_thread(lambda: api.call(method, path, body, **more))


async def bundle_in(api: Api, path: str) -> list[tuple[x509.Certificate, ...]]:
    """The caBundle of each webhook of a configuration."""
    _, found = await call(api, "GET", path)
    return [read_bundle(b64decode(hook["clientConfig"].get("caBundle", ""))) for hook in found["webhooks"]]


async def stored(api: Api) -> tuple[x509.Certificate, tuple[x509.Certificate, ...]]:
    """The certificate and the CAs in the Secret."""
    _, secret = await call(api, "GET", SECRET)
    data = {key: b64decode(value) for key, value in secret["data"].items()}
    return read_bundle(data["tls.crt"])[0], read_bundle(data["ca.crt"])


def mutating(*urls: str) -> dict[str, Any]:
    """Our configuration, with one webhook for each of these URLs in place of the Service."""
    (configuration,) = documents("webhook/mutatingwebhookconfiguration.yaml")
    (hook,) = configuration["webhooks"]
    configuration["webhooks"] = [
        hook | {"name": f"r{index}.{hook['name']}", "clientConfig": {"url": url}} for index, url in enumerate(urls)
    ]
    return configuration


def validating(url: str) -> dict[str, Any]:
    """A second configuration, about something that no test makes."""
    made = mutating(url)
    made["kind"] = "ValidatingWebhookConfiguration"
    del made["webhooks"][0]["reinvocationPolicy"]
    made["webhooks"][0]["rules"][0]["resources"] = ["podtemplates"]
    return made


def gpu_pod(name: str = "of-the-rotation") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": {"fracgpu.io/gpu-memory": "4Gi"}},
        "spec": {"containers": [{"name": "main", "image": "example.com/app:1"}]},
    }


@pytest.fixture
async def cluster(api: Api) -> AsyncIterator[Api]:
    """A cluster with the empty Secret, and without webhook configurations."""
    for manifest in documents("webhook/secret.yaml"):
        await asyncio.to_thread(api.apply, manifest)
    yield api
    for path in (MUTATING, VALIDATING, SECRET):
        await call(api, "DELETE", path)


async def test_two_replicas_agree_on_one_certificate_and_have_it_trusted(plane: RealControlPlane, cluster: Api) -> None:
    """Both find the Secret empty at the same time; one configuration is there, the other comes later."""
    clock = Clock()
    async with replica(plane, clock) as one, replica(plane, clock) as two:
        await asyncio.to_thread(cluster.apply, mutating(one.url, two.url))
        await ready(one, two)

        leaf, authorities = await stored(cluster)
        assert len(authorities) == 1, "one replica won, the other took what it wrote"
        assert await one.shown() == await two.shown() == leaf

        async def is_trusted(path: str, count: int) -> bool:
            return await bundle_in(cluster, path) == [authorities] * count

        await until(lambda: is_trusted(MUTATING, 2))
        assert (await call(cluster, "POST", f"{PODS}?dryRun=All", gpu_pod()))[0] == 201

        await asyncio.to_thread(cluster.apply, validating(one.url))
        await until(lambda: is_trusted(VALIDATING, 1))


async def test_what_somebody_else_wrote_is_put_right_and_nothing_else_is_touched(
    plane: RealControlPlane, cluster: Api
) -> None:
    async with replica(plane, Clock()) as one:
        await asyncio.to_thread(cluster.apply, mutating(one.url))
        await ready(one)
        _, authorities = await stored(cluster)

        async def is_trusted() -> bool:
            return await bundle_in(cluster, MUTATING) == [authorities]

        await until(is_trusted)
        _, found = await call(cluster, "GET", MUTATING)
        found["webhooks"][0]["timeoutSeconds"] = 7
        found["metadata"]["labels"] = {"theirs": "yes"}
        del found["webhooks"][0]["clientConfig"]["caBundle"]
        status, answer = await call(cluster, "PUT", MUTATING, found)
        assert status == 200, answer

        await until(is_trusted)

        _, repaired = await call(cluster, "GET", MUTATING)
        assert repaired["webhooks"][0]["timeoutSeconds"] == 7
        assert repaired["metadata"]["labels"] == {"theirs": "yes"}
        await asyncio.to_thread(cluster.apply, mutating(one.url))  # the manifest again, which has no caBundle
        assert await is_trusted(), "not even for a moment"
        ours = [entry for entry in repaired["metadata"]["managedFields"] if entry["manager"] == "fracgpu-webhook"]
        (owned,) = (entry["fieldsV1"]["f:webhooks"] for entry in ours)
        assert [fields.get("f:clientConfig") for fields in owned.values()] == [{"f:caBundle": {}}]


async def test_a_missing_secret_is_said_and_waited_for(plane: RealControlPlane, cluster: Api) -> None:
    await call(cluster, "DELETE", SECRET)
    async with replica(plane, Clock()) as one:

        async def says_so() -> bool:
            return "does not exist; apply deploy/kustomize/webhook/secret.yaml" in await one.missing()

        await until(says_so)
        for manifest in documents("webhook/secret.yaml"):
            await asyncio.to_thread(cluster.apply, manifest)
        await ready(one)


async def test_a_certificate_for_another_name_than_is_called_is_not_ready(
    plane: RealControlPlane, cluster: Api
) -> None:
    """The certificate of these tests is for 127.0.0.1; the manifest as it is has kube-apiserver call the Service."""
    (configuration,) = documents("webhook/mutatingwebhookconfiguration.yaml")
    await asyncio.to_thread(cluster.apply, configuration)
    async with replica(plane, Clock()) as one:

        async def says_so() -> bool:
            return (
                "MutatingWebhookConfiguration fracgpu calls fracgpu-webhook.fracgpu-system.svc, and the certificate is "
                "for 127.0.0.1" in await one.missing()
            )

        await until(says_so)
        await call(cluster, "DELETE", MUTATING)
        await asyncio.to_thread(cluster.apply, mutating(one.url))
        await ready(one)


async def test_the_ca_of_files_is_kept_beside_those_before_it(
    plane: RealControlPlane, cluster: Api, tmp_path: Path
) -> None:
    """Files reach the replicas up to a minute apart, so what one adds the other must not take away."""
    authorities = [trustme.CA() for _ in range(2)]
    await asyncio.to_thread(cluster.apply, mutating("https://127.0.0.1:1/mutate"))
    kube = await KubeClient.connect(kubeconfig=plane.kubeconfig(WEBHOOK))
    async with asyncio.TaskGroup() as tasks:
        keeping = []
        for number, authority in enumerate(authorities):
            folder = tmp_path / str(number)
            folder.mkdir()
            cert, key, ca = folder / "tls.crt", folder / "tls.key", folder / "ca.crt"
            issued = authority.issue_cert("127.0.0.1")
            issued.cert_chain_pems[0].write_to_path(cert)
            issued.private_key_pem.write_to_path(key)
            authority.cert_pem.write_to_path(ca)
            changed = asyncio.Event()
            certificates = Certificates(
                CertificateFiles(cert=cert, key=key, ca=ca),
                registrations=Registrations(kube, changed=changed, now=Clock()),
                changed=changed,
            )
            await certificates.start()
            assert "has not been read yet" in certificates.missing()
            keeping.append((certificates, tasks.create_task(certificates.run())))

        async def are_trusted() -> bool:
            (bundle,) = await bundle_in(cluster, MUTATING)
            return len(bundle) == 2 and not any(certificates.missing() for certificates, _ in keeping)

        await until(are_trusted)
        (bundle,) = await bundle_in(cluster, MUTATING)
        assert set(bundle) == {x509.load_pem_x509_certificate(ca.cert_pem.bytes()) for ca in authorities}
        for _, task in keeping:
            task.cancel()
    await kube.close()


async def test_a_rotation_without_one_refused_pod(plane: RealControlPlane, cluster: Api) -> None:
    """kube-apiserver calls both replicas for each pod, on new connections, while they go over to a new CA."""
    two_thirds = timedelta(days=61)
    clock = Clock(behind=two_thirds)
    async with replica(plane, clock) as one, replica(plane, clock) as two:
        await asyncio.to_thread(cluster.apply, mutating(one.url, two.url))
        await ready(one, two)
        before, _ = await stored(cluster)

        async def is_admitted() -> bool:
            return (await call(cluster, "POST", f"{PODS}?dryRun=All", gpu_pod()))[0] == 201

        await until(is_admitted)  # kube-apiserver has heard of the configuration and of its first caBundle
        refused: list[dict[str, Any]] = []
        created = asyncio.Queue[int]()  # the statuses
        stop = asyncio.Event()

        async def create() -> None:
            while not stop.is_set():
                status, answer = await call(cluster, "POST", f"{PODS}?dryRun=All", gpu_pod())
                created.put_nowait(status)
                if status != 201:
                    refused.append(answer)

        async def some_more() -> None:
            while not created.empty():
                created.get_nowait()
            for _ in range(20):
                await created.get()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(create())
            clock.skip(two_thirds)

            async def is_introduced() -> bool:
                _, authorities = await stored(cluster)
                return len(authorities) == 2 and await bundle_in(cluster, MUTATING) == [authorities] * 2

            async def is_rotated() -> bool:
                shown = {await one.shown(), await two.shown()}
                return len(shown) == 1 and before not in shown

            try:
                await until(is_introduced)
                await some_more()
                shown_meanwhile = {await one.shown(), await two.shown()}
                clock.settled_seconds += SETTLE_SECONDS
                await until(is_rotated)
                await some_more()
            finally:
                stop.set()

        assert {answer["message"] for answer in refused} == set()
        assert shown_meanwhile == {before}, "a CA is not relied on before kube-apiserver surely knows it"
        after, authorities = await stored(cluster)
        assert (await one.shown(), len(authorities)) == (after, 2)
        assert (await one.missing(), await two.missing()) == ("", "")
