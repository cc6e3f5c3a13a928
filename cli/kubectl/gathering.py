"""Reads what `doctor` looks at from the API server, as far as the caller may."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from cli.clusters import read_cluster
from cli.kubectl import objects
from cli.kubectl.cluster import Cluster, keep, whole
from cli.kubectl.facts import CRDS, DEFAULT_NAMESPACE, DEFAULT_PREFIX, REGISTRATION, Facts, Page, Read
from cli.kubectl.objects import Named, ProgramPod, Registration, Secret, Workload
from cli.kubectl.session import Session
from fracgpu.errors import FracgpuError
from fracgpu.kube.errors import KubeError
from fracgpu.kube.resources import Resource, T
from fracgpu.nodes import Node
from webhook.certificates.objects import ServiceReference

_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_CLOSED: Final = "the extender's pages are closed (--no-pages), so it cannot be asked"
_NAME_LABEL: Final = "app.kubernetes.io/name"
_NO_ENDPOINTS: Final = "no endpoints available"  # how the API server begins where no pod of a Service is ready
_SIMULATED: Final = "+playground"  # how the version of the playground's API server ends
_OFF: Final = frozenset({"false", "0", "no", "off", "f", "n"})

V = TypeVar("V")


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
    parts = {"webhook": webhook, "extender": extender, "scheduler": scheduler, "plugin": plugin, "redis": redis}
    certificates = await asyncio.gather(*(asked.secret(part, found.value) for part, found in parts.items()))
    is_closed = extender.value is not None and _has_no_pages(extender.value)
    definitions = await asyncio.gather(*(_get(session, objects.DEFINITIONS, name) for name in CRDS))
    cluster, hosts = await _cluster(session)
    return Facts(
        namespace=namespace,
        prefix=prefix,
        simulator=await _simulator(session),
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
        runtime_class=await _runtime_class(session, plugin.value),
        readiness={
            "webhook": await asked.page("webhook", port="https", path="readyz"),
            "extender": await asked.page("extender", port="pages", path="readyz", is_closed=is_closed),
        },
        metrics=await asked.page("extender", port="pages", path="metrics", is_closed=is_closed),
        cluster=cluster,
        hosts=hosts,
    )


def _service_of(registration: Registration | None) -> ServiceReference:
    """The webhook's Service, by which namespace and names are found; an empty one where it is not registered."""
    hooks = registration.webhooks or () if registration is not None else ()
    return next((hook.client_config.service for hook in hooks if hook.client_config.service), ServiceReference())


def _has_no_pages(extender: Workload) -> bool:
    """Whether it was told to serve none: then the chart's Service has no port for them."""
    return extender.setting("no-pages") is not None or (extender.setting("pages") or "").lower() in _OFF


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

    async def page(self, part: str, *, port: str, path: str, is_closed: bool = False) -> Read[Page]:
        """What a service answers at one of its ports, or a pod of it where none is ready.

        Of one that is closed only a good answer counts.
        """
        service = f"https:{self._prefix}-{part}:{port}"
        found = await _read(
            self._page(f"/api/v1/namespaces/{self._namespace}/services/{service}/proxy/{path}"),
            right=f"get on services/proxy ({service}) in {self._namespace}",
        )
        if found.value is not None and found.value.problem.startswith(_NO_ENDPOINTS):
            found = await self._page_of_pod(part, port=port, path=path)
        is_answered = found.value is not None and not found.value.problem
        return Read(unknown=_CLOSED) if is_closed and not is_answered else found

    async def _page_of_pod(self, part: str, *, port: str, path: str) -> Read[Page]:
        """What a pod answers that is not ready, and so is behind no Service."""
        name = f"{self._prefix}-{part}"
        pods = await _list(
            self._session,
            objects.PROGRAM_PODS.in_namespace(self._namespace),
            keep=lambda pod: pod if (pod.metadata.labels or {}).get(_NAME_LABEL) == name else None,
        )
        if pods.unknown:
            return Read(unknown=f"no pod of it is ready, and to ask one that is not {pods.unknown}")
        pod = next((pod for pod in pods.value or () if pod.status.phase == "Running" and pod.port(port)), None)
        if pod is None:
            return Read(unknown="no pod of it runs, so there is none to ask")
        name = f"https:{pod.metadata.name}:{pod.port(port)}"
        return await _read(
            self._page(f"/api/v1/namespaces/{self._namespace}/pods/{name}/proxy/{path}"),
            right=f"get on pods/proxy ({name}) in {self._namespace}, for none of its pods is ready",
        )

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
    return Read(Cluster.of(found)), Read(found.hosts, "needs list on nodes" if found.hosts is None else "")


async def _simulator(session: Session) -> str:
    """The version of a simulated cluster; empty for one that is real, or does not say."""
    try:
        answer = json.loads(await session.connection.request("GET", "/version", timeout_seconds=10.0))
    except KubeError as exc:
        if exc.status == 0:
            raise
        return ""
    version = str(answer.get("gitVersion") or "")
    return version if version.endswith(_SIMULATED) else ""


async def _runtime_class(session: Session, plugin: Workload | None) -> Read[Named]:
    name = plugin.spec.template.spec.runtime_class_name if plugin is not None else ""
    return await _get(session, objects.RUNTIME_CLASSES, name) if name else Read()


async def _kube_schedulers(session: Session) -> Read[list[ProgramPod]]:
    """The pods of a control plane that runs as pods; managed clusters show none."""
    found = await _list(session, objects.PROGRAM_PODS.in_namespace("kube-system"))
    if found.value is None:
        return found
    return Read([pod for pod in found.value if (pod.metadata.labels or {}).get("component") == "kube-scheduler"])


async def _get(session: Session, resource: Resource[T], name: str, *, namespace: str = "") -> Read[T]:
    where = f" in {namespace}" if namespace else ""
    return await _read(
        session.client.get(resource, name, namespace=namespace), right=f"get on {resource.plural}/{name}{where}"
    )


async def _list(
    session: Session, resource: Resource[T], *, keep: Callable[[T], T | None] = lambda found: found
) -> Read[list[T]]:
    async def items() -> list[T]:
        return (await session.client.list(resource, keep=keep)).items

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
