"""A real control plane with our services as deploy/ describes them: own accounts, webhook, scheduler configuration.

What is not as in a cluster: webhook and extender are reached by URL (there are no Services here), accounts log in with
static tokens, and no controller runs. Nodes may be paper: a Node and a GPUNode without a kubelet, whose pods never run.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
import trustme
import yaml

from cli.processes import ServiceProcess
from extender.ledger.embedded import EmbeddedRedis
from fracgpu.gpunodes import GpuNode
from fracgpu.kube.client import KubeClient
from fracgpu.kube.resources import GPUNODES
from fracgpu.names import (
    ANNOTATION_ALLOCATION,
    ANNOTATION_GPU_MEMORY,
    DOMAIN,
    GPUNODE_API_VERSION,
    GPUNODE_KIND,
    GPUNODE_PLURAL,
    RESOURCE_MEMORY,
    RESOURCE_REPLICA,
    SHARINGPOLICY_PLURAL,
    GpuUuid,
    NodeName,
    PodUid,
)
from fracgpu.plans import Share, decode_plan, sum_shares
from playground.cluster import ApiStatusError, JsonObject
from tests.conformance.lab import poll
from tests.deploy.conftest import DEPLOY, EXTENDER, PLUGIN, Api, documents
from tests.e2e.recorder import Recorder
from tests.httpcluster import HttpCluster
from tests.nodebench import until, until_gone, until_phase
from tests.realcluster import RealControlPlane, User
from tests.realkubelet import KUBELET_USER

NAMESPACE: Final = "default"
HOSTNAME: Final = "kubernetes.io/hostname"
UNIT_MIB: Final = 512
GPUNODES_PATH: Final = f"/apis/{GPUNODE_API_VERSION}/{GPUNODE_PLURAL}"
_LOG_CHARACTERS: Final = 4000


def pod(name: str, memory: str = "", *, on: str = "", **annotations: str) -> JsonObject:
    """Build a pod that asks for GPU memory, or for what `annotations` say; `on` is the one node it may go to."""
    notes = {f"fracgpu.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    if memory:
        notes[ANNOTATION_GPU_MEMORY] = memory
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": notes},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "nodeSelector": {HOSTNAME: on} if on else {},
            "containers": [{"name": "main", "image": "example.com/app:1"}],
        },
    }


class Cluster:
    """etcd, kube-apiserver, kube-scheduler, Redis, webhook and extender, between ``start`` and ``stop``.

    Args:
        folder: an empty folder of a short path.

    Attributes:
        api: pods and nodes, as administrator.
        plane: the control plane.
        recorder: what kube-scheduler asked the extender.
        redis, webhook, extender: the processes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plane = RealControlPlane(
            folder / "cp",
            users=(KUBELET_USER, EXTENDER, PLUGIN),
            apiserver_flags=(
                f"--audit-policy-file={folder / 'audit.yaml'}",
                f"--audit-log-path={folder / 'audit.jsonl'}",
            ),
        )
        self.redis = EmbeddedRedis(folder / "redis")
        # Kept, so that the scheduler, and tests, find an extender that was started again.
        self._extender_port, self._pages_port = _free_port(), _free_port()
        self.pages_url = f"http://127.0.0.1:{self._pages_port}"
        self.recorder = Recorder(f"http://127.0.0.1:{self._extender_port}")
        self.webhook: ServiceProcess
        self.extender: ServiceProcess
        self.api: HttpCluster
        self._kube: KubeClient
        self._http: aiohttp.ClientSession
        self._stack = contextlib.AsyncExitStack()

    def service(self, name: str, *arguments: str) -> ServiceProcess:
        """Make a process of ours that is not started yet."""
        return ServiceProcess(name, arguments=list(arguments), directory=self.folder)

    async def start(self) -> None:
        """Start everything; returns when pods are scheduled."""
        (self.folder / "audit.yaml").write_text(json.dumps(_audit_policy()))
        self._stack.push_async_callback(asyncio.to_thread, self.plane.stop)
        await asyncio.to_thread(self.plane.start)
        self.api = HttpCluster(self.plane.url, token=self.plane.token, context=self.plane.client_ssl())
        self._stack.push_async_callback(self.api.close)
        self._kube = await KubeClient.connect(kubeconfig=self.plane.kubeconfig())
        self._stack.push_async_callback(self._kube.close)
        self._http = await self._stack.enter_async_context(aiohttp.ClientSession())
        await asyncio.to_thread(self._define)
        await self.redis.start()
        self._stack.push_async_callback(self.redis.stop)
        ca_pem = self._make_certificates()
        self.webhook = self.service(
            *("webhook", "-m", "webhook", "--port", "0", "--metrics-port", "0"),
            *("--tls-cert", str(self.folder / "tls.crt"), "--tls-key", str(self.folder / "tls.key")),
        )
        self.extender = self.service(
            *("extender", "-m", "extender", "--port", str(self._extender_port), "--pages-port", str(self._pages_port)),
            *("--kubeconfig", str(self.plane.kubeconfig(EXTENDER))),
            *("--redis-url", self.redis.url, "--binding-timeout-seconds", "1"),
            *("--policy", "binpack"),  # by which a test can tell beforehand who goes where
        )
        for process in (self.webhook, self.extender):
            await process.start()
            self._stack.push_async_callback(process.stop)
        webhook_url = await self.webhook.ready()
        await asyncio.to_thread(self._register_webhook, webhook_url, ca_pem)
        await self.recorder.start()
        self._stack.push_async_callback(self.recorder.stop)
        await self.extender.ready()
        await self.extender_ready()
        await asyncio.to_thread(self.plane.start_scheduler, self._scheduler_configuration())

    async def stop(self) -> None:
        """End everything."""
        await self._stack.aclose()

    def assert_rights_suffice(self) -> None:
        """Fail if our services asked the API server for anything that deploy/kustomize/rbac.yaml does not allow."""
        events = [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]
        assert EXTENDER.name in {event["user"]["username"] for event in events}
        assert [event for event in events if event["responseStatus"]["code"] == 403] == []

    def logs(self) -> Iterator[tuple[str, str]]:
        """The ends of all logs: name, text."""
        for path in (*sorted(self.folder.glob("*.log")), *sorted((self.folder / "cp").glob("*scheduler.log"))):
            yield path.stem, path.read_text(errors="replace")[-_LOG_CHARACTERS:]

    # Pods, all of one namespace.

    async def create(self, manifest: JsonObject) -> PodUid:
        created = await self.api.create("pods", manifest)
        return PodUid(created["metadata"]["uid"])

    async def get(self, name: str) -> JsonObject:
        return await self.api.get("pods", name, namespace=NAMESPACE)

    async def until(self, name: str, holds: Callable[[JsonObject], bool]) -> JsonObject:
        return await until(self.api, "pods", name, holds)

    async def running(self, name: str) -> JsonObject:
        return await until_phase(self.api, name, "Running")

    async def bound(self, name: str) -> JsonObject:
        return await self.until(name, lambda found: bool(node_of(found)))

    async def waiting(self, name: str, *, because: str = "") -> str:
        """Wait until kube-scheduler has written down why a pod waits, and return it."""
        found = await self.until(name, lambda found: bool(_waits(found)) and because in _waits(found))
        return _waits(found)

    async def delete(self, *names: str, force: bool = False) -> None:
        for name in names:
            await self.api.delete("pods", name, namespace=NAMESPACE, grace_seconds=0 if force else None)

    async def gone(self, *names: str) -> None:
        for name in names:
            await until_gone(self.api, name)

    async def bound_pods(self, count: int) -> list[JsonObject]:
        """Wait until this many pods are bound, and return them."""
        seen: list[JsonObject] = []

        async def holds() -> bool:
            pods, _ = await self.api.list("pods")
            seen[:] = [found for found in pods if node_of(found)]
            return len(seen) >= count

        try:
            await poll(holds)
        except TimeoutError:
            raise AssertionError(f"{len(seen)} pods were bound, not {count}") from None
        assert len(seen) == count
        return seen

    async def clean(self) -> None:
        """Force-delete every pod."""
        pods, _ = await self.api.list("pods")
        names = [found["metadata"]["name"] for found in pods]
        with contextlib.suppress(ApiStatusError):  # one may be going by itself
            await self.delete(*names, force=True)
        await self.gone(*names)

    async def explain(self, name: str) -> str:
        """Ask the extender where a pod is, or why it waits."""
        async with self._http.get(f"{self.pages_url}/v1/explain/{NAMESPACE}/{name}") as answer:
            found = await answer.json()
        return str(found.get("reason", found))

    async def extender_ready(self) -> None:
        """Wait until the extender decides."""

        async def holds() -> bool:
            try:
                async with self._http.get(f"{self.pages_url}/readyz") as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

        await poll(holds)

    # Nodes.

    async def gpunode(self, name: str, holds: Callable[[GpuNode], bool] = lambda _: True) -> GpuNode:
        """Wait until a GPUNode is as wanted."""
        seen: list[GpuNode] = []

        async def is_so() -> bool:
            found = await self._kube.list(GPUNODES, field_selector=f"metadata.name={name}")
            seen[:] = found.items
            return bool(seen) and holds(seen[0])

        try:
            await poll(is_so)
        except TimeoutError:
            raise AssertionError(f"GPUNode {name} did not become as wanted; last seen: {seen}") from None
        return seen[0]

    async def grants(self, node: str, holds: Callable[[set[str]], bool]) -> GpuNode:
        """Wait until the grants of a node are these pods' (names)."""
        return await self.gpunode(node, lambda found: holds({grant.name for grant in found.status.grants}))

    async def admit_node(self, name: str) -> None:
        """Take off the taint that kube-apiserver puts on every new Node: a controller would, and none runs here."""
        await until(self.api, "nodes", name, lambda found: bool(found))
        await self.api.patch("nodes", name, {"spec": {"taints": None}})

    async def add_paper_node(self, name: str, *, gpu_gib: Sequence[int], replicas: int = 4) -> None:
        """Add a Node and a GPUNode that nobody stands behind, with GPUs of these sizes."""
        gpus = [
            {
                "uuid": f"GPU-{name}-{index}",
                "index": index,
                "product": "Paper GPU",
                "memoryMiB": size * 1024,
                "units": size * 1024 // UNIT_MIB,
                "replicas": replicas,
            }
            for index, size in enumerate(gpu_gib)
        ]
        amounts = {
            "cpu": "64",
            "memory": "256Gi",
            "pods": "110",
            RESOURCE_MEMORY: str(sum(size * 1024 // UNIT_MIB for size in gpu_gib)),
            RESOURCE_REPLICA: str(replicas * len(gpu_gib)),
        }
        head = {"apiVersion": GPUNODE_API_VERSION, "kind": GPUNODE_KIND, "metadata": {"name": name}}
        await self._ask("POST", GPUNODES_PATH, {**head, "spec": {"memoryUnitMiB": UNIT_MIB, "gpus": gpus}})
        await self.observe_pods(name)  # a GPUNode without a status offers nothing
        await self.api.create(
            "nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {HOSTNAME: name}}}
        )
        await self.api.patch(
            "nodes", name, {"status": {"capacity": amounts, "allocatable": amounts}}, subresource="status"
        )
        await self.admit_node(name)

    async def remove_node(self, name: str) -> None:
        """Remove a Node and its GPUNode."""
        await self.api.delete("nodes", name)
        await self._ask("DELETE", f"{GPUNODES_PATH}/{name}")

    async def observe_pods(self, node: str) -> None:
        """Say, as a paper node's plugin, that it has seen all that happened to its pods."""
        _, version = await self.api.list("pods")
        found = await self._ask("GET", f"{GPUNODES_PATH}/{node}")
        found["status"] = {"observedPods": version, "grants": []}
        await self._ask("PUT", f"{GPUNODES_PATH}/{node}/status", found)

    async def _ask(self, method: str, path: str, body: object = None) -> Any:
        code, answer = await asyncio.to_thread(self.plane.request, method, path, body)
        assert code in (200, 201), answer
        return answer

    # Starting.

    def _define(self) -> None:
        api = Api(self.plane)
        for plural in (GPUNODE_PLURAL, SHARINGPOLICY_PLURAL):
            (crd,) = documents(f"crds/{plural}.{DOMAIN}.yaml")
            self.plane.define(crd)
        for manifest in documents("rbac.yaml"):
            api.apply(manifest)
        for user, verb in ((EXTENDER, "watch"), (PLUGIN, "patch")):
            api.wait_until(partial(self._may, user, verb))  # kube-apiserver takes in new roles in its own time

    def _may(self, user: User, verb: str) -> bool:
        """Whether a user may do this with GPUNodes."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"group": DOMAIN, "resource": GPUNODE_PLURAL, "verb": verb}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        code, answer = Api(self.plane, user).call("POST", path, review)
        return code == 201 and bool(answer["status"]["allowed"])

    def _register_webhook(self, url: str, ca_pem: bytes) -> None:
        (configuration,) = documents("webhook/mutatingwebhookconfiguration.yaml")
        for hook in configuration["webhooks"]:
            hook["clientConfig"] = {"url": f"{url}/mutate", "caBundle": base64.b64encode(ca_pem).decode()}
        api = Api(self.plane)
        api.apply(configuration)
        malformed = pod("probe", "much")
        path = f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All"
        api.wait_until(lambda: api.call("POST", path, malformed)[0] == 403)

    def _scheduler_configuration(self) -> Path:
        configuration = scheduler_configuration()
        (extender,) = configuration["extenders"]
        extender["urlPrefix"] = self.recorder.url
        path = self.folder / "kube-scheduler-config.yaml"
        path.write_text(yaml.safe_dump(configuration))
        return path

    def _make_certificates(self) -> bytes:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(self.folder / "tls.key")
        (self.folder / "tls.crt").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        return bytes(authority.cert_pem.bytes())


def scheduler_configuration() -> dict[str, Any]:
    """The KubeSchedulerConfiguration of deploy/, without what is TLS' in it."""
    found: dict[str, Any] = yaml.safe_load(
        (DEPLOY / "kustomize" / "scheduler" / "kube-scheduler-config.yaml").read_text()
    )
    (extender,) = found["extenders"]
    del extender["enableHTTPS"], extender["tlsConfig"]
    return found


def node_of(found: JsonObject) -> NodeName:
    """The node that a pod is bound to, or an empty name."""
    return NodeName(found.get("spec", {}).get("nodeName", ""))


def planned(found: JsonObject) -> dict[GpuUuid, Share]:
    """What a pod's annotation says that it takes of each GPU."""
    return decode_plan(found["metadata"]["annotations"][ANNOTATION_ALLOCATION]).per_gpu()


def planned_units(pods: Sequence[JsonObject]) -> dict[GpuUuid, int]:
    """GPU -> units that the annotations of these pods promise together."""
    shares = sum_shares(share for found in pods for share in planned(found).values())
    return {gpu: share.units for gpu, share in shares.items()}


def _waits(found: JsonObject) -> str:
    """What kube-scheduler wrote onto a pod that it could not place."""
    conditions = found.get("status", {}).get("conditions") or []
    return next(
        (str(c.get("message", "")) for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), ""
    )


def _audit_policy() -> dict[str, object]:
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata", "users": [EXTENDER.name, PLUGIN.name]}, {"level": "None"}],
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
