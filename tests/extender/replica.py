"""One extender replica as `extender.__main__` wires it, inside the test's own process, and a client for its verbs."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from extender.exposition.page import MetricsPage
from extender.faces import Faces
from extender.index import Index
from extender.ledger.connecting import connect
from extender.ledger.ledger import Ledger
from extender.metrics import Metrics
from extender.pages.feed import Feed
from extender.placement.policies import Policies
from extender.reconciler import Reconciler
from extender.settings import ExtenderSettings
from extender.verbs import Extender
from fracgpu.gpunodes import GpuNode
from fracgpu.kube.client import KubeClient
from playground.api.apiserver import ApiServer

JsonObject = dict[str, Any]
BINDING_TIMEOUT_SECONDS = 0.5
HOLD_SECONDS = 60.0  # longer than any test: a hold goes by what happens to it, not by the clock
SETTINGS = ExtenderSettings.load(["--port=0", "--pages-port=0"])


class Replica:
    def __init__(self, *, index: Index, ledger: Ledger, reconciler: Reconciler, http: aiohttp.ClientSession) -> None:
        self.index = index
        self.ledger = ledger
        self.reconciler = reconciler
        self.extender: Extender
        self.url = ""
        self.pages_url = ""
        self._http = http

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, *, redis_url: str, kubeconfig: Path) -> AsyncIterator["Replica"]:
        async with contextlib.AsyncExitStack() as stack:
            index = Index(policies=Policies("binpack"))  # by which a test can tell beforehand who goes where
            metrics = Metrics()
            ledger = Ledger(connect(redis_url), reader=index, observer=metrics.ledger_call)
            stack.push_async_callback(ledger.close)
            kube = await KubeClient.connect(kubeconfig=kubeconfig, observer=metrics.kube)
            stack.push_async_callback(kube.close)
            reconciler = Reconciler(
                kube=kube,
                index=index,
                ledger=ledger,
                metrics=metrics,
                binding_timeout_seconds=BINDING_TIMEOUT_SECONDS,
            )
            extender = Extender(
                index=index, ledger=ledger, reconciler=reconciler, metrics=metrics, hold_seconds=HOLD_SECONDS
            )
            feed = Feed(index, pods=lambda: reconciler.pods)
            page = MetricsPage(metrics=metrics, index=index, reconciler=reconciler)
            faces = await stack.enter_async_context(Faces(SETTINGS, extender, feed=feed, metrics=page))
            for following in (reconciler.run(), feed.run()):
                stack.callback(asyncio.create_task(following).cancel)
            http = await stack.enter_async_context(aiohttp.ClientSession())
            replica = cls(index=index, ledger=ledger, reconciler=reconciler, http=http)
            replica.extender = extender
            replica.url, replica.pages_url = faces.url, faces.pages_url
            yield replica

    async def post(self, verb: str, body: object) -> Any:
        """POST a verb as kube-scheduler does; the answer has to be HTTP 200 with JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self._http.post(f"{self.url}/{verb}", data=io.BytesIO(data)) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def get(self, path: str) -> tuple[int, str]:
        """GET a path of its pages."""
        async with self._http.get(f"{self.pages_url}{path}") as answer:
            return answer.status, await answer.text()

    async def bind(self, pod: JsonObject, node: str) -> str:
        """Bind a pod; returns the error, empty for success."""
        metadata = pod["metadata"]
        args = {"PodName": metadata["name"], "PodNamespace": metadata["namespace"], "PodUID": metadata["uid"]}
        answer = await self.post("bind", args | {"Node": node})
        return str(answer["Error"])

    async def knows(self, *names: str) -> None:
        """Wait until it has seen the GPUNodes of these nodes."""
        async with asyncio.timeout(10):
            while not all(name in self.index.nodes for name in names):
                await self.get("/livez")


async def announce(api: ApiServer, node: GpuNode) -> None:
    """Create a node's GPUNode, or write its status anew, as its plugin would."""
    body = msgspec.to_builtins(node)
    body["metadata"] = {"name": node.node}
    existing, _ = await api.cluster.list("gpunodes", field_selector=f"metadata.name={node.node}")
    if not existing:
        await api.cluster.create("gpunodes", body)
    await api.cluster.patch("gpunodes", node.node, {"status": body["status"]}, subresource="status")


async def create_pod(api: ApiServer, name: str, *, units: int, **more: Any) -> JsonObject:
    limits = {"limits": {"fracgpu.io/memory": str(units)}}
    container = {"name": "main", "image": "example", "resources": limits}
    return await api.cluster.create(
        "pods",
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "team-a"} | more,
            "spec": {"containers": [container]},
        },
    )
