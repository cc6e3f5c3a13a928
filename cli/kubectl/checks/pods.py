"""The pods: those whose request nobody read, and those that have, or use, something else than was planned. Pure."""

from collections.abc import Iterator
from typing import Final

from cli.kubectl.checks.finding import Finding, fail, ok, unread, warn
from cli.kubectl.cluster import Cluster
from cli.kubectl.facts import Facts
from cli.kubectl.grants import difference, grant_of, planned_shares
from cli.kubectl.wording import count, listed
from extender.picture import Picture
from fracgpu.pods import Pod
from fracgpu.quantities import format_mib

_NAMED: Final = 3


def check_pods(facts: Facts) -> Iterator[Finding]:
    """What is wrong with pods."""
    check = "pods"
    if (missing := unread(check, facts.cluster)) is not None:
        yield missing
    if facts.cluster.value is None:
        return
    cluster, picture = facts.cluster.value, facts.cluster.value.picture
    found = [*_unread(cluster), *_off_plan(cluster), *_without_grant(cluster), *_overuse(picture), *_overdrawn(picture)]
    yield from found
    if not found:
        waiting = f", {len(picture.waiting)} of them waiting" if picture.waiting else ""
        yield ok(check, f"{count(len(cluster.pods), 'pod')} with GPUs{waiting}; plans, grants and use agree")


def _unread(cluster: Cluster) -> Iterator[Finding]:
    if cluster.unread:
        yield fail(
            "pods without limits",
            f"{_names(cluster.unread)} asked by annotation, and the webhook was not asked: they have no GPU",
            mend="mend the webhook, then delete and create them anew",
        )


def _off_plan(cluster: Cluster) -> Iterator[Finding]:
    told = []
    for pod in cluster.pods.values():
        node = cluster.index.nodes.get(pod.spec.node_name)
        if node is not None and (sentence := difference(pod, node)):
            told.append(f"{pod.key}: {sentence}")
    if told:
        mend = "delete the pods; if it comes again, see the plugin's log on that node (off_plan, refused)"
        yield fail("plans and grants", listed(told, most=_NAMED), mend=mend)


def _without_grant(cluster: Cluster) -> Iterator[Finding]:
    """Pods that run, and of which the plugin of their node says nothing: it does not see, or they bypassed it."""
    told = []
    for pod in cluster.pods.values():
        node = cluster.index.nodes.get(pod.spec.node_name)
        is_running = pod.status is not None and pod.status.phase == "Running"
        if node is not None and is_running and planned_shares(pod) is not None and grant_of(pod, node) is None:
            told.append(pod)
    if told:
        nodes = listed(sorted({pod.spec.node_name for pod in told}))
        yield fail(
            "plans and grants",
            f"{_names(told)} {'runs' if len(told) == 1 else 'run'} on {nodes} without a grant",
            mend="see the plugin's log there: it does not see its node's pods, or cannot write its GPUNode",
        )


def _overuse(picture: Picture) -> Iterator[Finding]:
    told = [
        f"{share.namespace}/{share.name} on {node.name} GPU {gpu.index}: {format_mib(share.used)} of "
        f"{format_mib(share.taken)}"
        for node in picture.nodes
        for gpu in node.gpus
        for share in gpu.pods
        if share.used is not None and share.used > share.taken
    ]
    if told:
        mend = "docs/operations.md, A pod uses more GPU memory than it was granted"
        yield warn("memory in use", f"more than granted: {listed(told, most=_NAMED)}", mend=mend)


def _overdrawn(picture: Picture) -> Iterator[Finding]:
    told = [
        f"{node.name} GPU {gpu.index}: {format_mib(gpu.taken)} of {format_mib(gpu.offered)}"
        for node in picture.nodes
        for gpu in node.gpus
        if gpu.taken > gpu.offered or gpu.seats_taken > gpu.seats
    ]
    if told:
        mend = "kubectl fracgpu top NODE -o wide shows the pods; end one of them"
        yield fail("overdrawn GPUs", f"more is given away than they have: {listed(told, most=_NAMED)}", mend=mend)


def _names(pods: list[Pod]) -> str:
    return listed(sorted(pod.key for pod in pods), most=_NAMED)
