"""The GPU nodes: device plugins, what they say, what the kubelets offer, and whether all count alike. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from cli.kubectl.checks.finding import Finding, fail, ok, unread, warn
from cli.kubectl.facts import Facts
from cli.kubectl.wording import count, listed
from fracgpu.gpunodes import GpuNode
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, NodeName
from fracgpu.nodes import Node
from fracgpu.pods import Quantity
from fracgpu.quantities import DEFAULT_MEMORY_UNIT, DEFAULT_REPLICAS, parse_quantity

_NVIDIA: Final = "nvidia.com/gpu"
_CHANGING: Final = "docs/operations.md, Changing unit, replicas or reserved memory"
_CLASS_OF_CHART: Final = 'runtimeClassName of the chart to that which there is, or "" where CDI alone shows GPUs'
_PRESENT: Final = {"nvidia.com/gpu.present": "true"}  # the chart's default; GPU feature discovery sets it


def check_plugins(facts: Facts) -> Iterator[Finding]:
    """Whether every GPU node has a device plugin that says what is granted there."""
    check = "plugin pods"
    if (missing := unread(check, facts.plugin)) is not None:
        yield missing
    elif facts.plugin.value is None:
        mend = "install the chart, or name its namespace with -n"
        yield fail(check, f"the DaemonSet {facts.prefix}-plugin does not exist in {facts.namespace}", mend=mend)
    else:
        wanted, ready = facts.plugin.value.status.desired_number_scheduled, facts.plugin.value.status.number_ready
        seeing = f"kubectl get pods -n {facts.namespace} -l app.kubernetes.io/name={facts.prefix}-plugin -o wide"
        labels, labelled = _shown(_selector(facts)), sorted(_labelled(facts))
        if not wanted and labelled:
            mend = f"kubectl describe daemonset -n {facts.namespace} {facts.prefix}-plugin"
            yield fail(check, f"there is none, though {listed(labelled)} {_have(labelled)} its labels", mend=mend)
        elif not wanted:
            mend = f"label the nodes with GPUs ({labels}), or set plugin.nodeSelector to a label that they have"
            yield fail(check, f"no node has its labels ({labels}), so it runs nowhere", mend=mend)
        elif ready < wanted:
            yield fail(check, f"{ready} of {wanted} are ready: the other nodes offer nothing new", mend=seeing)
        else:
            yield ok(check, f"{ready} of {wanted} are ready")
    yield from _runtime_class(facts)
    yield from check_announced(facts)


def _runtime_class(facts: Facts) -> Iterator[Finding]:
    """Whether the class exists that the plugin's pods name: else none of them is created."""
    check = "RuntimeClass"
    name = facts.plugin.value.spec.template.spec.runtime_class_name if facts.plugin.value is not None else ""
    if not name:
        return
    if (missing := unread(check, facts.runtime_class)) is not None:
        yield missing
    elif facts.runtime_class.value is None:
        found = f"{name} does not exist, and {facts.prefix}-plugin names it: none of its pods can be created"
        yield fail(check, found, mend=f"create it (docs/install.md, 2. The GPU nodes), or set {_CLASS_OF_CHART}")
    else:
        yield ok(check, f"{name}, which the plugin's pods name, exists")


def check_announced(facts: Facts) -> Iterator[Finding]:
    """Whether the nodes with GPUs have said so, and what is granted there."""
    check = "GPU nodes"
    if (missing := unread(check, facts.cluster)) is not None or facts.cluster.value is None:
        if missing is not None:
            yield missing
        return
    nodes = facts.cluster.value.index.nodes
    wanted = _selector(facts)
    if silent := sorted(_labelled(facts) - nodes.keys()):
        yield fail(
            check,
            f"{listed(silent)} {_have(silent)} the labels of GPU nodes ({_shown(wanted)}), and no GPUNode",
            mend="see whether a plugin pod is on it, and its log; and its driver (kubectl describe node)",
        )
    mute = sorted(name for name, node in nodes.items() if not node.status.observed_pods)
    if mute:
        found = f"{listed(mute)} {_have(mute)} not said yet what is granted there"
        yield fail(check, found, mend="see the log of the device plugin on it; no pod is placed there until it has")
    if facts.hosts.value is not None:
        known = {host.metadata.name for host in facts.hosts.value}
        if left := sorted(nodes.keys() - known):
            found = f"{listed(left)} {_have(left)} a GPUNode, and no Node"
            yield warn(check, found, mend=f"kubectl delete gpunode {left[0]}; it was owned by a Node that is gone")
    if not nodes:
        yield fail(check, "no node has announced GPUs", mend="label the GPU nodes, and see the plugins' logs")
    elif not (silent or mute):
        gpus = sum(len(node.spec.gpus) for node in nodes.values())
        yield ok(check, f"{count(len(nodes), 'node')} with {count(gpus, 'GPU')}, and all say what is granted")


def check_health(facts: Facts) -> Iterator[Finding]:
    """GPUs that are not healthy, and sharing that cannot be followed."""
    if facts.cluster.value is None:
        return
    nodes = facts.cluster.value.index.nodes
    ill = [
        f"{node.node} GPU {gpu.index} ({gpu.problem or 'no reason given'})"
        for node in nodes.values()
        for gpu in node.spec.gpus
        if not gpu.healthy
    ]
    if ill:
        yield warn("GPU health", f"not healthy: {listed(ill)}", mend="docs/operations.md, A GPU is not well")
    elif nodes:
        yield ok("GPU health", "all are healthy")
    problems = [
        f"{problem.policy} on {node.node}: {problem.message}"
        for node in nodes.values()
        for problem in (node.status.sharing.problems if node.status.sharing is not None else ())
    ]
    if problems:
        mend = "change the SharingPolicy (kubectl describe sharingpolicy); docs/plugin.md says what is possible"
        yield warn("sharing policies", listed(problems, most=3), mend=mend)


def check_offers(facts: Facts) -> Iterator[Finding]:
    """Whether the kubelets offer what the GPUNodes say, and nobody else offers the same GPUs."""
    check = "offered by kubelets"
    if facts.cluster.value is None:
        return
    if (missing := unread(check, facts.hosts)) is not None:
        yield missing
        return
    nodes = facts.cluster.value.index.nodes
    hosts = {host.metadata.name: host for host in facts.hosts.value or ()}
    short = []
    for name, node in nodes.items():
        host = hosts.get(name)
        wanted = sum(gpu.units for gpu in node.spec.gpus if gpu.healthy)
        if host is not None and wanted and not _amount(host, RESOURCE_MEMORY):
            short.append(name)
    if short:
        yield fail(
            check,
            f"{listed(sorted(short))} {_have(short)} GPUs, and its kubelet offers no {RESOURCE_MEMORY}",
            mend="see the plugin's log for its registration at the kubelet; after a kubelet restart it registers again",
        )
    elif nodes:
        yield ok(check, f"{RESOURCE_MEMORY} and {RESOURCE_REPLICA} on all nodes with GPUs")
    twice = sorted(name for name in nodes if name in hosts and _amount(hosts[name], _NVIDIA))
    if twice:
        yield fail(
            "other device plugins",
            f"{listed(twice)} {'offers' if len(twice) == 1 else 'offer'} {_NVIDIA} too: GPUs may be given twice",
            mend="switch NVIDIA's device plugin off there (label nvidia.com/gpu.deploy.device-plugin=false)",
        )
    elif nodes:
        yield ok("other device plugins", f"no node with GPUs offers {_NVIDIA} too")


def check_units(facts: Facts) -> Iterator[Finding]:
    """Whether webhook, extender, plugins and GPUNodes count memory in the same unit, and seats alike."""
    check = "memory unit"
    if (missing := unread(check, facts.webhook, facts.extender, facts.plugin)) is not None:
        yield missing
    units: dict[str, int] = {}
    for part, read in (("webhook", facts.webhook), ("extender", facts.extender), ("plugin", facts.plugin)):
        if read.value is not None:
            units[f"the {part}"] = _number(read.value.setting("memory-unit-mib"), default=DEFAULT_MEMORY_UNIT)
    nodes: Mapping[NodeName, GpuNode] = facts.cluster.value.index.nodes if facts.cluster.value is not None else {}
    units |= {name: node.spec.memory_unit for name, node in sorted(nodes.items())}
    if len(set(units.values())) > 1:
        groups = [
            f"{unit} MiB: {listed([name for name, found in units.items() if found == unit], most=3)}"
            for unit in sorted(set(units.values()))
        ]
        mend = f"give all the same --memory-unit-mib (memoryUnitMiB of the chart); {_CHANGING}"
        yield fail(check, f"not all count in the same: {'; '.join(groups)}", mend=mend)
    elif units:
        pending = sorted(name for name, node in nodes.items() if node.spec.pending_memory_unit is not None)
        if pending:
            found = f"{listed(pending)} will count in another when nothing there is held any more"
            yield warn(
                check,
                found,
                mend=f"drain the GPU pods there ({_CHANGING})",
            )
        else:
            yield ok(check, f"{next(iter(units.values()))} MiB everywhere")
    if facts.webhook.value is not None and nodes:
        yield from _seats(_number(facts.webhook.value.setting("replicas"), default=DEFAULT_REPLICAS), nodes)


def _seats(wanted: int, nodes: Mapping[NodeName, GpuNode]) -> Iterator[Finding]:
    """Whether any GPU takes a fraction as the webhook counts it."""
    check = "seats"
    seats = {gpu.replicas for node in nodes.values() for gpu in node.spec.gpus}
    if seats and wanted not in seats:
        yield warn(
            check,
            f"the webhook counts fractions in {wanted} seats, and the GPUs have {listed(sorted(map(str, seats)))}: "
            "pods that ask for a fraction wait",
            mend="give webhook and plugins the same --replicas (gpuReplicas of the chart), or ask for memory",
        )
    elif seats:
        others = len(seats) > 1
        yield ok(check, f"fractions are of {wanted} seats" + (", which some GPUs have not" if others else ""))


def _selector(facts: Facts) -> Mapping[str, str]:
    """The labels of the nodes that are to have a plugin."""
    if facts.plugin.value is None:
        return _PRESENT
    return facts.plugin.value.spec.template.spec.node_selector or {}


def _labelled(facts: Facts) -> set[NodeName]:
    """The nodes that have these labels."""
    wanted = _selector(facts)
    return {NodeName(host.metadata.name) for host in facts.hosts.value or () if _has(host, wanted)}


def _has(host: Node, labels: Mapping[str, str]) -> bool:
    found = host.metadata.labels or {}
    return bool(labels) and all(found.get(key) == value for key, value in labels.items())


def _shown(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items()) or "none: all nodes"


def _amount(host: Node, resource: str) -> int:
    found: Mapping[str, Quantity] = (host.status.allocatable if host.status is not None else None) or {}
    return int(parse_quantity(str(found.get(resource, 0))))


def _number(text: str | None, *, default: int) -> int:
    return int(text) if text is not None and text.isdigit() else default


def _have(names: list[str] | list[NodeName]) -> str:
    return "has" if len(names) == 1 else "have"
