"""Mutating webhooks, called over real TLS."""

from __future__ import annotations

import base64
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

from playground.api.admission import Webhook
from playground.api.apiserver import ApiServer
from tests.playground.builders import MEMORY, make_pod

PODS = "/api/v1/namespaces/default/pods"
RECORDED = Path(__file__).parents[1] / "wire"

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class Hook:
    """A webhook server: answers with what the test puts into ``answer``, and keeps what it was asked."""

    def __init__(self, webhook: Webhook) -> None:
        self.webhook = webhook
        self.asked: list[dict[str, Any]] = []
        self.answer: Answer = lambda _: {"allowed": True}

    async def mutate(self, request: web.Request) -> web.Response:
        assert request.query["timeout"] == "10s"
        review = await request.json()
        self.asked.append(review)
        response = {"uid": review["request"]["uid"], **self.answer(review["request"])}
        return web.json_response({**review, "request": None, "response": response})


def patching(*operations: dict[str, Any]) -> Answer:
    patch = base64.b64encode(json.dumps(operations).encode()).decode()
    return lambda _: {"allowed": True, "patchType": "JSONPatch", "patch": patch}


def refusing(**status: Any) -> Answer:
    return lambda _: {"allowed": False, "status": status}


@pytest.fixture
async def hook(apiserver: ApiServer) -> AsyncIterator[Hook]:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))
    webhook = Webhook(
        "gpu.fracgpu.io",
        f"https://127.0.0.1:{listener.getsockname()[1]}/mutate",
        authority.cert_pem.bytes().decode(),
        operations=("CREATE", "UPDATE"),
    )
    hook = Hook(webhook)
    app = web.Application()
    app.router.add_post("/mutate", hook.mutate)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.SockSite(runner, listener, ssl_context=context).start()
    apiserver.set_webhooks([webhook])
    yield hook
    await runner.cleanup()


async def create(http: aiohttp.ClientSession, manifest: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with http.post(PODS, json=manifest) as response:
        return response.status, await response.json()


async def test_a_patched_limit_becomes_a_request_too(http: aiohttp.ClientSession, hook: Hook) -> None:
    limits = {"limits": {MEMORY: 8}}
    hook.answer = patching({"op": "add", "path": "/spec/containers/0/resources", "value": limits})
    code, pod = await create(http, make_pod("a"))
    assert code == 201
    assert pod["spec"]["containers"][0]["resources"] == {"limits": {MEMORY: "8"}, "requests": {MEMORY: "8"}}


@pytest.mark.parametrize(
    ("recorded", "metadata"),
    [
        ("admission-create-pod.json", {"name": "a"}),
        ("admission-create-generatename-initcontainer.json", {"generateName": "job-"}),
    ],
)
async def test_a_review_has_the_recorded_shape(
    http: aiohttp.ClientSession, hook: Hook, recorded: str, metadata: dict[str, Any]
) -> None:
    await create(http, {**make_pod("a"), "metadata": metadata})
    [review] = hook.asked
    want = json.loads((RECORDED / recorded).read_text())["request"]
    assert {**review, "request": None} == {**want, "request": None}
    assert review["request"].keys() == want["request"].keys()
    assert review["request"]["operation"] == "CREATE"
    asked, seen = review["request"]["object"], want["request"]["object"]
    assert asked.keys() == seen.keys()
    assert asked["status"] == seen["status"] == {}
    assert asked["spec"].keys() == seen["spec"].keys() - {"initContainers"}
    assert asked["spec"]["containers"][0].keys() == seen["spec"]["containers"][0].keys()
    assert asked["metadata"] == {**metadata, "namespace": "default"}


@pytest.mark.parametrize(
    ("status", "want_code", "want_reason", "want_message"),
    [
        ({"message": "say 4Gi", "code": 422, "reason": "Invalid"}, 422, "Invalid", ": say 4Gi"),
        ({"message": "say 4Gi"}, 400, None, ": say 4Gi"),
        ({}, 400, None, " without explanation"),
    ],
)
async def test_a_refusal_is_passed_on(
    http: aiohttp.ClientSession,
    hook: Hook,
    status: dict[str, Any],
    want_code: int,
    want_reason: str | None,
    want_message: str,
) -> None:
    hook.answer = refusing(**status)
    code, body = await create(http, make_pod("a"))
    assert (code, body["code"], body.get("reason")) == (want_code, want_code, want_reason)
    assert body["message"] == f'admission webhook "gpu.fracgpu.io" denied the request{want_message}'
    async with http.get(f"{PODS}/a") as response:
        assert response.status == 404


BROKEN: dict[str, Answer] = {
    "another uid": lambda _: {"uid": "other", "allowed": True},
    "no verdict": lambda _: {},
    "a patch of an unknown type": lambda _: {"allowed": True, "patchType": "Merge", "patch": "e30="},
    "a patch that is not base64": lambda _: {"allowed": True, "patchType": "JSONPatch", "patch": "{"},
    "a patch that does not fit": patching({"op": "remove", "path": "/nope"}),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_webhook_that_answers_nonsense_fails_the_request(
    http: aiohttp.ClientSession, hook: Hook, case: str
) -> None:
    hook.answer = BROKEN[case]
    code, body = await create(http, make_pod("a"))
    assert (code, body["reason"]) == (500, "InternalError")
    assert body["message"].startswith(
        'Internal error occurred: failed calling webhook "gpu.fracgpu.io": failed to call webhook: Post "https://'
    )


async def test_a_webhook_out_of_reach_fails_or_is_ignored_by_policy(
    apiserver: ApiServer, http: aiohttp.ClientSession, hook: Hook
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    gone = f"https://127.0.0.1:{port}/mutate"
    strict = Webhook("gone.fracgpu.io", gone, hook.webhook.ca_pem)
    apiserver.set_webhooks([strict])
    assert (await create(http, make_pod("a")))[0] == 500
    apiserver.set_webhooks([Webhook("gone.fracgpu.io", gone, hook.webhook.ca_pem, failure_policy="Ignore")])
    assert (await create(http, make_pod("a")))[0] == 201


async def test_a_certificate_of_another_authority_is_refused(
    apiserver: ApiServer, http: aiohttp.ClientSession, hook: Hook
) -> None:
    stranger = trustme.CA().cert_pem.bytes().decode()
    apiserver.set_webhooks([Webhook("gpu.fracgpu.io", hook.webhook.url, stranger)])
    code, body = await create(http, make_pod("a"))
    assert (code, body["reason"]) == (500, "InternalError")
    assert hook.asked == []


async def test_updates_are_shown_with_the_old_object_and_status_writes_are_not(
    http: aiohttp.ClientSession, hook: Hook
) -> None:
    await create(http, make_pod("a"))
    headers = {"Content-Type": "application/merge-patch+json"}
    patch = json.dumps({"metadata": {"labels": {"x": "y"}}, "status": {"phase": "Running"}})
    for path in (f"{PODS}/a/status", f"{PODS}/a"):
        async with http.patch(path, data=patch, headers=headers) as response:
            assert response.status == 200
    _, update = (review["request"] for review in hook.asked)
    assert update["operation"] == "UPDATE"
    assert "labels" not in update["oldObject"]["metadata"]
    assert update["object"]["metadata"]["labels"] == {"x": "y"}
    assert update["object"]["metadata"]["uid"] == update["oldObject"]["metadata"]["uid"]
