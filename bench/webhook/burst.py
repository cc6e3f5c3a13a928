"""Many pods at once through a real kube-apiserver that sends them to the webhook, with the configuration of deploy/.

etcd, kube-apiserver, the webhook and we share all cores. Where the binaries of Kubernetes are missing, the reason is
the result.
"""

import asyncio
import base64
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import yaml

from bench.latency import percentile
from bench.webhook.histogram import Histogram, read_histogram, read_total
from bench.webhook.reviews import JsonObject, annotated_pod
from bench.webhook.rig import Rig
from fracgpu.names import RESOURCE_MEMORY
from tests.realcluster import RealControlPlane, missing_binaries

Row = dict[str, Any]

_CONFIGURATION: Final = (
    Path(__file__).parents[2] / "deploy" / "kustomize" / "webhook" / "mutatingwebhookconfiguration.yaml"
)
_CONFIGURATIONS: Final = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
_PODS: Final = "/api/v1/namespaces/default/pods"
_LIMIT: Final = "16"  # units of 256 MiB, which the pods' 4Gi come to
_DURATION: Final = "apiserver_admission_webhook_admission_duration_seconds"
_JSON: Final = {"Content-Type": "application/json"}
_TIMEOUT_WORDS: Final = (
    "context deadline exceeded",
    "Timeout",
    "timed out",
)  # kube-apiserver's, of a webhook or of all
_PATIENCE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1


async def measure_burst(*, pods: int, in_flight: Sequence[int]) -> Row:
    """Create `pods` annotated pods with so many requests under way; number of them -> results.

    The floor are the same pods without an annotation, which kube-apiserver does not send to the webhook. Where all that
    cannot be done, {"skipped": reason} is returned.
    """
    if missing := missing_binaries("etcd", "kube-apiserver"):
        return {"skipped": missing}
    async with _Plane.open() as plane:
        return {str(count): await _measure(plane, pods, in_flight=count) for count in in_flight}


async def _measure(plane: "_Plane", pods: int, *, in_flight: int) -> Row:
    # Opens our connections, so that neither of the two has to.
    await plane.create(_plain_pods(f"warm-up-{in_flight}", in_flight), in_flight=in_flight)
    floor = await plane.create(_plain_pods(f"floor-{in_flight}", pods), in_flight=in_flight)
    names = [f"infer-{in_flight}-{number}" for number in range(pods)]
    before = await plane.admissions()
    created = await plane.create([annotated_pod(name) for name in names], in_flight=in_flight)
    after = await plane.admissions()
    admissions = after.duration.since(before.duration)
    return {
        "pods": pods,
        "created": created.statuses[201],
        "with_limits": await plane.count_with_limits(set(names)),
        "timeouts": created.timeouts,
        "statuses": {str(status): count for status, count in sorted(created.statuses.items())},
        "failed_calls": after.failed - before.failed,
        "pods_per_second": round(pods / created.lasted_seconds, 1),
        "floor_pods_per_second": round(pods / floor.lasted_seconds, 1),
        "create_p50_ms": _ms(percentile(created.seconds, 50)),
        "create_p99_ms": _ms(percentile(created.seconds, 99)),
        "create_max_ms": _ms(max(created.seconds)),
        "floor_create_p50_ms": _ms(percentile(floor.seconds, 50)),
        "floor_create_p99_ms": _ms(percentile(floor.seconds, 99)),
        "admissions": admissions.count,
        "admission_mean_ms": _ms(admissions.mean),
        "admission_p50_ms": _ms(admissions.quantile(0.5)),
        "admission_p99_ms": _ms(admissions.quantile(0.99)),
        "admission_buckets": {str(bound): count for bound, count in admissions.buckets},
        "webhook_rss_mb": plane.rig.webhook.memory().rss_mb,
        "webhook_peak_mb": plane.rig.webhook.memory().peak_mb,
        "webhook_cpu_ms": _ms(created.webhook_cpu_seconds / pods),
        **({"first_error": created.first_error} if created.first_error else {}),
    }


class _Created:
    """What came of the requests."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()  # HTTP status -> answers
        self.timeouts = 0
        self.first_error = ""
        self.seconds: list[float] = []
        self.lasted_seconds = 0.0
        self.webhook_cpu_seconds = 0.0


class _Admissions(msgspec.Struct, frozen=True):
    """kube-apiserver's own figures: how long calls of the webhook took, and how many of them failed."""

    duration: Histogram
    failed: int


class _Plane:
    """A real API server with the webhook in front; made by `open`.

    Attributes:
        rig: the webhook.
    """

    def __init__(self, rig: Rig, http: aiohttp.ClientSession) -> None:
        self.rig = rig
        self._http = http

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls) -> AsyncIterator["_Plane"]:
        """Start everything; returns when the webhook is called."""
        async with contextlib.AsyncExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fgb")))
            control = RealControlPlane(directory)
            stack.callback(control.stop)
            await asyncio.to_thread(control.start)
            http = await stack.enter_async_context(
                aiohttp.ClientSession(
                    control.url,
                    headers={"Authorization": f"Bearer {control.token}"},
                    connector=aiohttp.TCPConnector(ssl=control.client_ssl(), limit=0),
                    timeout=aiohttp.ClientTimeout(total=_PATIENCE_SECONDS),
                )
            )
            plane = cls(await stack.enter_async_context(Rig.open(is_pinned=False)), http)
            await plane._register()
            yield plane

    async def create(self, pods: list[JsonObject], *, in_flight: int) -> _Created:
        """Create pods, each as soon as one of the requests before it is answered."""
        created = _Created()
        waiting = iter([msgspec.json.encode(pod) for pod in pods])

        async def some() -> None:
            for pod in waiting:
                began = time.perf_counter()
                async with self._http.post(_PODS, data=pod, headers=_JSON) as answer:
                    text = await answer.text()
                created.seconds.append(time.perf_counter() - began)
                created.statuses[answer.status] += 1
                if answer.status != 201:
                    created.timeouts += any(words in text for words in _TIMEOUT_WORDS)
                    created.first_error = created.first_error or text[:500]

        before, start = self.rig.webhook.cpu_seconds(), time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(in_flight):
                tasks.create_task(some())
        created.lasted_seconds = time.monotonic() - start
        created.webhook_cpu_seconds = self.rig.webhook.cpu_seconds() - before
        return created

    async def count_with_limits(self, names: AbstractSet[str]) -> int:
        """How many of these pods are stored with the limits that their annotation asks for."""
        async with self._http.get(_PODS) as answer:
            stored = await answer.json()
        return sum(
            pod["spec"]["containers"][0]["resources"].get("limits", {}).get(RESOURCE_MEMORY) == _LIMIT
            for pod in stored["items"]
            if pod["metadata"]["name"] in names
        )

    async def admissions(self) -> _Admissions:
        """What kube-apiserver has counted so far."""
        async with self._http.get("/metrics") as answer:
            text = await answer.text()
        return _Admissions(
            read_histogram(text, _DURATION, labels={"operation": "CREATE"}),
            read_total(
                text, "apiserver_admission_webhook_rejection_count", labels={"error_type": "calling_webhook_error"}
            ),
        )

    async def _register(self) -> None:
        """Have pods sent to the webhook: by URL, since a Service needs more of a cluster."""
        configuration = yaml.safe_load(_CONFIGURATION.read_text())
        authority = self.rig.authority.cert_pem.bytes()
        for webhook in configuration["webhooks"]:
            webhook["clientConfig"] = {
                "url": f"{self.rig.url}{webhook['clientConfig']['service']['path']}",
                "caBundle": base64.b64encode(authority).decode(),
            }
        async with self._http.post(_CONFIGURATIONS, json=configuration) as answer:
            if answer.status != 201:
                raise RuntimeError(f"the configuration was refused: {await answer.text()}")
        mistaken = annotated_pod("mistaken")
        mistaken["metadata"]["annotations"] = {"fracgpu.io/gpu-memory": "much"}
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:  # kube-apiserver takes up the configuration in its own time
                async with self._http.post(f"{_PODS}?dryRun=All", json=mistaken) as answer:
                    if answer.status == 403:
                        return
                await asyncio.sleep(_POLL_SECONDS)


def _plain_pods(prefix: str, count: int) -> list[JsonObject]:
    pods = [annotated_pod(f"{prefix}-{number}") for number in range(count)]
    for pod in pods:
        del pod["metadata"]["annotations"]
    return pods


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
