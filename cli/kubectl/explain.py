"""`kubectl fracgpu explain POD`: why it waits, or where it is; of a pod that does not exist, how to see why."""

from typing import Final

from cli.kubectl.explainview import draw
from cli.kubectl.explanation import Explained, explain_pod
from cli.kubectl.flags import Output, Where
from cli.kubectl.objects import EVENTS
from cli.kubectl.printing import show, show_data
from cli.kubectl.reading import read
from cli.kubectl.session import EXIT_FAILED, EXIT_WAITS, Session, connected
from cli.kubectl.wording import listed
from fracgpu.errors import SettingError, UnavailableError
from fracgpu.kube.errors import KubeError
from fracgpu.kube.resources import PODS
from fracgpu.pods import Pod

_NOT_FOUND: Final = 404
_OTHER_KINDS: Final = frozenset(
    {
        *("deployment", "deployments", "deploy", "replicaset", "replicasets", "rs", "job", "jobs", "cronjob", "cj"),
        *("statefulset", "statefulsets", "sts", "daemonset", "daemonsets", "ds", "node", "nodes", "no"),
    }
)
_CODES: Final = {"waiting": EXIT_WAITS, "failed": EXIT_FAILED, "unread": EXIT_FAILED}


async def explain(where: Where, *, name: str, output: Output) -> int:
    """Explain one pod.

    Args:
        where: which cluster.
        name: the pod's; also ``pod/NAME``, or ``NAMESPACE/NAME`` as this plugin prints it.
        output: how to print it.

    Returns:
        0 where the pod has what it asked for, or asks for nothing; 3 while it waits; 1 where it failed.

    Raises:
        FracgpuError: the cluster cannot be read, or there is no such pod.
    """
    async with connected(where) as session:
        namespace, name = _split(name, default=session.namespace, given=where.namespace)
        pod = await _find(session, namespace, name)
        found = explain_pod(await read(session), pod)
    _print(found, output=output)
    return _CODES.get(found.state, 0)


def _print(found: Explained, *, output: Output) -> None:
    if output in (Output.JSON, Output.YAML):
        show_data(found, output=output)
    else:
        show(draw(found, every_node=output is Output.WIDE))


def _split(name: str, *, default: str, given: str) -> tuple[str, str]:
    before, slash, after = name.partition("/")
    if not slash:
        return default, name
    if before in ("pod", "pods", "po"):
        return default, after
    if before in _OTHER_KINDS:
        raise SettingError(
            f"explain is about pods, and {name!r} is none; kubectl get pods -n {default} shows their names"
        )
    if given and given != before:
        raise SettingError(f"{name!r} names the namespace {before!r}, and -n names {given!r}; leave one of them out")
    return before, after


async def _find(session: Session, namespace: str, name: str) -> Pod:
    try:
        return await session.client.get(PODS, name, namespace=namespace)
    except KubeError as exc:
        if exc.status != _NOT_FOUND:
            raise
    raise UnavailableError(f"there is no pod {namespace}/{name}; {await _why_missing(session, namespace, name)}")


async def _why_missing(session: Session, namespace: str, name: str) -> str:
    """Which pods a controller of such a name has, else what it was told when it tried to create them."""
    if similar := await _beginning_with(session, namespace, f"{name}-"):
        return f"but of such a name there {'is' if len(similar) == 1 else 'are'} {listed(similar)}"
    seeing = f"kubectl get events -n {namespace} --field-selector reason=FailedCreate"
    try:
        found = await session.client.list(EVENTS.in_namespace(namespace), field_selector="reason=FailedCreate")
    except KubeError:
        return f"if a controller's pods are refused, its events say why: {seeing}"
    told = [event for event in found.items if event.involved_object.name and _is_of(event.involved_object.name, name)]
    if told:
        latest = told[-1]
        owner = f"{latest.involved_object.kind} {latest.involved_object.name}"
        return f"the {owner} tried to create such a pod, and was refused: {latest.message}"
    return (
        "one that was refused when it was created never existed: who created it was told why, and of a controller "
        f"(Deployment, Job, ...) its events say it: {seeing}"
    )


async def _beginning_with(session: Session, namespace: str, beginning: str) -> list[str]:
    try:
        found = await session.client.list(PODS.in_namespace(namespace))
    except KubeError:
        return []
    return sorted(pod.metadata.name for pod in found.items if pod.metadata.name.startswith(beginning))


def _is_of(owner: str, name: str) -> bool:
    """Whether a pod of this name, or what it was made for, belongs to that object."""
    return name == owner or name.startswith(f"{owner}-") or owner.startswith(f"{name}-")
