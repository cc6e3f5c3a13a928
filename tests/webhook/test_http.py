"""The webhook as kube-apiserver meets it: a real server over TLS, and the reviews that a real one sent."""

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from fracgpu.process.bodies import MAX_BODY_BYTES
from fracgpu.process.serving import HttpServer
from fracgpu.process.tls import ServerCertificate
from fracgpu.quantities import Mib
from tests.webhook.builders import operations_of, pod, review
from webhook.app import create_app
from webhook.policy import Policy

WIRE = Path(__file__).parents[1] / "wire"
RECORDED_UNIT = Mib(256)  # the recorded pods have 16 units for 4Gi


class Client:
    """Speaks to the webhook as kube-apiserver does."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def post(
        self, body: object, *, path: str = "/mutate", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        data = body if hasattr(body, "__aiter__") or isinstance(body, bytes) else json.dumps(body).encode()
        async with self._session.post(self._url + path, data=data, headers=headers) as response:
            assert response.content_type == "application/json"
            return response.status, await response.json()

    async def get(self, path: str) -> tuple[int, str]:
        async with self._session.get(self._url + path) as response:
            return response.status, await response.text()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The certificate and the key of 127.0.0.1."""
    directory = tmp_path_factory.mktemp("tls")
    issued = authority.issue_cert("127.0.0.1")
    cert, key = directory / "tls.crt", directory / "tls.key"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    return cert, key


@pytest.fixture
async def session(authority: trustme.CA) -> AsyncIterator[aiohttp.ClientSession]:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session:
        yield session


@pytest.fixture
async def client(session: aiohttp.ClientSession, tls: tuple[Path, Path]) -> AsyncIterator[Client]:
    app = create_app(Policy(unit=RECORDED_UNIT, replicas=4))
    server = HttpServer(app, host="127.0.0.1", port=0, tls=ServerCertificate(cert=tls[0], key=tls[1]).context)
    await server.start()
    try:
        yield Client(session, server.url)
    finally:
        await server.stop()


async def in_chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    """A body whose length the server is not told."""
    for chunk in chunks:
        yield chunk


def recorded(name: str) -> Any:
    return json.loads((WIRE / f"{name}.json").read_text())


@pytest.mark.parametrize("name", ["admission-create-pod", "admission-update-pod"])
async def test_a_recorded_review_of_a_finished_pod_gets_the_recorded_answer(client: Client, name: str) -> None:
    wire = recorded(name)
    headers = {key: wire["request_headers"][key] for key in ("User-Agent", "Accept", "Content-Type")}

    status, answer = await client.post(wire["request"], path=wire["path"], headers=headers)

    assert (status, answer) == (200, wire["response"])


async def test_a_recorded_review_of_a_pod_without_its_limits_gets_them(client: Client) -> None:
    wire = recorded("admission-create-pod")
    server = wire["request"]["request"]["object"]["spec"]["containers"][0]
    server["resources"] = {"requests": {"cpu": "2", "memory": "8Gi"}}

    status, answer = await client.post(wire["request"])

    assert status == 200
    assert operations_of(answer["response"]) == [
        {"op": "add", "path": "/spec/containers/0/resources/limits", "value": {"fracgpu.io/memory": "16"}},
        {"op": "add", "path": "/spec/containers/0/resources/requests/fracgpu.io~1memory", "value": "16"},
    ]
    del answer["response"]["patch"], answer["response"]["patchType"]
    assert answer == wire["response"]


async def test_the_recorded_init_container_with_units_is_refused(client: Client) -> None:
    wire = recorded("admission-create-generatename-initcontainer")

    status, answer = await client.post(wire["request"], path=wire["path"])

    assert status == 200
    assert answer["response"]["uid"] == wire["response"]["response"]["uid"]
    assert answer["response"]["allowed"] is False
    assert "init container 'warm' asks for fracgpu.io/memory" in answer["response"]["status"]["message"]
    assert {key: value for key, value in answer.items() if key != "response"} == {
        key: value for key, value in wire["response"].items() if key != "response"
    }


async def test_what_is_no_review_is_a_400_with_a_status(client: Client) -> None:
    status, answer = await client.post(b"uid=1")

    assert status == 400
    assert "cannot be read as an admission.k8s.io/v1 AdmissionReview" in answer.pop("message")
    assert answer == {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "BadRequest", "code": 400}


async def test_a_body_of_the_largest_size_is_read(client: Client) -> None:
    body = json.dumps(review(pod({"gpu-memory": "4Gi"}))).encode()

    status, answer = await client.post(in_chunks(body, b" " * (MAX_BODY_BYTES - len(body))))

    assert (status, answer["response"]["allowed"]) == (200, True)


async def test_a_larger_body_is_a_413(client: Client) -> None:
    status, answer = await client.post(in_chunks(b" " * MAX_BODY_BYTES, b" "))

    assert (status, answer["code"], answer["reason"]) == (413, 413, "RequestEntityTooLarge")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes(client: Client, path: str) -> None:
    assert await client.get(path) == (200, "ok")


async def test_readiness_says_what_is_missing_and_health_does_not_mind(
    session: aiohttp.ClientSession, tls: tuple[Path, Path]
) -> None:
    app = create_app(Policy(), missing=lambda: "there is no certificate yet")
    server = HttpServer(app, host="127.0.0.1", port=0, tls=ServerCertificate(cert=tls[0], key=tls[1]).context)
    await server.start()
    try:
        client = Client(session, server.url)
        assert await client.get("/readyz") == (503, "there is no certificate yet")
        assert await client.get("/healthz") == (200, "ok")
    finally:
        await server.stop()


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/"])
async def test_nothing_else_is_served(client: Client, path: str) -> None:
    status, _ = await client.get(path)

    assert status == 404


async def test_the_process_serves_says_where_and_ends_when_asked(
    session: aiohttp.ClientSession, tls: tuple[Path, Path], tmp_path: Path
) -> None:
    ready_file = tmp_path / "ready.json"
    flags = (
        f"--port 0 --no-metrics --tls-cert {tls[0]} --tls-key {tls[1]} --memory-unit-mib 1024 --ready-file {ready_file}"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "webhook", *flags.split(), stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        while json.loads(await process.stderr.readline())["event"] != "ready":
            pass
        client = Client(session, json.loads(ready_file.read_text())["url"])

        status, answer = await client.post(review(pod({"gpu-memory": "4Gi"})))

        assert status == 200
        assert operations_of(answer["response"])[0]["value"]["limits"] == {"fracgpu.io/memory": "4"}
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


WRONG_SETTINGS = {
    "no certificate": ("--port 0", "neither --tls-cert with --tls-key nor --tls-secret are set"),
    "two certificates": ("--tls-cert c --tls-key k --tls-secret a/b", "both --tls-cert with --tls-key and"),
    "half a certificate": ("--tls-cert c", "--tls-cert and --tls-key belong together"),
    "a CA without its certificate": ("--tls-secret a/b --tls-ca c", "--tls-ca goes with --tls-cert"),
    "a Secret without a namespace": ("--tls-secret b", "--tls-secret (environment: FRACGPU_TLS_SECRET) is 'b'"),
    "a name that is none": ("--tls-secret a/b --tls-names a_b", "'a_b' is neither a DNS name nor an IP address"),
    "a Secret without an API server": ("--port 0 --tls-secret a/b", "no Kubernetes service account to use"),
    "a unit of nothing": ("--tls-cert c --tls-key k --memory-unit-mib 0", "--memory-unit-mib"),
    "no seats": ("--tls-cert c --tls-key k --replicas 0", "--replicas"),
    "a certificate that is not there": ("--port 0 --tls-cert none.crt --tls-key none.key", "none.crt"),
}  # case -> flags, what the sentence has to contain


@pytest.mark.parametrize(("flags", "want"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
async def test_a_wrong_setting_ends_the_process_with_a_sentence(flags: str, want: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "webhook", *flags.split(), stderr=asyncio.subprocess.PIPE
    )

    _, errors = await process.communicate()

    assert process.returncode == 2
    assert errors.decode().startswith("error: ")
    assert want in errors.decode()
