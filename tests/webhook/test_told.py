"""What a review leaves behind for people: a log line, and a span."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from fracgpu.process.logs import facts_of
from fracgpu.process.serving import HttpServer
from tests.process.receiver import traced
from tests.webhook.builders import POLICY, container, pod, review
from webhook.app import create_app

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SECRET = "a-tenants-password"


class Caller:
    """Posts reviews, and reads the log."""

    def __init__(self, session: aiohttp.ClientSession, url: str, caplog: pytest.LogCaptureFixture) -> None:
        self._session = session
        self._url = url
        self._caplog = caplog

    async def review(self, manifest: dict[str, Any], *, headers: dict[str, str] | None = None, **more: Any) -> bool:
        """Whether the object was let in."""
        body = review(manifest)
        body["request"] |= {"name": manifest["metadata"].get("name", ""), **more}
        data = io.BytesIO(json.dumps(body).encode())
        async with self._session.post(f"{self._url}/mutate", data=data, headers=headers) as response:
            answer = await response.json()
            return bool(answer["response"]["allowed"])

    def told(self, level: int = logging.DEBUG) -> list[dict[str, Any]]:
        """The facts of each line since the last time."""
        found = [
            facts_of(record)
            for record in self._caplog.records
            if record.name == "webhook.telling" and record.levelno >= level
        ]
        self._caplog.clear()
        return found


@pytest.fixture
async def caller(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Caller]:
    caplog.set_level(logging.DEBUG)
    server = HttpServer(create_app(POLICY), host="127.0.0.1", port=0)
    await server.start()
    async with aiohttp.ClientSession() as session:
        yield Caller(session, server.url, caplog)
    await server.stop()


async def test_each_decision_is_one_line(caller: Caller) -> None:
    assert await caller.review(pod({"gpu-memory": "4Gi"}), uid="review-1")
    (line,) = caller.told(logging.INFO)
    assert 0 < line.pop("ms") < 60_000
    assert line == {
        "object": "team-a/p",
        "kind": "Pod",
        "review": "review-1",
        "outcome": "mutated",
        "language": "fracgpu",
    }

    assert not await caller.review(pod({"gpu-memory": "4GB"}), uid="review-2")
    (line,) = caller.told(logging.INFO)
    assert (line["outcome"], line["review"]) == ("refused", "review-2")
    assert line["sentence"].startswith("annotation fracgpu.io/gpu-memory is '4GB'")
    assert line["reason"]


async def test_pods_without_a_gpu_are_spoken_of_at_debug_only(caller: Caller) -> None:
    assert await caller.review(pod())
    assert await caller.review(pod({"gpu-memory": "4Gi"}), operation="DELETE")
    assert caller.told(logging.INFO) == []
    assert await caller.review(pod())
    assert [line["outcome"] for line in caller.told()] == ["unconcerned"]


async def test_what_a_tenant_wrote_into_its_environment_is_not_logged(
    caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = pod({"gpu-memory": "4Gi"}, container(env={"PASSWORD": SECRET, "LD_PRELOAD": SECRET}))
    assert not await caller.review(manifest)
    manifest = pod({"gpu-memory": "4Gi"}, container(env={"PASSWORD": SECRET}))
    assert await caller.review(manifest)
    facts = [str(vars(record)) for record in caplog.records]
    assert len(facts) >= 2
    assert SECRET not in "".join(facts)


async def test_a_review_is_a_span_within_the_api_servers(caller: Caller) -> None:
    async with traced("webhook") as receiver:
        await caller.review(pod({"gpu-memory": "4Gi"}), headers={"traceparent": TRACEPARENT}, uid="review-1")
    (found,) = receiver.spans
    assert (found.name, found.trace, found.parent) == (
        "review",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "00f067aa0ba902b7",
    )
    assert found.attributes == {
        "k8s.namespace.name": "team-a",
        "k8s.pod.name": "p",
        "fracgpu.kind": "Pod",
        "fracgpu.review": "review-1",
        "fracgpu.outcome": "mutated",
        "fracgpu.language": "fracgpu",
    }
