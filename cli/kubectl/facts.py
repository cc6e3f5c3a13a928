"""What `doctor` looks at, read from the API server as far as the caller may; of the rest, why it is missing."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from cli.clusters import read_cluster
from cli.kubectl import objects
from cli.kubectl.cluster import Cluster, keep, whole
from cli.kubectl.objects import (
    ConfigMap,
    Definition,
    Named,
    PolicyBinding,
    Registration,
    SchedulerPod,
    Secret,
    Workload,
)
from cli.kubectl.session import Session
from fracgpu.errors import FracgpuError
from fracgpu.kube.errors import KubeError
from fracgpu.kube.resources import Resource, T
from fracgpu.nodes import Node
from webhook.certificates.objects import ServiceReference

DEFAULT_NAMESPACE: Final = "fracgpu-system"
"""Where fracgpu is looked for when its registration does not say."""
DEFAULT_PREFIX: Final = "fracgpu"
"""What the names of its parts begin with, in the same case; the chart's nameOverride is another."""
REGISTRATION: Final = "fracgpu"
CRDS: Final = ("gpunodes.fracgpu.io", "sharingpolicies.fracgpu.io")
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404

V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Read(Generic[V_co]):
    """What was read.

    Attributes:
        value: it; None where it does not exist, or could not be read.
        unknown: why it could not be read; empty where it could, or does not exist.
    """

    value: V_co | None = None
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer of a service, over the API server's proxy: `problem` is what is wrong, empty where it is well."""

    text: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it.

    Attributes:
        namespace: fracgpu's.
        prefix: what the names of its parts begin with, before a dash.
        definitions: name of a custom resource definition -> it.
        mutating, validating: the webhook's registrations.
        policies, bindings: the admission policies, and where they hold.
        webhook, extender, scheduler, plugin, redis: what runs them.
        scheduler_config: the configuration of the chart's scheduler.
        kube_schedulers: the pods of the cluster's own scheduler.
        secrets: part (webhook, extender, scheduler, plugin) -> its certificate.
        readiness: part (webhook, extender) -> what it says itself.
        metrics: the extender's.
        cluster: GPUs and pods; None where they could not be read.
        hosts: the Nodes.
    """

    namespace: str = DEFAULT_NAMESPACE
    prefix: str = DEFAULT_PREFIX
    definitions: Mapping[str, Read[Definition]] = field(default_factory=dict)
    mutating: Read[Registration] = field(default_factory=Read)
    validating: Read[Registration] = field(default_factory=Read)
    policies: Read[list[Named]] = field(default_factory=Read)
    bindings: Read[list[PolicyBinding]] = field(default_factory=Read)
    webhook: Read[Workload] = field(default_factory=Read)
    extender: Read[Workload] = field(default_factory=Read)
    scheduler: Read[Workload] = field(default_factory=Read)
    plugin: Read[Workload] = field(default_factory=Read)
    redis: Read[Workload] = field(default_factory=Read)
    scheduler_config: Read[ConfigMap] = field(default_factory=Read)
    kube_schedulers: Read[list[SchedulerPod]] = field(default_factory=Read)
    secrets: Mapping[str, Read[Secret]] = field(default_factory=dict)
    readiness: Mapping[str, Read[Page]] = field(default_factory=dict)
    metrics: Read[Page] = field(default_factory=Read)
    cluster: Read[Cluster] = field(default_factory=Read)
    hosts: Read[list[Node]] = field(default_factory=Read)


async def gather(session: Session, *, namespace: str) -> Facts:
    """Read everything.

    Args:
        session: the API server.
        namespace: fracgpu's; empty to find it.

    Raises:
        KubeError: the API server cannot be reached.
    """
    mutating = await _get(session, objects.MUTATING, REGISTRATION)
    service = _service_of(mutating.value)
    namespace = namespace or service.namespace or DEFAULT_NAMESPACE
    prefix = service.name.removesuffix("-webhook") or DEFAULT_PREFIX
    asked = _Asked(session, namespace, prefix=prefix)
    webhook, extender, scheduler = await asyncio.gather(
        *(asked.workload(objects.DEPLOYMENTS, part) for part in ("webhook", "extender", "scheduler"))
    )
    plugin, redis = await asyncio.gather(
        asked.workload(objects.DAEMONSETS, "plugin"), asked.workload(objects.STATEFULSETS, "redis")
    )
    parts = {"webhook": webhook, "extender": extender, "scheduler": scheduler, "plugin": plugin}
    certificates = await asyncio.gather(*(asked.secret(part, found.value) for part, found in parts.items()))
    definitions = await asyncio.gather(*(_get(session, objects.DEFINITIONS, name) for name in CRDS))
    cluster, hosts = await _cluster(session)
    return Facts(
        namespace=namespace,
        prefix=prefix,
        definitions=dict(zip(CRDS, definitions, strict=True)),
        mutating=mutating,
        validating=await _get(session, objects.VALIDATING, REGISTRATION),
        policies=await _list(session, objects.POLICIES),
        bindings=await _list(session, objects.POLICY_BINDINGS),
        webhook=webhook,
        extender=extender,
        scheduler=scheduler,
        plugin=plugin,
        redis=redis,
        scheduler_config=await _get(session, objects.CONFIGMAPS, f"{prefix}-scheduler", namespace=namespace),
        kube_schedulers=await _kube_schedulers(session),
        secrets=dict(zip(parts, certificates, strict=True)),
        readiness={
            "webhook": await asked.page("webhook", ports=("https",), path="readyz"),
            "extender": await asked.page("extender", ports=("pages", "verbs"), path="readyz"),
        },
        metrics=await asked.page("extender", ports=("pages",), path="metrics"),
        cluster=cluster,
        hosts=hosts,
    )


def _service_of(registration: Registration | None) -> ServiceReference:
    """The webhook's Service, by which namespace and names are found; an empty one where it is not registered."""
    hooks = registration.webhooks or () if registration is not None else ()
    return next((hook.client_config.service for hook in hooks if hook.client_config.service), ServiceReference())


class _Asked:
    """What is asked in fracgpu's namespace."""

    def __init__(self, session: Session, namespace: str, *, prefix: str) -> None:
        self._session = session
        self._namespace = namespace
        self._prefix = prefix

    async def workload(self, resource: Resource[Workload], part: str) -> Read[Workload]:
        return await _get(self._session, resource, f"{self._prefix}-{part}", namespace=self._namespace)

    async def secret(self, part: str, workload: Workload | None) -> Read[Secret]:
        """The Secret that a part mounts, or, of the webhook, keeps its certificate in."""
        name = ""
        if workload is not None:
            _, _, name = (workload.setting("tls-secret") or "").partition("/")
            name = name or workload.secret_of("tls")
        return await _get(
            self._session, objects.SECRETS, name or f"{self._prefix}-{part}-tls", namespace=self._namespace
        )

    async def page(self, part: str, *, ports: tuple[str, ...], path: str) -> Read[Page]:
        """What a service answers at the first of these ports that it has."""
        found: Read[Page] = Read()
        for port in ports:
            service = f"/api/v1/namespaces/{self._namespace}/services/https:{self._prefix}-{part}:{port}/proxy/{path}"
            found = await _read(
                self._page(service),
                right=f"get on services/proxy (https:{self._prefix}-{part}:{port}) in {self._namespace}",
            )
            if found.value is not None or found.unknown:
                return found
        return found

    async def _page(self, path: str) -> Page:
        try:
            answer = await self._session.connection.request("GET", path, timeout_seconds=10.0)
        except KubeError as exc:
            if exc.status in (_FORBIDDEN, _NOT_FOUND):
                raise
            _, _, said = str(exc).rpartition(f"{exc.status} {exc.kube_reason}: ")
            return Page(problem=said if exc.status else str(exc))
        return Page(text=answer.decode(errors="replace"))


async def _cluster(session: Session) -> tuple[Read[Cluster], Read[list[Node]]]:
    try:
        found = await read_cluster(
            session.client,
            keep_pod=keep,
            keep_node=whole,
            keep_host=lambda host: host,
            else_namespace=session.namespace,
        )
    except FracgpuError as exc:
        if isinstance(exc, KubeError) and exc.status == 0:
            raise
        return Read(unknown=str(exc)), Read(unknown=str(exc))
    hosts = Read(found.hosts) if found.hosts else Read(unknown="needs list on nodes")
    return Read(Cluster.of(found)), hosts


async def _kube_schedulers(session: Session) -> Read[list[SchedulerPod]]:
    """The pods of a control plane that runs as pods; managed clusters show none."""
    found = await _list(session, objects.SCHEDULER_PODS.in_namespace("kube-system"))
    if found.value is None:
        return found
    return Read([pod for pod in found.value if (pod.metadata.labels or {}).get("component") == "kube-scheduler"])


async def _get(session: Session, resource: Resource[T], name: str, *, namespace: str = "") -> Read[T]:
    where = f" in {namespace}" if namespace else ""
    return await _read(
        session.client.get(resource, name, namespace=namespace), right=f"get on {resource.plural}/{name}{where}"
    )


async def _list(session: Session, resource: Resource[T]) -> Read[list[T]]:
    async def items() -> list[T]:
        return (await session.client.list(resource)).items

    where = f" in {resource.within}" if resource.within else ""
    return await _read(items(), right=f"list on {resource.plural}{where}")


async def _read(asking: Awaitable[V], *, right: str) -> Read[V]:
    try:
        return Read(await asking)
    except KubeError as exc:
        if exc.status == 0:
            raise  # nothing else would be answered either
        if exc.status == _NOT_FOUND:
            return Read()
        return Read(unknown=f"needs {right}" if exc.status == _FORBIDDEN else str(exc))
