"""The controllers on an API server, without nodes: what is made, replaced and cleared away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from playground.api.apiserver import ApiServer
from playground.cluster import ApiStatusError
from playground.controllers import statefulsets
from playground.controllers.deployments import REVISION
from playground.controllers.manager import Controllers
from tests.playground.controllers.objects import make_workload

_ROUNDS = 50
"""More than any rollout here takes: a controller that never comes to an end is told of at once."""


class Cluster:
    """An API server with controllers."""

    def __init__(self, server: ApiServer, controllers: Controllers) -> None:
        self.server = server
        self.api = server.cluster
        self.controllers = controllers

    async def create(self, kind: str, *, name: str = "w", namespace: str = "default", **spec: Any) -> dict[str, Any]:
        body = make_workload(kind, **spec)
        body["metadata"] = {"name": name, "namespace": namespace}
        created = await self.api.create(f"{kind.lower()}s", body)
        await self.controllers.settled()
        return created

    async def names(self, resource: str = "pods") -> list[str]:
        found, _ = await self.api.list(resource)
        return [obj["metadata"]["name"] for obj in found]

    async def patch(self, resource: str, patch: dict[str, Any], *, name: str = "w", subresource: str = "") -> None:
        await self.api.patch(resource, name, patch, namespace="default", subresource=subresource)
        await self.controllers.settled()

    async def delete(self, resource: str, name: str) -> None:
        await self.api.delete(resource, name, namespace="" if resource == "namespaces" else "default")
        await self.controllers.settled()

    async def get_ready(self) -> None:
        """Let every pod run, as kubelets would, until nothing more is made."""
        for _ in range(_ROUNDS):
            found, _ = await self.api.list("pods")
            waiting = [pod for pod in found if pod["status"]["phase"] == "Pending"]
            for pod in waiting:
                status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
                name = pod["metadata"]["name"]
                await self.api.patch("pods", name, {"status": status}, namespace="default", subresource="status")
            await self.controllers.settled()
            if not waiting:
                return
        raise AssertionError("it does not settle")

    async def events(self) -> list[tuple[str, str, int]]:
        found, _ = await self.api.list("events")
        return [(event["reason"], event["message"], event["count"]) for event in found]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    server = ApiServer()
    await server.start()
    controllers = Controllers(server.cluster)
    await controllers.start()
    yield Cluster(server, controllers)
    await controllers.stop()
    await server.stop()


async def test_a_deployment_is_scaled_rolled_out_and_deleted_with_all_that_belongs_to_it(cluster: Cluster) -> None:
    await cluster.create("Deployment", replicas=3)
    await cluster.get_ready()
    assert len(await cluster.names()) == 3
    deployment = await cluster.api.get("deployments", "w")
    assert deployment["status"]["availableReplicas"] == 3
    assert deployment["metadata"]["annotations"] == {"deployment.kubernetes.io/revision": "1"}

    await cluster.patch("deployments", {"spec": {"replicas": 1}})
    assert len(await cluster.names()) == 1

    before = await cluster.names()
    template = {"spec": {"containers": [{"name": "c", "image": "y"}]}}
    await cluster.patch("deployments", {"spec": {"template": template}})
    await cluster.get_ready()
    assert len(after := await cluster.names()) == 1
    assert before != after
    assert len(await cluster.names("replicasets")) == 2

    await cluster.delete("deployments", "w")
    assert (await cluster.names("replicasets"), await cluster.names()) == ([], [])


async def test_what_is_deleted_by_hand_is_made_again(cluster: Cluster) -> None:
    await cluster.create("StatefulSet", replicas=2, serviceName="s", podManagementPolicy="Parallel")
    assert await cluster.names() == ["w-0", "w-1"]
    before = (await cluster.api.get("pods", "w-1"))["metadata"]["uid"]
    await cluster.delete("pods", "w-1")
    assert (await cluster.api.get("pods", "w-1"))["metadata"]["uid"] != before


async def test_a_job_completes_when_its_pods_do(cluster: Cluster) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "w"}}
    await cluster.api.create("jobs", {**body, "spec": {"completions": 3, "parallelism": 2, "template": template}})
    await cluster.controllers.settled()
    for _ in range(2):
        for name in await cluster.names():
            ended = {"status": {"phase": "Succeeded"}}
            await cluster.api.patch("pods", name, ended, namespace="default", subresource="status")
        await cluster.controllers.settled()
    job = await cluster.api.get("jobs", "w")
    assert (job["status"]["succeeded"], job["status"]["active"]) == (3, 0)
    assert [entry["type"] for entry in job["status"]["conditions"]] == ["Complete"]


async def test_owners_may_leave_what_belongs_to_them(cluster: Cluster) -> None:
    await cluster.create("ReplicaSet", replicas=2)
    names = await cluster.names()
    path = f"{cluster.server.url}/apis/apps/v1/namespaces/default/replicasets/w?propagationPolicy=Orphan"
    async with aiohttp.ClientSession() as session, session.delete(path) as answer:
        assert answer.status == 200
    await cluster.controllers.settled()
    assert await cluster.names() == names
    assert "ownerReferences" not in (await cluster.api.get("pods", names[0]))["metadata"]


async def test_a_namespace_takes_everything_with_it(cluster: Cluster) -> None:
    await cluster.api.create("namespaces", {"metadata": {"name": "shop"}})
    await cluster.create("Deployment", namespace="shop")
    await cluster.create("Deployment", name="stays")
    await cluster.api.create("secrets", {"metadata": {"name": "s", "namespace": "shop"}})
    await cluster.delete("namespaces", "shop")
    assert await cluster.names("deployments") == ["stays"]
    assert (await cluster.names("secrets"), len(await cluster.names())) == ([], 1)


async def test_pods_that_are_refused_are_told_of_and_tried_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playground.controllers.manager._FIRST_PAUSE_SECONDS", 0.01)
    create, tries, is_open = cluster.api.create, 0, asyncio.Event()
    twice = asyncio.Event()

    async def guarded(resource: str, obj: dict[str, Any]) -> dict[str, Any]:
        nonlocal tries
        if resource == "pods" and not is_open.is_set():
            tries += 1
            if tries > 1:
                twice.set()
            raise ApiStatusError(403, "Forbidden", "not this one")
        return await create(resource, obj)

    monkeypatch.setattr(cluster.api, "create", guarded)
    await cluster.create("Deployment", replicas=2)
    async with asyncio.timeout(10):
        await twice.wait()
    await cluster.controllers.settled()
    (name,) = await cluster.names("replicasets")
    assert list(cluster.controllers.refused.values()) == [(f"default/{name}", "not this one")]
    deployment = await cluster.api.get("deployments", "w")
    assert [entry["reason"] for entry in deployment["status"]["conditions"]][-1] == "FailedCreate"
    (failed,) = [event for event in await cluster.events() if event[0] == "FailedCreate"]
    assert failed[1] == "Error creating: not this one"
    assert failed[2] >= 2

    _, version = await cluster.api.list("pods")
    is_open.set()
    made = 0
    async with asyncio.timeout(30):
        async for _ in cluster.api.watch("pods", resource_version=version):
            made += 1
            if made == 2:
                break
    await cluster.controllers.settled()
    assert cluster.controllers.refused == {}
    deployment = await cluster.api.get("deployments", "w")
    assert "FailedCreate" not in [entry["reason"] for entry in deployment["status"]["conditions"]]


async def test_a_defect_of_one_controller_is_told_of_and_stops_no_other(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("playground.controllers.manager._FIRST_PAUSE_SECONDS", 0.01)
    decide, is_broken = statefulsets.decide, True

    def broken(stateful_set: dict[str, Any], pods: Any) -> Any:
        if is_broken:
            raise ValueError("no number")
        return decide(stateful_set, pods)

    monkeypatch.setattr(statefulsets, "decide", broken)
    await cluster.create("StatefulSet", name="odd", serviceName="s")
    await cluster.create("Deployment")
    assert len(await cluster.names()) == 1
    told = ("default/odd", "a defect of the playground's controllers: ValueError: no number")
    assert list(cluster.controllers.refused.values()) == [told]
    assert "no number" in caplog.text

    _, version = await cluster.api.list("pods")
    is_broken = False
    async with asyncio.timeout(30):
        async for event in cluster.api.watch("pods", resource_version=version):
            if event.object["metadata"]["name"] == "odd-0":
                break
    await cluster.controllers.settled()
    assert cluster.controllers.refused == {}


async def test_a_revision_that_is_no_number_counts_for_nothing(cluster: Cluster) -> None:
    await cluster.create("Deployment")
    (name,) = await cluster.names("replicasets")
    await cluster.patch("replicasets", {"metadata": {"annotations": {REVISION: "abc"}}}, name=name)
    assert (await cluster.api.get("replicasets", name))["metadata"]["annotations"][REVISION] == "1"
    await cluster.create("Deployment", name="next")
    assert len(await cluster.names()) == 2


async def test_a_namespace_is_emptied_though_something_of_it_cannot_be_deleted_at_first(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playground.controllers.manager._FIRST_PAUSE_SECONDS", 0.01)
    await cluster.api.create("namespaces", {"metadata": {"name": "shop"}})
    await cluster.api.create("secrets", {"metadata": {"name": "s", "namespace": "shop"}})
    delete, tries = cluster.api.delete, 0

    async def failing(resource: str, name: str, **options: Any) -> None:
        nonlocal tries
        if resource == "secrets":
            tries += 1
            if tries < 3:
                raise ApiStatusError(500, "InternalError", "not now")
        await delete(resource, name, **options)

    monkeypatch.setattr(cluster.api, "delete", failing)
    _, version = await cluster.api.list("secrets")
    await cluster.delete("namespaces", "shop")
    async with asyncio.timeout(30):
        async for _ in cluster.api.watch("secrets", resource_version=version):
            break
    assert (await cluster.names("secrets"), tries) == ([], 3)
    await cluster.create("Deployment")
    assert len(await cluster.names()) == 1


async def test_what_was_left_behind_before_the_start_is_cleared_away() -> None:
    server = ApiServer()
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "gone", "uid": "u", "controller": True}
    spec = {"containers": [{"name": "c", "image": "x"}]}
    await server.cluster.create("pods", {"metadata": {"name": "a", "ownerReferences": [owner]}, "spec": spec})
    await server.cluster.create("pods", {"metadata": {"name": "b"}, "spec": spec})
    controllers = Controllers(server.cluster)
    await controllers.start()
    await controllers.settled()
    found, _ = await server.cluster.list("pods")
    assert [pod["metadata"]["name"] for pod in found] == ["b"]
    await controllers.stop()


async def test_nothing_is_made_twice_when_much_happens_at_once(cluster: Cluster) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(cluster.create("Deployment", name=f"w{number}", replicas=20))
    await cluster.controllers.settled()
    assert len(await cluster.names()) == 200
    reasons = [reason for reason, _, _ in await cluster.events()]
    assert reasons.count("SuccessfulCreate") == 200
    assert "SuccessfulDelete" not in reasons
