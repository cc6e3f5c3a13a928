"""What only the playground's API server has: faults on demand, and the same API without HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from playground.api.apiserver import ApiServer
from playground.api.registry import MAX_EVENTS
from playground.cluster import ApiStatusError
from tests.playground.builders import make_node, make_pod

PODS = "/api/v1/namespaces/default/pods"


def binding(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "annotations": {"plan": "x"}},
        "target": {"kind": "Node", "name": "n1"},
    }


async def ask(http: aiohttp.ClientSession, path: str) -> Any:
    async with http.get(path) as response:
        text = await response.text()
        return json.loads(text) if text.startswith("{") else text


async def bind(http: aiohttp.ClientSession, name: str) -> int:
    async with http.post(f"{PODS}/{name}/binding", json=binding(name)) as response:
        await response.read()
        return response.status


async def test_what_monitors_and_clients_ask_first(http: aiohttp.ClientSession) -> None:
    for path in ("/healthz", "/readyz", "/livez"):
        assert await ask(http, path) == "ok"
    assert (await ask(http, "/version"))["major"] == "1"
    groups = (await ask(http, "/apis"))["groups"]
    assert {"fracgpu.io", "policy", "apps", "batch"} <= {group["name"] for group in groups}
    core = (await ask(http, "/api/v1"))["resources"]
    assert {"pods", "pods/binding", "pods/status", "nodes"} <= {resource["name"] for resource in core}
    assert await ask(http, "/apis/example.com/v1/widgets") == "404 page not found\n"


async def test_a_watch_over_http_sends_bookmarks_and_ends_in_time(
    apiserver: ApiServer, http: aiohttp.ClientSession
) -> None:
    await apiserver.cluster.create("pods", make_pod("a"))
    async with (
        asyncio.timeout(5),
        http.get("/api/v1/pods?watch=1&allowWatchBookmarks=true&timeoutSeconds=1") as response,
    ):
        events = [json.loads(line) async for line in response.content]
    assert events[0]["object"]["metadata"]["name"] == "a"
    assert {event["type"] for event in events[1:]} == {"BOOKMARK"}
    _, version = await apiserver.cluster.list("pods")
    assert events[-1]["object"]["metadata"]["resourceVersion"] == version


async def test_cut_watches_break_in_the_middle_and_a_late_resume_gets_410(
    apiserver: ApiServer, http: aiohttp.ClientSession
) -> None:
    await apiserver.cluster.create("pods", make_pod("a"))
    async with asyncio.timeout(5):
        async with http.get("/api/v1/pods?watch=1") as response:
            first = json.loads(await response.content.readline())
            apiserver.cut_watches()
            with pytest.raises(aiohttp.ClientError):
                await response.content.readline()
        await apiserver.cluster.create("pods", make_pod("b"))
        apiserver.compact()
        version = first["object"]["metadata"]["resourceVersion"]
        async with http.get(f"/api/v1/pods?watch=1&resourceVersion={version}") as response:
            event = json.loads(await response.content.readline())
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


async def test_a_list_whose_state_is_gone_cannot_be_continued(
    apiserver: ApiServer, http: aiohttp.ClientSession
) -> None:
    for name in "ab":
        await apiserver.cluster.create("pods", make_pod(name))
    page = await ask(http, f"{PODS}?limit=1")
    await apiserver.cluster.create("pods", make_pod("c"))
    apiserver.compact()
    answer = await ask(http, f"{PODS}?limit=1&continue={page['metadata']['continue']}")
    assert (answer["code"], answer["reason"]) == (410, "Expired")


async def test_a_failed_binding_does_nothing(apiserver: ApiServer, http: aiohttp.ClientSession) -> None:
    await apiserver.cluster.create("pods", make_pod("a"))
    apiserver.bindings.fail()
    assert await bind(http, "a") == 500
    assert await bind(http, "a") == 201


async def test_a_lost_answer_leaves_the_pod_bound(apiserver: ApiServer, http: aiohttp.ClientSession) -> None:
    await apiserver.cluster.create("pods", make_pod("a"))
    apiserver.bindings.lose_answer()
    with pytest.raises(aiohttp.ClientError):
        await bind(http, "a")
    pod = await apiserver.cluster.get("pods", "a")
    assert (pod["spec"]["nodeName"], pod["metadata"]["annotations"]) == ("n1", {"plan": "x"})


async def test_a_hanging_binding_is_carried_out_when_released(
    apiserver: ApiServer, http: aiohttp.ClientSession
) -> None:
    await apiserver.cluster.create("pods", make_pod("a"))
    apiserver.bindings.hang()
    async with asyncio.timeout(5):
        request = asyncio.create_task(bind(http, "a"))
        await apiserver.bindings.wait_hanging()
        assert "nodeName" not in (await apiserver.cluster.get("pods", "a"))["spec"]
        apiserver.bindings.release()
        assert await request == 201


async def test_stop_does_not_wait_for_anybody(apiserver: ApiServer, http: aiohttp.ClientSession) -> None:
    await apiserver.cluster.create("pods", make_pod("a"))
    apiserver.bindings.hang()
    request = asyncio.create_task(bind(http, "a"))
    async with asyncio.timeout(5):
        await apiserver.bindings.wait_hanging()
        async with http.get("/api/v1/pods?watch=1"):
            await apiserver.stop()
    with pytest.raises(aiohttp.ClientError):
        await request


async def test_the_api_without_http(apiserver: ApiServer) -> None:
    cluster = apiserver.cluster
    created = await cluster.create("pods", make_pod("a"))
    created["metadata"]["name"] = "changed by its owner"
    assert (await cluster.get("pods", "a"))["metadata"]["name"] == "a"
    pods, version = await cluster.list("pods", field_selector="spec.nodeName=")
    assert len(pods) == 1
    watch = cluster.watch("pods", resource_version=version, field_selector="spec.nodeName=")
    await cluster.bind("a", namespace="default", node="n1", uid=created["metadata"]["uid"])
    async with asyncio.timeout(5):
        assert (await anext(watch)).type == "DELETED"
        apiserver.cut_watches()
        assert [event async for event in watch] == []
    with pytest.raises(ApiStatusError, match="already assigned"):
        await cluster.bind("a", namespace="default", node="n1", uid="")
    await cluster.patch("pods", "a", {"status": {"phase": "Running"}}, subresource="status")
    await cluster.delete("pods", "a", grace_seconds=5)
    assert (await cluster.get("pods", "a"))["metadata"]["deletionGracePeriodSeconds"] == 5
    await cluster.delete("pods", "a", grace_seconds=0, uid=created["metadata"]["uid"])
    with pytest.raises(ApiStatusError) as caught:
        await cluster.get("pods", "a")
    assert (caught.value.code, caught.value.reason) == (404, "NotFound")
    with pytest.raises(ApiStatusError, match="the playground serves"):
        await cluster.list("widgets")


async def test_a_node_offers_its_capacity_unless_it_says_otherwise(apiserver: ApiServer) -> None:
    node = make_node("n1", units=4)
    node["status"] = {"capacity": {"fracgpu.io/memory": "4"}}
    created = await apiserver.cluster.create("nodes", node)
    assert created["status"]["allocatable"] == {"fracgpu.io/memory": "4"}


async def test_events_are_kept_in_bounds(apiserver: ApiServer) -> None:
    for number in range(MAX_EVENTS + 2):
        event = {"metadata": {"name": f"e{number}"}, "involvedObject": {"kind": "Pod", "name": "a"}}
        await apiserver.cluster.create("events", event)
    events, _ = await apiserver.cluster.list("events", field_selector="involvedObject.name=a")
    names = {event["metadata"]["name"] for event in events}
    assert len(names) == MAX_EVENTS
    assert names.isdisjoint({"e0", "e1"})
