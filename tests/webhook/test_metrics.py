"""What Prometheus reads of the webhook's process, after it was asked for all sorts of things over TLS."""

import asyncio
import io
import json
import math
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from fracgpu.process.bodies import MAX_BODY_BYTES
from tests.webhook.builders import container, pod, review

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Webhook:
    """A running process."""

    def __init__(self, urls: dict[str, str], session: aiohttp.ClientSession) -> None:
        self.urls = urls
        self._session = session

    async def post(self, body: object, path: str = "/mutate") -> int:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self._session.post(self.urls["url"] + path, data=io.BytesIO(data)) as answer:
            await answer.read()
            return answer.status

    async def metrics(self) -> Values:
        async with self._session.get(f"{self.urls['metrics_url']}/metrics") as answer:
            assert answer.status == 200
            text = await answer.text()
        return {
            (sample.name.removeprefix("fracgpu_webhook_"), frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


def of(values: Values, name: str, **labels: str) -> float | None:
    return values.get((name, frozenset(labels.items())))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def running(authority: trustme.CA, folder: Path, *flags: str) -> AsyncIterator[Webhook]:
    issued = authority.issue_cert("127.0.0.1")
    cert, key, ready_file = (folder / name for name in ("tls.crt", "tls.key", "ready.json"))
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "webhook", "--port=0", f"--tls-cert={cert}", f"--tls-key={key}"),
        *(f"--ready-file={ready_file}", *flags),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        while json.loads(await process.stderr.readline())["event"] != "ready":
            pass
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session:
            yield Webhook(json.loads(ready_file.read_text()), session)
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def workload(template: dict[str, Any]) -> dict[str, Any]:
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "team-a"},
        "spec": {"template": {key: template[key] for key in ("metadata", "spec")}},
    }
    asked = review(deployment)
    asked["request"]["kind"] = {"group": "apps", "version": "v1", "kind": "Deployment"}
    return asked


HAMI = pod(None, container(limits={"nvidia.com/gpu": "1", "nvidia.com/gpumem": "4096"}))
REFUSED = {
    "Name": pod({"gpu-memry": "4Gi"}),
    "Language": pod({"gpu-memory": "4Gi"}, container(limits={"nvidia.com/gpu": "1", "nvidia.com/gpumem": "4096"})),
    "Size": pod({"gpu-memory": "4GB"}),
    "Request": pod(None, container(limits={"fracgpu.io/memory": "8"}, requests={"fracgpu.io/memory": "4"})),
    "Environment": pod({"gpu-memory": "4Gi"}, container(env=("CUDA_VISIBLE_DEVICES",))),
    "Unreadable": {"spec": 1},
}


async def test_what_became_of_each_review_is_counted(authority: trustme.CA, tmp_path: Path) -> None:
    async with running(authority, tmp_path, "--metrics-port=0") as webhook:
        assert webhook.urls["metrics_url"].startswith("http://127.0.0.1:")
        assert await webhook.post(review(pod({"gpu-memory": "4Gi"}))) == 200
        assert await webhook.post(review(pod(None, container(limits={"fracgpu.io/memory": "8"})))) == 200
        assert await webhook.post(review(HAMI)) == 200
        assert await webhook.post(review(pod())) == 200
        for manifest in REFUSED.values():
            assert await webhook.post(review(manifest)) == 200
        assert await webhook.post(b"{}") == 400
        assert await webhook.post(b" " * (MAX_BODY_BYTES + 1)) == 413
        assert await webhook.post(workload(pod({"gpu-memory": "4GB"})), "/validate") == 200
        assert await webhook.post(workload(pod({"gpu-memory": "4Gi"})), "/validate") == 200
        assert await webhook.post(workload(pod({})), "/validate") == 200

        values = await webhook.metrics()

    outcomes = {
        "mutate": {"mutated": 2, "unchanged": 1, "unconcerned": 1, "refused": len(REFUSED), "invalid": 1},
        "validate": {"warned": 1, "silent": 1, "unconcerned": 1, "invalid": 0},
    }
    for path, counts in outcomes.items():
        assert {name: of(values, "reviews_total", path=path, outcome=name) for name in counts} == counts
        assert of(values, "review_duration_seconds_count", path=path) == sum(counts.values())
        assert of(values, "review_size_bytes_count", path=path) == sum(counts.values())
    for reason in REFUSED:
        assert of(values, "refusals_total", path="mutate", reason=reason) == 1, reason
    assert of(values, "refusals_total", path="mutate", reason="TooLarge") == 0
    assert of(values, "refusals_total", path="validate", reason="Size") == 1
    assert of(values, "gpu_pods_total", dialect="fracgpu") == 2
    assert of(values, "gpu_pods_total", dialect="hami") == 1
    assert of(values, "refused_bodies_total", reason="RequestEntityTooLarge") == 1


async def test_the_certificate_is_told_of(authority: trustme.CA, tmp_path: Path) -> None:
    async with running(authority, tmp_path, "--metrics-port=0") as webhook:
        values = await webhook.metrics()

    (leaf, *_) = x509.load_pem_x509_certificates((tmp_path / "tls.crt").read_bytes())
    expiry = of(values, "certificate_expiry_timestamp_seconds")
    assert expiry is not None
    assert datetime.fromtimestamp(expiry, UTC) == leaf.not_valid_after_utc
    assert of(values, "ready") == 1
    assert of(values, "certificate_events_total", event="served") == 1
    assert math.isnan(of(values, "ca_bundle_trusted") or 0)  # somebody else keeps it


async def test_beyond_this_machine_they_are_served_with_the_certificate(authority: trustme.CA, tmp_path: Path) -> None:
    async with running(authority, tmp_path, "--metrics-port=0", "--metrics-host=0.0.0.0") as webhook:
        assert webhook.urls["metrics_url"].startswith("https://127.0.0.1:")
        assert of(await webhook.metrics(), "ready") == 1  # whose certificate is verified


async def test_they_can_be_closed(authority: trustme.CA, tmp_path: Path) -> None:
    async with running(authority, tmp_path, "--no-metrics") as webhook:
        assert webhook.urls.keys() == {"url"}
