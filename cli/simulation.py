"""The playground cluster with the real services in it: what `fracgpu demo` runs, and the end-to-end tests.

Webhook, extender, Redis and a device plugin per node are processes of their own, exactly as a cluster would run
them; API server, scheduler and kubelets are the playground's, in this process. Nothing of it listens beyond loopback.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from cli.applying import Applying
from cli.elsewhere import Elsewhere
from cli.processes import ServiceProcess
from cli.report import Report, make_report, why_not_running
from cli.services import (
    CERTIFICATE,
    KEY,
    ask,
    check_redis,
    free_port,
    make_certificates,
    pod_webhook,
    told_by_extender,
    workload_webhook,
)
from cli.simulatednodes import DEFAULT_NODES, SimulatedNode
from extender.ledger.embedded import EmbeddedRedis
from fracgpu.errors import UnavailableError
from fracgpu.gpunodes import GpuNode
from fracgpu.names import RESOURCE_MEMORY, NodeName
from fracgpu.pods import Pod
from playground.api.apiserver import ApiServer
from playground.cluster import JsonObject
from playground.controllers.manager import Controllers
from playground.node.kubelet import Kubelet
from playground.node.nvml import write_state
from playground.recording import EventRecorder
from playground.scheduling.scheduler import Scheduler

__all__ = ["DEFAULT_NODES", "SimulatedNode", "Simulation"]

_BINDING_TIMEOUT_SECONDS: Final = 1.0  # a loopback API server; also how long a rebuild of the ledger waits, twice
_JOIN_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.05


class Simulation:
    """One cluster, between `start` and `stop`.

    Args:
        directory: an empty folder of a short path (sockets live in it); logs stay there.
        nodes: the nodes to simulate.
        redis_url: a Redis to use; None starts an embedded one.
        api: the API server to start; None for one on a free port of loopback.
        elsewhere: webhook and extender (with its Redis) that somebody else runs; None starts all of them.
        serves_kubectl: for people: workloads get their pods, what happens is told in events, and a namespace has to
            exist before something is created in it (the latter not in an `api` of the caller's).
        plugin_options: further flags for every device plugin.
        on_step: told what is being started.

    Attributes:
        api: the API server.
        kubelets: node name -> its kubelet.
        redis: the embedded Redis, if it is ours.
        scheduler: after `start`, the scheduler.
        webhook, extender, plugins: the service processes.
    """

    def __init__(
        self,
        directory: Path,
        *,
        nodes: Sequence[SimulatedNode] = DEFAULT_NODES,
        redis_url: str | None = None,
        api: ApiServer | None = None,
        elsewhere: Elsewhere | None = None,
        serves_kubectl: bool = False,
        plugin_options: Sequence[str] = (),
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._directory = directory
        self._nodes = nodes
        self._redis_url = redis_url
        self._elsewhere = elsewhere
        self._on_step = on_step
        self._stack = contextlib.AsyncExitStack()
        self._http: aiohttp.ClientSession | None = None
        self.extender_url = ""
        self.pages_url = ""
        self.api = api or ApiServer(checks_namespaces=serves_kubectl)
        self._controllers = Controllers(self.api.cluster) if serves_kubectl else None
        self._applying = Applying(self.api.cluster, serves_kubectl=serves_kubectl)
        self.redis: EmbeddedRedis | None = None if redis_url or elsewhere else EmbeddedRedis(directory / "redis")
        self.kubelets: dict[NodeName, Kubelet] = {}
        for number, node in enumerate(nodes):
            root = directory / f"n{number}"
            (root / "cgroup").mkdir(parents=True)
            write_state(root / "gpus.json", node.gpus())
            self.kubelets[NodeName(node.name)] = Kubelet(
                cluster=self.api.cluster,
                node_name=NodeName(node.name),
                root=root,
                cgroup_root=root / "cgroup",
                nvml_state=root / "gpus.json",
                seed=number,
                tells_events=serves_kubectl,
            )
        self.scheduler: Scheduler | None = None
        # Kept, so that the scheduler, and people, find an extender that was started again.
        self._extender_port, self._pages_port = free_port(), free_port()
        self.webhook = self._service("webhook", "-m", "webhook", *self._webhook_options())
        self.extender = self._service("extender", "-m", "extender", *self._extender_options())
        self.plugins = {
            NodeName(node.name): self._service(
                f"plugin-{node.name}", *self._plugin_command(node.name, directory / f"n{number}"), *plugin_options
            )
            for number, node in enumerate(nodes)
        }

    async def start(self) -> None:
        """Start everything; returns when a pod can be placed.

        Raises:
            UnavailableError: a part did not come up; with the end of its log.
            SettingError: the given Redis cannot be used.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End everything."""
        await self._stack.aclose()

    async def apply(self, manifests: Iterable[JsonObject]) -> None:
        """Create what manifests say, as `kubectl apply` would; those that are refused are in the report."""
        await self._applying.apply(manifests)

    def refuse(self, name: str, message: str) -> None:
        """Note what was refused before it was a pod."""
        self._applying.refused.append((name, message))

    async def settled(self, *, timeout_seconds: float) -> bool:
        """Wait until every pod runs, has ended, or waits for room; False where that took too long."""
        if self.scheduler is None:
            raise UnavailableError("the simulation was not started")
        try:
            async with asyncio.timeout(timeout_seconds):
                while True:
                    before = await self._version()
                    if self._controllers is not None:
                        await self._controllers.settled()
                    await self.scheduler.settled()
                    if await self._wait_for_bound_pods():
                        continue
                    if self._controllers is None or before == await self._version():
                        return True
        except TimeoutError:
            return False

    async def report(self) -> Report:
        """Who holds what, who waits and why, who was refused: now."""
        nodes, _ = await self.api.cluster.list("gpunodes")
        pods, _ = await self.api.cluster.list("pods")
        held = {name: kubelet.held_device_ids() for name, kubelet in self.kubelets.items()}
        waiting = {}
        assert self._http is not None  # noqa: S101 (made first of all at the start)
        told = await told_by_extender(self._http, pages_url=self.pages_url)
        pod_names = self._applying.pod_names
        for pod in msgspec.convert(pods, list[Pod]):
            pod_names[pod.uid] = pod.key
            if reason := why_not_running(pod, told.get(pod.uid), nodes=self.kubelets):
                waiting[pod.key] = reason
        return make_report(
            nodes=msgspec.convert(nodes, list[GpuNode]),
            held=held,
            pod_names=pod_names,
            waiting=waiting,
            refused=[*self._applying.refused, *(self._controllers.refused.values() if self._controllers else ())],
        )

    async def _version(self) -> str:
        """What changes with everything that happens in the cluster."""
        _, version = await self.api.cluster.list("namespaces")
        return version

    async def _start(self) -> None:
        self._on_step("API server and kubelets")
        self._http = await self._stack.enter_async_context(aiohttp.ClientSession())
        await self.api.start()
        self._stack.push_async_callback(self.api.stop)
        (self._directory / "kubeconfig").write_text(self.api.kubeconfig())
        for kubelet in self.kubelets.values():
            self._stack.push_async_callback(kubelet.runtime.close)
            self._stack.push_async_callback(kubelet.stop)  # before it starts: it may be interrupted half way
            await kubelet.start()
        self._on_step("Redis")
        if self.redis is not None:
            await self.redis.start()
            self._stack.push_async_callback(self.redis.stop)
        elif self._redis_url is not None:
            await check_redis(self._redis_url)
        self._on_step("webhook, extender and device plugins")
        elsewhere = self._elsewhere
        ca_pem = elsewhere.ca_pem if elsewhere else make_certificates(self._directory)
        for process in [*([] if elsewhere else [self.extender, self.webhook]), *self.plugins.values()]:
            await process.start()
            self._stack.push_async_callback(process.stop)
        webhook_url = await (elsewhere.webhook if elsewhere else self.webhook).ready()
        webhooks = [pod_webhook(webhook_url, ca_pem=ca_pem)]
        if self._controllers is not None:
            webhooks.append(workload_webhook(webhook_url, ca_pem=ca_pem))
        self.api.set_webhooks(webhooks)
        self.extender_url = await (elsewhere.extender if elsewhere else self.extender).ready()
        self.pages_url = await elsewhere.pages.ready() if elsewhere else self.extender.urls["pages_url"]
        for plugin in self.plugins.values():
            await plugin.ready()
        self._on_step("nodes joining")
        await self.joined()
        self.scheduler = Scheduler(
            self.api.cluster,
            extender_url=self.extender_url,
            initial_backoff=0.2,
            seed=0,
            events=EventRecorder(self.api.cluster, component="default-scheduler") if self._controllers else None,
        )
        await self.scheduler.start()
        self._stack.push_async_callback(self.scheduler.stop)
        if self._controllers is not None:
            await self._controllers.start()
            self._stack.push_async_callback(self._controllers.stop)

    async def joined(self) -> None:
        """Wait until the extender can decide and every node offers its GPUs.

        Raises:
            UnavailableError: that took too long; says what is missing.
        """
        missing = ""
        try:
            async with asyncio.timeout(_JOIN_SECONDS):
                while missing := await self._missing():  # noqa: ASYNC110 (its readiness is only to be asked for)
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as exc:
            raise UnavailableError(f"after {_JOIN_SECONDS:.0f} s {missing}; logs are in {self._directory}") from exc

    async def _missing(self) -> str:
        gpu_nodes, _ = await self.api.cluster.list("gpunodes")
        announced = {found["metadata"]["name"] for found in gpu_nodes}
        nodes, _ = await self.api.cluster.list("nodes")
        offering = {n["metadata"]["name"] for n in nodes if n["status"].get("allocatable", {}).get(RESOURCE_MEMORY)}
        lacking = [node.name for node in self._nodes if node.name not in announced & offering]
        if lacking:
            return f"{', '.join(lacking)} did not offer GPUs"
        assert self._http is not None  # noqa: S101 (made first of all at the start)
        is_ready = await ask(self._http, f"{self.extender_url}/readyz") is not None
        return "" if is_ready else "the extender was not ready"

    async def _wait_for_bound_pods(self) -> bool:
        """Wait until every bound pod runs or ended; whether there was any to wait for."""
        waited = False
        pods, version = await self.api.cluster.list("pods")
        starting = {pod["metadata"]["uid"] for pod in pods if self._is_starting(pod)}
        if not starting:
            return False
        async for event in self.api.cluster.watch("pods", resource_version=version):
            waited = True
            uid = event.object["metadata"]["uid"]
            if event.type == "DELETED" or not self._is_starting(event.object):
                starting.discard(uid)
            else:
                starting.add(uid)
            if not starting:
                break
        return waited

    def _is_starting(self, pod: JsonObject) -> bool:
        is_ours = pod["spec"].get("nodeName") in self.kubelets
        return is_ours and pod.get("status", {}).get("phase", "Pending") == "Pending"

    def _service(self, name: str, *arguments: str) -> ServiceProcess:
        return ServiceProcess(name, arguments=list(arguments), directory=self._directory)

    def _webhook_options(self) -> list[str]:
        certificate, key = self._directory / CERTIFICATE, self._directory / KEY
        return ["--port", "0", "--metrics-port", "0", "--tls-cert", str(certificate), "--tls-key", str(key)]

    def _extender_options(self) -> list[str]:
        return [
            *("--port", str(self._extender_port), "--pages-port", str(self._pages_port)),
            *("--kubeconfig", str(self._directory / "kubeconfig")),
            *("--redis-url", self._redis_url or (self.redis.url if self.redis else "")),
            *("--binding-timeout-seconds", str(_BINDING_TIMEOUT_SECONDS)),
            # The default depends on what was asked before; by this one everybody sees the same.
            *("--policy", "binpack"),
        ]

    def _plugin_command(self, node: str, root: Path) -> list[str]:
        return [
            *("-m", "playground.node.plugin_launcher", str(root / "gpus.json"), "--"),
            *("--node-name", node, "--kubeconfig", str(self._directory / "kubeconfig")),
            *("--kubelet-socket", str(root / "device-plugins" / "kubelet.sock")),
            *("--port", "0"),
            *("--pod-resources-socket", str(root / "pod-resources" / "kubelet.sock")),
            *("--cgroup-root", str(root / "cgroup")),
        ]
