"""The plugin's probes and metrics, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fracgpu.gpunodes import IsolationStatus, SharingStatus
from fracgpu.process.probes import Check, ProbesApp
from fracgpu.process.serving import HttpServer
from fracgpu.sharing import PolicyProblem
from plugin.metrics import Metrics
from tests.plugin.builders import A, B, make_gpu, make_spec

Get = Callable[..., Awaitable[tuple[int, str, str]]]


@asynccontextmanager
async def serving(metrics: Metrics, **checks: Check) -> AsyncIterator[Get]:
    app = ProbesApp(registry=metrics.registry, checks=checks)
    server = HttpServer(app, host="127.0.0.1", port=0)
    await server.start()
    try:
        async with aiohttp.ClientSession(server.url) as session:

            async def get(path: str, method: str = "GET") -> tuple[int, str, str]:
                async with session.request(method, path) as response:
                    return response.status, response.headers["content-type"], await response.text()

            yield get
    finally:
        await server.stop()


async def test_alive_is_who_answers_and_ready_is_who_has_all_it_needs() -> None:
    missing = {"kubelet": "no kubelet has taken our registration", "nvml": ""}
    checks: dict[str, Check] = {name: lambda name=name: missing[name] for name in missing}  # type: ignore[misc]
    async with serving(Metrics(), **checks) as get:
        assert await get("/livez") == await get("/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
        assert (await get("/readyz"))[::2] == (503, "kubelet: no kubelet has taken our registration\n")
        missing["nvml"] = "NVML does not answer"
        assert (await get("/readyz"))[2].splitlines() == [
            "kubelet: no kubelet has taken our registration",
            "nvml: NVML does not answer",
        ]
        missing.update(kubelet="", nvml="")
        assert (await get("/readyz"))[::2] == (200, "ok\n")


async def test_a_check_with_a_defect_is_not_ready(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> str:
        raise ZeroDivisionError

    async with serving(Metrics(), part=broken) as get:
        assert (await get("/readyz"))[::2] == (503, "part: the check itself failed; the log has the traceback\n")
        assert (await get("/livez"))[0] == 200
    assert "ZeroDivisionError" in caplog.text


async def test_other_paths_and_methods() -> None:
    async with serving(Metrics()) as get:
        assert (await get("/"))[0] == 404
        assert (await get("/metrics/x"))[0] == 404
        assert (await get("/metrics", "POST"))[0] == 405
        assert (await get("/readyz", "HEAD"))[::2] == (200, "")


async def test_metrics_are_prometheus_text() -> None:
    metrics = Metrics()
    metrics.gpus(make_spec(make_gpu(A), make_gpu(B, healthy=False)))
    metrics.xid(A, 79)
    metrics.isolation(IsolationStatus("mps", enforced=True))
    metrics.refusal("NoRoom")
    metrics.registration("fracgpu.io/memory")
    metrics.grants(3)
    with metrics.timing("allocate", "fracgpu.io/memory"), pytest.raises(ZeroDivisionError):
        raise ZeroDivisionError
    async with serving(metrics) as get:
        status, kind, text = await get("/metrics")
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    values = {
        (
            sample.name.removeprefix("fracgpu_plugin_"),
            *(value for _, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    want = {
        ("gpu_memory_bytes", A): 40 * 2**30,
        ("gpu_healthy", A): 1,
        ("gpu_healthy", B): 0,
        ("xid_errors_total", A, "79"): 1,
        ("isolation_info", "true", "mps"): 1,
        ("refusals_total", "NoRoom"): 1,
        ("registrations_total", "fracgpu.io/memory"): 1,
        ("grants",): 3,
        ("call_duration_seconds_count", "allocate", "fracgpu.io/memory"): 1,
        ("evictions_total", "blocked"): 0,
        ("measurements_total", "failed"): 0,
    }
    assert {key: values.get(key) for key in want} == want


def test_what_is_gone_vanishes() -> None:
    metrics = Metrics()
    value = metrics.registry.get_sample_value
    metrics.gpus(make_spec(make_gpu(A), make_gpu(B)))
    metrics.gpus(make_spec(make_gpu(B)))
    assert value("fracgpu_plugin_gpu_healthy", {"gpu": A}) is None
    assert value("fracgpu_plugin_gpu_healthy", {"gpu": B}) == 1
    metrics.isolation(IsolationStatus("driver-limit", enforced=True))
    metrics.isolation(IsolationStatus("none", enforced=False))
    assert value("fracgpu_plugin_isolation_info", {"mechanism": "driver-limit", "enforced": "true"}) is None
    assert value("fracgpu_plugin_isolation_info", {"mechanism": "none", "enforced": "false"}) == 1
    metrics.isolation(None)
    assert value("fracgpu_plugin_isolation_info", {"mechanism": "none", "enforced": "false"}) is None
    problem = PolicyProblem("a", 1, "Conflict", "another one wins")
    metrics.sharing(SharingStatus(("a",), (problem, problem)))
    assert value("fracgpu_plugin_sharing_problems", {"reason": "Conflict"}) == 2
    metrics.sharing(None)
    assert value("fracgpu_plugin_sharing_problems", {"reason": "Conflict"}) == 0


async def test_a_header_without_an_end_is_not_read_for_ever() -> None:
    app = ProbesApp(registry=Metrics().registry, checks={})
    server = HttpServer(app, host="127.0.0.1", port=0)
    await server.start()
    _reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Long: ")
        async with asyncio.timeout(20):
            with pytest.raises(ConnectionError):
                await _flood(writer)
    finally:
        writer.close()
        await server.stop()


async def _flood(writer: asyncio.StreamWriter) -> None:
    for _ in range(2000):  # 128 MiB: far more than the system's own buffers take
        writer.write(b"a" * 65536)
        await writer.drain()
