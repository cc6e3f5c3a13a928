"""The playground cluster with the real services in it: what `fracgpu demo` runs, and the end-to-end tests.

Webhook, extender, Redis and a device plugin per node are processes of their own, exactly as a cluster would run
them; API server, scheduler and kubelets are the playground's, in this process. Nothing of it listens beyond loopback.
"""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import trustme
from redis.exceptions import RedisError

from cli.elsewhere import Elsewhere
from cli.processes import ServiceProcess
from cli.report import Report, make_report
from extender.ledger.connecting import connect
from extender.ledger.embedded import EmbeddedRedis
from extender.ledger.failures import explain_failure
from extender.picture import Picture, WaitingPicture
from fracgpu.errors import SettingError, UnavailableError
from fracgpu.gpunodes import GpuNode
from fracgpu.names import RESOURCE_MEMORY, NodeName, PodUid
from fracgpu.pods import Pod
from playground.api.admission import Webhook
from playground.api.apiserver import ApiServer
from playground.api.resources import resource_of
from playground.cluster import ApiStatusError, JsonObject
from playground.controllers.manager import Controllers
from playground.node.kubelet import Kubelet
from playground.node.nvml import SimulatedGpu, write_state
from playground.recording import EventRecorder
from playground.scheduling.scheduler import Scheduler

WEBHOOK_NAME: Final = "pods.fracgpu.io"
_BINDING_TIMEOUT_SECONDS: Final = 1.0  # a loopback API server; also how long a rebuild of the ledger waits, twice
_JOIN_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.05
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"

_logger = logging.getLogger(__name__)
_decode_picture = msgspec.json.Decoder(Picture).decode


@dataclass(frozen=True, slots=True)
class SimulatedNode:
    """A node with `count` equal GPUs of `memory_mib` MiB each."""

    name: str
    product: str
    memory_mib: int
    count: int

    def gpus(self) -> list[SimulatedGpu]:
        """Its GPUs, with UUIDs that tell where they are."""
        node = int.from_bytes(self.name.encode(), "big") % 2**32
        return [
            SimulatedGpu(
                uuid=f"GPU-{node:08x}-0000-4000-8000-{number:012d}",
                product=self.product,
                memory_mib=self.memory_mib,
                minor=number,
                pci_bus_id=f"00000000:{number + 1:02x}:00.0",
            )
            for number in range(self.count)
        ]


DEFAULT_NODES: Final = (
    SimulatedNode("node-1", "NVIDIA A100-SXM4-40GB", 40960, 2),
    SimulatedNode("node-2", "NVIDIA L4", 23034, 1),
    SimulatedNode("node-3", "Tesla T4", 15360, 2),
    SimulatedNode("node-4", "NVIDIA A10", 23028, 4),
)


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
        self._pod_names: dict[PodUid, str] = {}  # pod UID -> namespace/name, of every pod ever created
        self._refused: list[tuple[str, str]] = []  # pod, what the user was told
        self._http: aiohttp.ClientSession | None = None
        self.extender_url = ""
        self.pages_url = ""
        self.api = api or ApiServer(checks_namespaces=serves_kubectl)
        self._controllers = Controllers(self.api.cluster) if serves_kubectl else None
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
        self._extender_port, self._pages_port = _free_port(), _free_port()
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
        for manifest in manifests:
            name = _name_of(manifest)
            try:
                if self._controllers is not None:
                    await self._ensure_namespace(manifest)
                created = await self._create(manifest)
            except ApiStatusError as exc:
                self.refuse(name, exc.message)
            except Exception as exc:
                _logger.exception("%s not created", name)
                self.refuse(name, f"a defect of the playground's API server: {type(exc).__name__}: {exc}")
            else:
                found = created["metadata"]
                if created["kind"] == "Pod":
                    self._pod_names[PodUid(found["uid"])] = f"{found['namespace']}/{found['name']}"

    def refuse(self, name: str, message: str) -> None:
        """Note what was refused before it was a pod."""
        self._refused.append((name, message))

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
        told = await self._told_by_extender()
        for pod in msgspec.convert(pods, list[Pod]):
            self._pod_names[pod.uid] = pod.key
            if reason := self._why_not_running(pod, told.get(pod.uid)):
                waiting[pod.key] = reason
        return make_report(
            nodes=msgspec.convert(nodes, list[GpuNode]),
            held=held,
            pod_names=self._pod_names,
            waiting=waiting,
            refused=[*self._refused, *(self._controllers.refused.values() if self._controllers else ())],
        )

    async def _create(self, manifest: JsonObject) -> JsonObject:
        resource = resource_of(manifest["kind"])
        assert resource is not None  # noqa: S101 (what is loaded is of kinds that are served)
        if self._controllers is not None:
            manifest = _as_applied(manifest, namespaced=resource.namespaced)
        try:
            return await self.api.cluster.create(resource.plural, manifest)
        except ApiStatusError as exc:
            if exc.reason == "AlreadyExists" and resource.kind == "Namespace":  # it was needed before
                return await self.api.cluster.get(resource.plural, manifest["metadata"]["name"])
            raise

    async def _ensure_namespace(self, manifest: JsonObject) -> None:
        """Create the namespace of a manifest where it is missing: nobody is here who could."""
        namespace = manifest["metadata"].get("namespace")
        if namespace:
            with contextlib.suppress(ApiStatusError):  # it is there, or its name is refused with the manifest
                body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
                await self.api.cluster.create("namespaces", body)

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
            await _check_redis(self._redis_url)
        self._on_step("webhook, extender and device plugins")
        elsewhere = self._elsewhere
        ca_pem = elsewhere.ca_pem if elsewhere else self._make_certificates()
        for process in [*([] if elsewhere else [self.extender, self.webhook]), *self.plugins.values()]:
            await process.start()
            self._stack.push_async_callback(process.stop)
        webhook_url = await (elsewhere.webhook if elsewhere else self.webhook).ready()
        webhooks = [Webhook(name=WEBHOOK_NAME, url=f"{webhook_url}/mutate", ca_pem=ca_pem)]
        if self._controllers is not None:
            webhooks.append(_workload_webhook(webhook_url, ca_pem))
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
        return "" if await self._ask(f"{self.extender_url}/readyz") is not None else "the extender was not ready"

    async def _told_by_extender(self) -> dict[PodUid, WaitingPicture]:
        """Pod UID -> why it waits, of all that wait; empty where there is no answer."""
        answer = await self._ask(f"{self.pages_url}/v1/cluster")
        return {} if answer is None else {one.uid: one for one in _decode_picture(answer).waiting}

    async def _ask(self, url: str) -> bytes | None:
        """GET something of the extender; None where there is no good answer."""
        assert self._http is not None  # noqa: S101 (made first of all at the start)
        try:
            async with self._http.get(url) as answer:
                return await answer.read() if answer.ok else None
        except (aiohttp.ClientError, OSError):
            return None

    def _why_not_running(self, pod: Pod, told: WaitingPicture | None) -> str:
        if pod.status is not None and pod.status.phase == "Failed":
            return f"failed, and is not tried again: {pod.status.message or pod.status.reason or 'no reason given'}"
        node = pod.spec.node_name
        if node and node not in self.kubelets:
            return f"assigned to the node {node}, which does not exist"
        if node or pod.is_terminal:
            return ""
        if told is None:
            return _scheduler_says(pod)
        # Where a GPU has room, something else keeps the pod away: a selector, another scheduler's name.
        return f"{_scheduler_says(pod)} ({told.reason})" if told.has_room else told.reason

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
        certificate, key = self._directory / "tls.crt", self._directory / "tls.key"
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

    def _make_certificates(self) -> str:
        """Write the webhook's certificate and key; returns the authority's certificate."""
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1", "localhost")
        issued.private_key_pem.write_to_path(self._directory / "tls.key")
        for number, part in enumerate(issued.cert_chain_pems):
            part.write_to_path(self._directory / "tls.crt", append=number > 0)
        return str(authority.cert_pem.bytes(), "ascii")


async def _check_redis(url: str) -> None:
    """Tell at once what the extender would wait for."""
    try:
        client = connect(url)
    except ValueError as exc:
        raise SettingError(f"--redis-url {exc}") from exc
    try:
        await client.ping()
    except RedisError as exc:
        raise SettingError(f"the Redis of --redis-url: {explain_failure(exc)}") from exc
    finally:
        await client.aclose()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _name_of(manifest: JsonObject) -> str:
    """``namespace/name`` of a manifest that may be anything."""
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict):
        return "a pod without metadata"
    return f"{metadata.get('namespace') or 'default'}/{metadata.get('name') or metadata.get('generateName')}"


def _as_applied(manifest: JsonObject, *, namespaced: bool) -> JsonObject:
    """A manifest as `kubectl apply` sends it: with itself as an annotation, so that it may be applied again."""
    metadata = {"annotations": {}, **manifest["metadata"]}
    if namespaced:
        metadata["namespace"] = metadata.get("namespace") or "default"
    annotations = metadata["annotations"]
    if not isinstance(annotations, dict):
        return manifest  # to be refused
    text = json.dumps({**manifest, "metadata": metadata}, sort_keys=True, separators=(",", ":"))
    return {**manifest, "metadata": {**metadata, "annotations": {**annotations, _LAST_APPLIED: f"{text}\n"}}}


def _workload_webhook(url: str, ca_pem: str) -> Webhook:
    """What deploy/kustomize/webhook/validatingwebhookconfiguration.yaml registers, of the kinds that are here."""
    return Webhook(
        name="workloads.fracgpu.io",
        url=f"{url}/validate",
        ca_pem=ca_pem,
        resources=("deployments", "statefulsets", "jobs"),
        operations=("CREATE", "UPDATE"),
        timeout_seconds=2,
        failure_policy="Ignore",
    )


def _scheduler_says(pod: Pod) -> str:
    conditions = pod.status.conditions if pod.status and pod.status.conditions else ()
    for condition in conditions:
        if condition.type == "PodScheduled" and condition.message:
            return condition.message
    return "not tried yet"
