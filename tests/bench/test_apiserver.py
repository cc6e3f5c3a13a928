"""The stand-in API server answers the extender's client as a real one would, where the benchmark needs it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from bench.client import Lane
from bench.cluster import NAMESPACE, Shape
from bench.lab import Lab
from bench.latency import waiting_pods
from fracgpu.kube.client import EventKind, KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.kube.resources import GPUNODES, PODS
from fracgpu.names import NodeName, PodUid


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with Lab.open(nodes=3) as lab:
        yield lab


@pytest.fixture
async def kube(lab: Lab) -> AsyncIterator[KubeClient]:
    client = await KubeClient.connect(kubeconfig=lab.kubeconfig)
    yield client
    await client.close()


async def test_lists_are_the_same_in_pages_of_any_size(lab: Lab, kube: KubeClient) -> None:
    whole = await kube.list(PODS)
    paged = await kube.list(PODS, page_size=5)
    assert [pod.uid for pod in paged.items] == [pod.uid for node in lab.nodes for pod in node.pods]
    assert whole == paged
    assert [node.node for node in (await kube.list(GPUNODES)).items] == lab.names


async def test_a_pod_is_bound_once_and_the_watch_tells(lab: Lab, kube: KubeClient) -> None:
    (pod,) = waiting_pods([Shape(units=4)], label="test")
    before = await kube.list(PODS)
    await lab.create_pods([pod])
    name, uid = pod["metadata"]["name"], PodUid(pod["metadata"]["uid"])

    async def bind(uid: PodUid) -> None:
        await kube.bind(
            namespace=NAMESPACE, name=name, uid=uid, node=NodeName("n1"), annotations={"a": "b"}, timeout_seconds=5
        )

    with pytest.raises(KubeError, match="precondition"):
        await bind(PodUid("another"))
    await bind(uid)
    with pytest.raises(KubeError, match="already assigned"):
        await bind(uid)

    seen = []
    watch = kube.watch(PODS, resource_version=before.resource_version, timeout_seconds=1)
    async with asyncio.timeout(10), aclosing(watch):
        async for event in watch:
            seen.append(event)
    assert [event.kind for event in seen] == [EventKind.ADDED, EventKind.MODIFIED]
    bound = seen[-1].object
    assert bound == await kube.get(PODS, name, namespace=NAMESPACE)
    assert bound is not None
    assert (bound.spec.node_name, bound.annotations["a"]) == ("n1", "b")
    selector = f"metadata.name={name},metadata.namespace={NAMESPACE}"
    assert [found.uid for found in (await kube.list(PODS, field_selector=selector)).items] == [uid]


async def test_an_open_watch_hears_of_a_change(lab: Lab, kube: KubeClient) -> None:
    listed = await kube.list(PODS)
    (pod,) = waiting_pods([Shape(seats=1)], label="test")
    opened = asyncio.Event()

    async def create() -> None:
        await opened.wait()
        await lab.create_pods([pod])

    watch = kube.watch(PODS, resource_version=listed.resource_version, timeout_seconds=30, on_open=opened.set)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks, aclosing(watch):
        tasks.create_task(create())
        event = await anext(watch)
    assert (event.kind, event.uid) == (EventKind.ADDED, pod["metadata"]["uid"])


async def test_what_it_does_not_know_is_an_error(lab: Lab, kube: KubeClient) -> None:
    with pytest.raises(KubeError) as caught:
        await kube.list(PODS, field_selector="spec.nodeName=n1")
    assert caught.value.status == 400
    lane = await Lane.open(lab.api_url)
    with pytest.raises(Exception, match="404"):
        await lane.post("/api/v1/namespaces/x/events", json.dumps({}).encode())
    lane.close()
