"""Pods per second through a real kube-scheduler: without an extender, with an echoing one, and with ours.

One real control plane of paper nodes; kube-scheduler runs with deploy/'s configuration and starts when all pods wait.
Each case begins without pods, and with a kube-scheduler, an extender and a Redis of its own. Where the binaries of
Kubernetes are missing, the reason is the result.
"""

import asyncio
import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import msgspec
import yaml

from bench.cluster import GPUS, NAMESPACE, SEATS, SEED, UNITS, Fill, Node, make_cluster, usual_mix
from bench.lab import Extender, Measured, start_extender
from bench.latency import waiting_pods
from bench.objects import JsonObject, gpu_node
from bench.store import GPUNODES, PODS
from extender.ledger.embedded import EmbeddedRedis
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA
from fracgpu.process.parent import ending_with_us
from tests.realcluster import SCHEDULER, RealControlPlane, assets_dir, missing_binaries

_DEPLOY: Final = Path(__file__).parents[1] / "deploy"
_CASES: Final = ("alone", *("echo", "fracgpu") * 3)  # what is compared takes turns
_QPS: Final = 5000  # of kube-scheduler at the API server: never the limit
_CONCURRENCY: Final = 16
_PATIENCE_SECONDS: Final = 120.0
_T = TypeVar("_T")


async def measure_scheduler(*, nodes: int, pods: int) -> dict[str, Any]:
    """Measure all cases; {"skipped": reason} where that cannot be done."""
    if missing := missing_binaries("etcd", "kube-apiserver", "kube-scheduler"):
        return {"skipped": missing}
    runs: dict[str, list[float]] = {}
    async with _Plane.open(nodes) as plane:
        for number, case in enumerate(_CASES):
            async with plane.extender(case, number) as url:
                runs.setdefault(case, []).append(await plane.pods_per_second(pods, extender_url=url))
    rates = {case: round(statistics.median(found), 1) for case, found in runs.items()}
    return {
        **rates,
        "ratio": round(rates["fracgpu"] / rates["echo"], 2),
        "runs": {case: [round(rate, 1) for rate in found] for case, found in runs.items()},
    }


class _Plane:
    """A real control plane with paper nodes; made by `open`."""

    def __init__(self, plane: RealControlPlane, http: aiohttp.ClientSession) -> None:
        self._plane = plane
        self._http = http
        self._runs = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, nodes: int) -> AsyncIterator["_Plane"]:
        """Start etcd and kube-apiserver, and create the nodes."""
        async with contextlib.AsyncExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fgb")))
            control = RealControlPlane(
                directory,
                # No controller is there to take off the taint that new nodes get.
                apiserver_flags=("--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",),
            )
            stack.callback(control.stop)
            await asyncio.to_thread(control.start)
            (crd,) = yaml.safe_load_all(
                (_DEPLOY / "helm" / "fracgpu" / "files" / "crds" / "gpunodes.fracgpu.io.yaml").read_text()
            )
            await asyncio.to_thread(control.define, crd)
            http = await stack.enter_async_context(
                aiohttp.ClientSession(
                    control.url,
                    headers={"Authorization": f"Bearer {control.token}"},
                    connector=aiohttp.TCPConnector(ssl=control.client_ssl()),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
                )
            )
            plane = cls(control, http)
            await plane._ask("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
            await plane._each(make_cluster(nodes, fill=Fill.USUAL), plane._create_node)
            yield plane

    @contextlib.asynccontextmanager
    async def extender(self, case: str, number: int) -> AsyncIterator[str | None]:
        """Start what a case needs, and yield its URL."""
        directory = self._plane.directory / f"{case}-{number}"
        directory.mkdir()
        kubeconfig = ("--kubeconfig", str(self._plane.kubeconfig()))
        async with contextlib.AsyncExitStack() as stack:
            if case == "alone":
                yield None
            elif case == "echo":
                floor = Measured("floor", arguments=["-m", "bench.floor", *kubeconfig], directory=directory)
                await floor.start()
                stack.push_async_callback(floor.stop)
                yield await floor.ready()
            else:
                redis = EmbeddedRedis(directory / "redis")
                await redis.start()
                stack.push_async_callback(redis.stop)
                running: list[Extender] = []
                flags = (*kubeconfig, "--redis-url", redis.url)
                extender = await start_extender(running, directory=directory, flags=flags)
                stack.push_async_callback(extender.process.stop)
                yield extender.url

    async def pods_per_second(self, count: int, *, extender_url: str | None) -> float:
        """Let kube-scheduler bind this many pods that wait; from the first that is bound to the last."""
        self._runs += 1
        rng = random.Random(f"{SEED} scheduler")  # noqa: S311 (not a secret)
        await self._each(waiting_pods(usual_mix(count, rng=rng), label=f"run {self._runs}"), self._create_pod)
        listed = await self._ask("GET", f"{PODS}?limit=1")
        scheduler = await self._start_scheduler(extender_url)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                seconds = await self._until_bound(count, after=listed["metadata"]["resourceVersion"])
        finally:
            scheduler.terminate()
            await scheduler.wait()
        options = {"gracePeriodSeconds": 0}
        await self._ask("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods", options)
        return (count - 1) / seconds

    async def _until_bound(self, count: int, *, after: str) -> float:
        """Watch until so many pods are bound; returns the seconds from the first to the last."""
        query = {"watch": "true", "resourceVersion": after, "fieldSelector": "spec.nodeName!="}
        times: dict[str, float] = {}  # pod -> when it was first seen to be bound
        async with self._http.get(PODS, params=query, read_bufsize=2**21) as response:
            async for line in response.content:
                event = _event_decoder.decode(line)
                times.setdefault(event.object.metadata.name, time.monotonic())
                if len(times) == count:
                    break
        return max(times.values()) - min(times.values())

    async def _start_scheduler(self, extender_url: str | None) -> asyncio.subprocess.Process:
        settings = yaml.safe_load((_DEPLOY / "kustomize" / "scheduler" / "kube-scheduler-config.yaml").read_text())
        settings["clientConnection"] = {
            "kubeconfig": str(self._plane.kubeconfig(SCHEDULER)),
            "qps": _QPS,
            "burst": _QPS,
        }
        settings["leaderElection"] = {"leaderElect": False}
        if extender_url is None:
            del settings["extenders"]
        else:
            (extender,) = settings["extenders"]
            extender["urlPrefix"] = extender_url
            del extender["enableHTTPS"], extender["tlsConfig"]  # over loopback; what TLS costs is the same for all
        config = self._plane.directory / f"scheduler-{self._runs}.yaml"
        config.write_text(yaml.safe_dump(settings))
        with config.with_suffix(".log").open("wb") as log:
            return await asyncio.create_subprocess_exec(
                *ending_with_us(str(assets_dir() / "kube-scheduler"), f"--config={config}", "--secure-port=0"),
                stdout=log,
                stderr=log,
            )

    async def _create_node(self, node: Node) -> None:
        amounts = {
            "cpu": "192",
            "memory": "2Ti",
            "pods": "250",
            RESOURCE_MEMORY: str(GPUS * UNITS),
            RESOURCE_REPLICA: str(GPUS * SEATS),
        }
        labels = {"kubernetes.io/hostname": node.name, "kubernetes.io/arch": "amd64"}
        head = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name, "labels": labels}}
        await self._ask("POST", "/api/v1/nodes", {**head, "status": {"capacity": amounts, "allocatable": amounts}})
        found = msgspec.json.decode(gpu_node(node, resource_version=0, observed_pods=1))
        found["metadata"] = {"name": node.name}
        found["status"] = {"observedPods": "1", "grants": []}
        created = await self._ask("POST", GPUNODES, found)
        await self._ask("PUT", f"{GPUNODES}/{node.name}/status", {**created, "status": found["status"]})

    async def _create_pod(self, pod: JsonObject) -> None:
        metadata = {key: value for key, value in pod["metadata"].items() if key not in ("uid", "resourceVersion")}
        # No volume claims: nobody here would provide them.
        models = {"name": "models", "emptyDir": {}}
        spec = {**pod["spec"], "volumes": [models, *pod["spec"]["volumes"][1:]]}
        created = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        await self._ask("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", created)

    async def _each(self, things: Iterable[_T], create: Callable[[_T], Awaitable[None]]) -> None:
        work = iter(things)

        async def some() -> None:
            for thing in work:
                await create(thing)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(_CONCURRENCY):
                tasks.create_task(some())

    async def _ask(self, method: str, path: str, body: object = None) -> Any:
        async with self._http.request(method, path, json=body) as response:
            answer = await response.read()
            if response.status >= 300:
                raise RuntimeError(f"{method} {path}: {response.status} {answer[:500].decode(errors='replace')}")
            return msgspec.json.decode(answer)


class _Meta(msgspec.Struct):
    name: str


class _Object(msgspec.Struct):
    metadata: _Meta


class _Event(msgspec.Struct):
    object: _Object


_event_decoder = msgspec.json.Decoder(_Event)
