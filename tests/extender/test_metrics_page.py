"""What Prometheus reads of a real replica: over HTTP, with Redis and an API server."""

import asyncio
import gzip
from collections.abc import Callable

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from extender.exposition.page import MetricsPage
from extender.index import Index
from extender.ledger.embedded import EmbeddedRedis
from extender.metrics import Metrics
from playground.api.apiserver import ApiServer
from tests.extender.builders import gpu_node, grant
from tests.extender.replica import Replica, announce, create_pod

Replicas = tuple[Replica, Replica]
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def read(replica: Replica) -> Values:
    status, text = await replica.get("/metrics")
    assert status == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(values: Values, name: str, **labels: str) -> float | None:
    return values.get((f"fracgpu_{name}", frozenset(labels.items())))


async def until(replica: Replica, wanted: Callable[[Values], bool]) -> Values:
    async with asyncio.timeout(20):
        while not wanted(values := await read(replica)):
            pass
    return values


@pytest.fixture
async def replica(api: ApiServer, replicas: Replicas) -> Replica:
    await announce(api, gpu_node("node-1", "GPU-a", "GPU-b"))
    await replicas[0].knows("node-1")
    return replicas[0]


async def test_a_bound_pod_is_claimed_and_counted_everywhere(api: ApiServer, replica: Replica) -> None:
    pod = await create_pod(api, "p", units=16)
    assert await replica.bind(pod, "node-1") == ""

    values = await until(replica, lambda found: of(found, "cluster_claims", state="bound") == 1)

    assert of(values, "gpu_memory_claimed_bytes", node="node-1", gpu="GPU-a") == 8 * 2**30
    assert of(values, "gpu_memory_free_bytes", node="node-1", gpu="GPU-a") == 32 * 2**30
    assert of(values, "cluster_memory_claimed_bytes", product="Test GPU") == 8 * 2**30
    assert of(values, "cluster_nodes") == 1
    assert of(values, "extender_ready") == 1
    assert of(values, "extender_watches_current") == 1
    assert of(values, "extender_ledger_state", state="valid") == 1
    assert of(values, "extender_ledger_calls_total", operation="reserve", outcome="ok") == 1
    assert of(values, "extender_request_duration_seconds_count", verb="bind") == 1
    assert of(values, "extender_kube_requests_total", verb="bind", resource="pods/binding", code="ok") == 1
    assert of(values, "build_info", component="extender", version="0.1.0") == 1


async def test_waiting_pods_are_counted_by_reason(api: ApiServer, replica: Replica) -> None:
    busy = await create_pod(api, "busy", units=70)
    assert await replica.bind(busy, "node-1") == ""
    await announce(
        api, gpu_node("node-1", "GPU-a", "GPU-b", grants=(grant(busy["metadata"]["uid"], "GPU-a", units=70),))
    )
    names = {"fits": 80, "another-that-fits": 80, "too-large": 81}
    for name, units in names.items():
        await create_pod(api, name, units=units)
    models = {"annotations": {"fracgpu.io/gpu-model": "A100"}}
    await create_pod(api, "elsewhere", units=1, **models)

    def all_are_there(found: Values) -> bool:
        return (
            sum(value for (name, _), value in found.items() if name == "fracgpu_cluster_waiting_pods") == 4
            and of(found, "cluster_claims", state="bound") == 1
        )

    values = await until(replica, all_are_there)

    assert of(values, "cluster_waiting_pods", reason="Room") == 2
    assert of(values, "cluster_waiting_pods", reason="TooLarge") == 1
    assert of(values, "cluster_waiting_pods", reason="NoSuchGpu") == 1
    assert of(values, "cluster_waiting_oldest_seconds", reason="NoRoom") == 0
    oldest = of(values, "cluster_waiting_oldest_seconds", reason="Room")
    assert oldest is not None
    assert 0 <= oldest < 60

    second = await create_pod(api, "second", units=80)  # on the other GPU: now 10 units are the largest piece
    assert await replica.bind(second, "node-1") == ""
    values = await until(replica, lambda found: of(found, "cluster_waiting_pods", reason="NoRoom") == 2)
    assert of(values, "cluster_largest_free_bytes", product="Test GPU") == 5 * 2**30


async def test_a_redis_that_goes_away_and_comes_back_empty(
    replica: Replica, replicas: Replicas, redis: EmbeddedRedis
) -> None:
    await redis.stop()
    values = await until(replica, lambda found: of(found, "extender_ledger_state", state="unreachable") == 1)
    assert of(values, "extender_ledger_state", state="valid") == 0
    assert (of(values, "extender_ledger_calls_total", operation="sync", outcome="failed") or 0) > 0

    await redis.start()
    values = await until(replica, lambda found: of(found, "extender_ledger_state", state="valid") == 1)
    assert (of(values, "extender_ledger_calls_total", operation="sync", outcome="lost") or 0) > 0
    pages = [await read(each) for each in replicas]
    rebuilt = [of(page, "extender_ledger_calls_total", operation="commit", outcome="ok") for page in pages]
    assert sum(count or 0 for count in rebuilt) == 1  # by whichever was faster
    assert (of(values, "extender_ledger_age_seconds") or 0) < 20


async def test_a_page_through_gzip_is_the_same(replica: Replica) -> None:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        url = f"{replica.pages_url}/metrics"
        async with session.get(url, headers={"accept-encoding": "gzip;q=1.0,*;q=0.1"}) as packed:
            text = gzip.decompress(await packed.read()).decode()
            assert packed.headers["content-encoding"] == "gzip"
            assert packed.headers["content-type"].startswith("text/plain; version=")
        async with session.get(url, headers={"accept-encoding": "gzip;q=0"}) as plain:
            assert "content-encoding" not in plain.headers
            names = {line.split("{")[0].split(" ")[0] for line in (await plain.text()).splitlines()}
        async with session.head(url) as head:
            assert (head.status, await head.read()) == (200, b"")
        async with session.post(url) as post:
            assert post.status == 405
    assert {line.split("{")[0].split(" ")[0] for line in text.splitlines()} == names
    assert "fracgpu_gpu_usable" in names


async def test_others_are_let_in_while_a_large_page_is_made(replica: Replica) -> None:
    """What a scrape of a large cluster does in one go is a small part of it."""
    index = Index()
    for number in range(300):
        index.put_node(gpu_node(f"node-{number}", *(f"GPU-{number}-{gpu}" for gpu in range(8))))
    page = MetricsPage(metrics=Metrics(), index=index, reconciler=replica.reconciler)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    largest = lines = 0
    async for part in page.parts():
        largest = max(largest, part.count(b"\n"))
        lines += part.count(b"\n")
    counting.cancel()

    assert lines > 300 * 8 * 8
    assert largest <= 500
    assert turns > lines / 500


async def test_a_reader_that_stops_reading_does_not_keep_others_from_it(replica: Replica) -> None:
    index, reconciler = replica.index, replica.reconciler
    page = MetricsPage(metrics=Metrics(), index=index, reconciler=reconciler, seconds=0.3)
    scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": []}
    ends: list[str] = []

    async def never(message: dict[str, object]) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def at_once(message: dict[str, object]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            ends.append("whole")

    await page(scope, None, never)  # type: ignore[arg-type]
    await page(scope, None, at_once)  # type: ignore[arg-type]
    assert ends == ["whole"]


async def test_few_pages_are_made_at_a_time_and_a_reader_that_leaves_frees_the_next(replica: Replica) -> None:
    page = MetricsPage(metrics=Metrics(), index=replica.index, reconciler=replica.reconciler)
    sent: list[str] = []
    may_go_on = asyncio.Event()

    def reader(name: str) -> "asyncio.Task[None]":
        async def send(message: dict[str, object]) -> None:
            if message["type"] == "http.response.body":
                sent.append(name)
                await may_go_on.wait()

        scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": []}
        return asyncio.create_task(page(scope, None, send))  # type: ignore[arg-type]

    first, second, third, last = (reader(name) for name in ("first", "second", "third", "last"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert sorted(sent) == ["first", "second", "third"]

    first.cancel()
    may_go_on.set()
    await asyncio.gather(first, second, third, return_exceptions=True)
    await last
    assert sent.count("last") > 10
