"""The in-tree half of scheduling: which nodes a pod fits by the sums of their resources. Pure.

As kube-scheduler's NodeResourcesFit for extended resources, with spec.unschedulable, spec.nodeSelector and nothing
else: CPU and memory, taints, affinity and topology spread play no part in sharing GPUs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from fracgpu.errors import QuantityError
from fracgpu.quantities import parse_count
from playground.cluster import JsonObject

Amounts = Mapping[str, int]
"""Extended resource -> how much of it."""


def pod_requests(pod: JsonObject) -> Counter[str]:
    """What a pod asks of each extended resource.

    Sidecars (restartable init containers) run beside the app containers and add up; an ordinary init container runs
    alone with the sidecars before it, so only the largest such moment counts.
    """
    spec = pod["spec"]
    running: Counter[str] = Counter()
    for container in spec["containers"]:
        running += _requests(container)
    sidecars: Counter[str] = Counter()
    peak: Counter[str] = Counter()
    for container in spec.get("initContainers", []):
        if container.get("restartPolicy") == "Always":
            sidecars += _requests(container)
            peak |= sidecars
        else:
            peak |= sidecars + _requests(container)
    return (running + sidecars) | peak


class Usage:
    """What pods take of each node, kept as they come and go."""

    def __init__(self) -> None:
        self._nodes: dict[str, Counter[str]] = {}
        self._pods: dict[str, tuple[str, Counter[str]]] = {}  # uid -> its node, what it takes there

    def of(self, node: str) -> Amounts:
        """The sum of the requests of a node's pods."""
        return self._nodes.get(node, {})

    def move(self, uid: str, node: str | None, requests: Counter[str]) -> None:
        """A pod takes this now, of this node and of no other; of none if it is None."""
        if uid in self._pods:
            before, amounts = self._pods.pop(uid)
            self._nodes[before].subtract(amounts)
        if node is not None:
            self._pods[uid] = (node, requests)
            self._nodes.setdefault(node, Counter()).update(requests)


def allocatable(node: JsonObject) -> dict[str, int]:
    """The extended resources that a node offers."""
    return _extended(node.get("status", {}).get("allocatable") or {})


def rejections(pod: JsonObject, requests: Amounts, *, node: JsonObject, used: Amounts) -> list[str]:
    """Why a node cannot take a pod, in kube-scheduler's words; empty if it can.

    Args:
        pod: the pod.
        requests: its ``pod_requests``.
        node: the node.
        used: the sum of the requests of the pods that are bound to the node, or assumed to be.
    """
    if node.get("spec", {}).get("unschedulable"):
        return ["node(s) were unschedulable"]
    labels = node["metadata"].get("labels") or {}
    selector: Mapping[str, str] = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(name) != value for name, value in selector.items()):
        return ["node(s) didn't match Pod's node affinity/selector"]
    offered = allocatable(node)
    return [
        f"Insufficient {resource}"
        for resource, amount in sorted(requests.items())
        if amount > offered.get(resource, 0) - used.get(resource, 0)
    ]


def unschedulable_message(reasons: Mapping[str, Sequence[str]], *, nodes: int) -> str:
    """Say why no node fits, in kube-scheduler's words ("0/4 nodes are available: 1 this, 3 that.").

    Args:
        reasons: node -> why it was dropped.
        nodes: how many nodes there are.
    """
    counted = Counter(reason for of_node in reasons.values() for reason in of_node)
    histogram = sorted(f"{count} {reason}" for reason, count in counted.items())
    return f"0/{nodes} nodes are available:" + (f" {', '.join(histogram)}." if histogram else "")


def _requests(container: JsonObject) -> Counter[str]:
    return Counter(_extended(container.get("resources", {}).get("requests") or {}))


def _extended(amounts: Mapping[str, str]) -> dict[str, int]:
    return dict(_counts((name, text) for name, text in amounts.items() if "/" in name))


def _counts(amounts: Iterable[tuple[str, str]]) -> Iterable[tuple[str, int]]:
    for name, text in amounts:
        try:
            yield name, parse_count(text)
        except QuantityError:
            continue  # a node may report what is none of ours; a pod's amounts were checked when it was created
