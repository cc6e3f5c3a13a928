"""The client and the reflector against the playground's API server and a real kube-apiserver."""

import asyncio
import io
import json
import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fracgpu.kube.client import EventKind, KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.kube.events import PodEvent, write_event
from fracgpu.kube.resources import PODS
from fracgpu.names import NodeName, PodUid
from fracgpu.pods import Pod
from playground.api.apiserver import ApiServer
from tests.kube.following import PATIENCE_SECONDS, Follower, running
from tests.realcluster import RealControlPlane, missing_binaries

MERGE = "application/merge-patch+json"


@dataclass
class Cluster:
    """One API server, our client of it, and what our client does not do."""

    kube: KubeClient
    url: str
    token: str = ""
    context: ssl.SSLContext | None = None

    async def create(self, name: str, **metadata: Any) -> Pod:
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, **metadata},
            "spec": {"containers": [{"name": "main", "image": "none"}]},
        }
        return await self.kube.apply(PODS, name, body, field_manager="test", namespace="default")

    async def delete(self, name: str) -> None:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {self.token}"}) as session:
            path = f"/api/v1/namespaces/default/pods/{name}"
            body = {"gracePeriodSeconds": 0}
            async with session.delete(self.url + path, json=body, ssl=self.context or True) as response:
                assert response.status == 200

    async def send(self, method: str, path: str, body: object, *, kind: str = "application/json") -> Any:
        """What an administrator or a controller does."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request(
                method, self.url + path, data=io.BytesIO(json.dumps(body).encode()), ssl=self.context or True
            ) as response,
        ):
            answer = await response.json()
            assert response.ok, answer
            return answer

    async def run_pod(self, name: str, *, app: str) -> Pod:
        """Have a bound pod that runs and is ready, as far as its status says."""
        pod = await self.create(name, labels={"app": app})
        await self.bind(name, pod.uid)
        path = f"/api/v1/namespaces/default/pods/{name}/status"
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        await self.send("PATCH", path, {"status": status}, kind=MERGE)
        return pod

    async def budget(self, name: str, *, app: str, allowed: int) -> Any:
        """Have a disruption budget for these pods, with what its controller would write."""
        path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
        spec = {"maxUnavailable": allowed, "selector": {"matchLabels": {"app": app}}}
        body = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": spec}
        await self.send("POST", path, body)
        counts = {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
        status = {"status": counts | {"observedGeneration": 1}}
        return await self.send("PATCH", f"{path}/{name}/status", status, kind=MERGE)

    async def evict(self, pod: Pod) -> None:
        await self.kube.evict(namespace="default", name=pod.metadata.name, uid=pod.uid, timeout_seconds=5)

    async def bind(self, name: str, uid: PodUid, *, timeout_seconds: float = 5) -> None:
        await self.kube.bind(
            namespace="default",
            name=name,
            uid=uid,
            node=NodeName("node-1"),
            annotations={"fracgpu.io/allocation": "plan"},
            timeout_seconds=timeout_seconds,
        )


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealControlPlane]:
    if missing := missing_binaries("etcd", "kube-apiserver"):
        pytest.skip(missing)
    plane = RealControlPlane(tmp_path_factory.mktemp("plane"))
    plane.start()
    yield plane
    plane.stop()


@asynccontextmanager
async def playing(tmp_path: Path) -> AsyncIterator[tuple[ApiServer, Cluster]]:
    """The playground's API server with fast bookmarks, and pod "old" in it."""
    server = ApiServer(bookmark_seconds=0.05)
    await server.start()
    kubeconfig = tmp_path / "playground"
    kubeconfig.write_text(server.kubeconfig())
    kube = await KubeClient.connect(kubeconfig=kubeconfig)
    cluster = Cluster(kube, server.url)
    await cluster.create("old")
    yield server, cluster
    await kube.close()
    await server.stop()


@pytest.fixture
async def playground(tmp_path: Path) -> AsyncIterator[tuple[ApiServer, Cluster]]:
    async with playing(tmp_path) as both:
        yield both


@pytest.fixture(params=["playground", pytest.param("real", marks=pytest.mark.e2e)])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    if request.param == "playground":
        async with playing(tmp_path) as (_, played):
            yield played
        return
    plane: RealControlPlane = request.getfixturevalue("control_plane")
    kube = await KubeClient.connect(kubeconfig=plane.kubeconfig())
    yield Cluster(kube, plane.url, plane.token, plane.client_ssl())
    await kube.close()


async def test_a_binding_writes_node_and_annotation_for_that_very_pod_once(cluster: Cluster) -> None:
    pod = await cluster.create("bound")
    with pytest.raises(KubeError) as caught:
        await cluster.bind("bound", PodUid("another"))
    assert (caught.value.status, caught.value.kube_reason, caught.value.outcome_unknown) == (409, "Conflict", False)
    await cluster.bind("bound", pod.uid)
    found = await cluster.kube.get(PODS, "bound", namespace="default")
    assert (found.spec.node_name, found.allocation) == ("node-1", "plan")
    with pytest.raises(KubeError) as caught:
        await cluster.bind("bound", pod.uid)
    assert caught.value.status == 409
    with pytest.raises(KubeError) as caught:
        await cluster.bind("absent", pod.uid)
    assert caught.value.status == 404


async def test_apply_gives_up_what_it_leaves_out(cluster: Cluster) -> None:
    await cluster.create("applied", annotations={"a": "1", "b": "2"})
    pod = await cluster.create("applied", annotations={"b": "3"})
    assert pod.annotations == {"b": "3"}


async def test_an_eviction_begins_the_deletion_of_that_very_pod(cluster: Cluster) -> None:
    pod = await cluster.run_pod("evicted", app="evicted")
    with pytest.raises(KubeError) as caught:
        await cluster.kube.evict(namespace="default", name="evicted", uid=PodUid("another"), timeout_seconds=5)
    assert (caught.value.status, caught.value.kube_reason) == (409, "Conflict")
    await cluster.evict(pod)
    found = await cluster.kube.get(PODS, "evicted", namespace="default")
    assert found.metadata.deletion_timestamp is not None
    with pytest.raises(KubeError) as caught:
        await cluster.kube.evict(namespace="default", name="absent", uid=pod.uid, timeout_seconds=5)
    assert caught.value.status == 404


async def test_an_eviction_respects_the_disruption_budget(cluster: Cluster) -> None:
    one, two = await cluster.run_pod("guarded-1", app="guarded"), await cluster.run_pod("guarded-2", app="guarded")
    await cluster.budget("guarded", app="guarded", allowed=1)
    await cluster.evict(one)
    with pytest.raises(KubeError, match="violate the pod's disruption budget") as caught:
        await cluster.evict(two)
    assert (caught.value.status, caught.value.kube_reason) == (429, "TooManyRequests")
    found = await cluster.kube.get(PODS, "guarded-2", namespace="default")
    assert found.metadata.deletion_timestamp is None


async def test_a_pod_with_two_budgets_cannot_be_evicted(cluster: Cluster) -> None:
    pod = await cluster.run_pod("twice", app="twice")
    for name in ("twice-1", "twice-2"):
        await cluster.budget(name, app="twice", allowed=1)
    with pytest.raises(KubeError, match="more than one PodDisruptionBudget") as caught:
        await cluster.evict(pod)
    assert caught.value.status == 500


async def test_an_event_said_again_is_one_object_that_counts(cluster: Cluster) -> None:
    pod = await cluster.create("watched")
    first = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
    for count in (1, 2):
        event = PodEvent(
            namespace="default",
            pod="watched",
            uid=pod.uid,
            reason="Tested",
            message=f"said {count} times",
            count=count,
            first=first,
            last=first + timedelta(minutes=count),
        )
        node = NodeName("node-1")
        await write_event(cluster.kube, event, component="test", instance="a", node=node, timeout_seconds=5)
    # As kubectl describe asks.
    selector = f"involvedObject.kind%3DPod,involvedObject.name%3Dwatched,involvedObject.uid%3D{pod.uid}"
    listed = await cluster.send("GET", f"/api/v1/namespaces/default/events?fieldSelector={selector}", None)
    assert [(one["reason"], one["message"], one["count"], one["type"]) for one in listed["items"]] == [
        ("Tested", "said 2 times", 2, "Warning")
    ]
    found = listed["items"][0]
    assert (found["firstTimestamp"], found["lastTimestamp"]) == ("2026-11-21T10:00:00Z", "2026-11-21T10:02:00Z")
    assert found["source"] == {"component": "test", "host": "node-1"}


def test_an_event_has_a_name_that_the_api_server_takes() -> None:
    moment = datetime(2026, 11, 21, tzinfo=UTC)

    def name(pod: str, uid: str, reason: str) -> str:
        return PodEvent("default", pod, PodUid(uid), reason, "", count=1, first=moment, last=moment).name

    names = {name("a", "1", "X"), name("a", "2", "X"), name("a", "1", "Y"), name("b", "1", "X")}
    assert len(names) == 4
    longest = name("a" * 235 + "-" + "b" * 17, "1", "X")
    assert len(longest) <= 253
    assert "-." not in longest


async def test_pages_are_one_consistent_list(cluster: Cluster) -> None:
    names = [f"page-{i}" for i in range(5)]
    for name in names:
        await cluster.create(name)
    listing = await cluster.kube.list(PODS, page_size=2)
    assert {pod.metadata.name for pod in listing.items} >= set(names)
    assert int(listing.resource_version) >= max(int(pod.metadata.resource_version) for pod in listing.items)


async def test_a_watch_ends_at_its_time(cluster: Cluster) -> None:
    listing = await cluster.kube.list(PODS)
    events = cluster.kube.watch(PODS, resource_version=listing.resource_version, timeout_seconds=1)
    assert [event async for event in events if event.kind is not EventKind.BOOKMARK] == []


async def test_the_reflector_follows(cluster: Cluster) -> None:
    first = await cluster.create("first")
    follower = Follower(cluster.kube)
    async with running(follower):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await follower.reflector.synced.wait()
        assert first.uid in follower.reflector.objects
        follower.take_told()
        second = await cluster.create("second")
        await follower.reaches(second.metadata.resource_version)
        await cluster.bind("second", second.uid)
        bound = await cluster.kube.get(PODS, "second", namespace="default")
        await follower.reaches(bound.metadata.resource_version)
        await cluster.delete("first")
        while not follower.told or follower.told[-1][0] != "DELETED":
            await follower.advances()
    kinds = [(kind, uid) for kind, uid, _ in follower.told]
    assert kinds[:2] == [("ADDED", second.uid), ("MODIFIED", second.uid)]
    assert kinds[-1] == ("DELETED", first.uid)  # perhaps after a MODIFIED that sets its deletionTimestamp
    assert int(follower.told[-1][2]) > int(bound.metadata.resource_version)


@pytest.mark.e2e
@pytest.mark.usefixtures("control_plane")  # skips where there is none
async def test_a_real_watch_from_before_a_compaction_is_410(tmp_path: Path) -> None:
    plane = RealControlPlane(tmp_path, apiserver_flags=["--watch-cache=false"])  # the cache remembers 75 s at least
    await asyncio.to_thread(plane.start)
    try:
        kube = await KubeClient.connect(kubeconfig=plane.kubeconfig())
        revision = (await Cluster(kube, plane.url).create("newest")).metadata.resource_version
        compaction = urllib.request.Request(
            f"{plane.etcd_url}/v3/kv/compaction", data=json.dumps({"revision": revision}).encode()
        )
        await asyncio.to_thread(lambda: urllib.request.urlopen(compaction).close())
        with pytest.raises(KubeError) as caught:
            await anext(kube.watch(PODS, resource_version="1", timeout_seconds=5))
        assert (caught.value.status, caught.value.kube_reason) == (410, "Expired")
        await kube.close()
    finally:
        await asyncio.to_thread(plane.stop)


async def test_a_cut_watch_resumes(playground: tuple[ApiServer, Cluster]) -> None:
    server, cluster = playground
    async with running(Follower(cluster.kube)) as follower:
        one = await cluster.create("one")
        await follower.reaches(one.metadata.resource_version)
        server.cut_watches()
        two = await cluster.create("two")
        await follower.reaches(two.metadata.resource_version)
    assert [kind for kind, _, _ in follower.told] == ["ADDED"] * 3


async def test_after_a_cut_and_a_compaction_a_list_tells_what_was_missed(
    playground: tuple[ApiServer, Cluster],
) -> None:
    server, cluster = playground
    async with running(Follower(cluster.kube)) as follower:
        one = await cluster.create("one")
        await follower.reaches(one.metadata.resource_version)
        old = await cluster.kube.get(PODS, "old", namespace="default")
        follower.take_told()
        # Nothing of this waits: the loop's next turn finds the watch cut, the deletion done and its event forgotten.
        server.cut_watches()
        await server.cluster.delete("pods", "old", namespace="default", grace_seconds=0)
        server.compact()
        two = await cluster.create("two")
        await follower.reaches(two.metadata.resource_version)
    assert [(kind, uid) for kind, uid, _ in follower.told] == [("DELETED", old.uid), ("ADDED", two.uid)]


async def test_bookmarks_bring_a_quiet_watch_forward(playground: tuple[ApiServer, Cluster]) -> None:
    server, cluster = playground
    async with running(Follower(cluster.kube)) as follower:
        await follower.advances()
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}
        created = await server.cluster.create("namespaces", namespace)
        await follower.reaches(created["metadata"]["resourceVersion"])
    assert [kind for kind, _, _ in follower.told] == ["ADDED"]


async def test_bindings_that_go_wrong(playground: tuple[ApiServer, Cluster]) -> None:
    server, cluster = playground
    pod = await cluster.create("bound")
    server.bindings.fail()
    with pytest.raises(KubeError) as caught:
        await cluster.bind("bound", pod.uid)
    assert (caught.value.status, caught.value.outcome_unknown) == (500, True)
    server.bindings.hang()
    with pytest.raises(KubeError) as caught:
        await cluster.bind("bound", pod.uid, timeout_seconds=0.1)
    assert (caught.value.status, caught.value.outcome_unknown) == (0, True)
    server.bindings.lose_answer()
    with pytest.raises(KubeError) as caught:
        await cluster.bind("bound", pod.uid)
    assert (caught.value.status, caught.value.outcome_unknown) == (0, True)
    assert (await cluster.kube.get(PODS, "bound", namespace="default")).spec.node_name == "node-1"
