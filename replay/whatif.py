"""Where pods would go in a cluster, one after the other, or why they would have to wait. Pure.

The extender's own functions decide; of kube-scheduler's part only CPU and memory are looked at: not labels, taints,
affinity, or whether a node is closed for new pods.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from extender.filtering import hold_for, prioritize_nodes
from extender.index import Index
from extender.ledger.claims import Claim, Entry
from extender.placement.explaining import describe, explain
from extender.placement.views import NodeView
from fracgpu.hosts import NOTHING, HostAmount
from fracgpu.pods import Pod
from fracgpu.requests import PodRequest, request_of
from replay.manifests import Wanted
from replay.reasons import describe_host

_NAMED: Final = 3  # nodes in a sentence


class Answer(Struct, frozen=True):
    """What would become of one pod.

    Attributes:
        pod: ``namespace/name``.
        fits: whether it has a place; None where it asks for no GPU or is no pod, so that it is none of ours.
        node: where; empty where it has no place.
        gpus: of those that it gets there the indexes.
        sentence: the same for a person, or why not.
    """

    pod: str
    fits: bool | None
    node: str
    gpus: list[int]
    sentence: str


class Answers(Struct, frozen=True):
    """What would become of all pods; its JSON is what ``fracgpu replay --from-cluster --json`` prints.

    Attributes:
        nodes, gpus: of the cluster, those that were added with them.
        added_nodes: of these nodes, what was only assumed.
        replicas: the seats by which fractions were counted.
        asking: how many pods ask for GPUs, those that would be refused among them.
        fitting: how many of these have a place.
        pods: each of them, in their order.
        waiting_already: pods of the cluster that ask for GPUs and wait; they are not placed here.
    """

    nodes: int
    gpus: int
    added_nodes: list[str]
    replicas: int
    asking: int
    fitting: int
    pods: list[Answer]
    waiting_already: list[str]


def answer(index: Index, wanted: Wanted) -> Answer:
    """Place a pod.

    Args:
        index: the cluster; where the pod fits, it is in it afterwards, and what it has got is taken for the next.
        wanted: the pod.
    """
    pod = wanted.pod
    if pod is None:
        return Answer(wanted.name, False if wanted.is_pod else None, "", [], wanted.refusal)
    request = request_of(pod)  # the webhook has let it in, so it can be read
    if request is None:
        return Answer(wanted.name, None, "", [], "asks for no GPU; where it goes is kube-scheduler's decision alone")
    index.see(pod)
    views = _views(index, pod)
    roomy = [view for view in views if _has_host(view, request.host)]
    best = prioritize_nodes(index, pod, [view.name for view in roomy]).best
    claim = None if best is None else hold_for(index, pod, best)
    if claim is None:
        return Answer(wanted.name, False, "", [], _why_not(index, request, views=views))
    index.change_claim(pod.uid, Entry(claim.bound(), 0))
    if request.host != NOTHING:
        index.put_load(pod.uid, claim.node, request.host)
    return _placed(index, wanted.name, claim, request)


def _placed(index: Index, name: str, claim: Claim, request: PodRequest) -> Answer:
    taken = claim.per_gpu()
    gpus = sorted((gpu for gpu in index.nodes[claim.node].spec.gpus if gpu.uuid in taken), key=lambda gpu: gpu.index)
    numbers = ", ".join(str(gpu.index) for gpu in gpus)
    products = ", ".join(dict.fromkeys(gpu.product for gpu in gpus))
    where = f"{claim.node}, GPU{'s' if len(gpus) > 1 else ''} {numbers} ({products})"
    sentence = f"needs {describe(request, unit=index.unit)}; goes to {where}"
    return Answer(name, True, claim.node, [gpu.index for gpu in gpus], sentence)


def _why_not(index: Index, request: PodRequest, *, views: Sequence[NodeView]) -> str:
    everywhere = explain(views, request, unit=index.unit)
    if not everywhere.room_on:
        return everywhere.reason  # of the GPUs alone: more CPU would not help
    some = ", ".join(everywhere.room_on[:_NAMED])
    rest = f" and {len(everywhere.room_on) - _NAMED} more nodes" if len(everywhere.room_on) > _NAMED else ""
    need = describe(request, unit=index.unit)
    return f"needs {need}; there is room on {some}{rest}, but not with {describe_host(request.host)} free"


def _views(index: Index, pod: Pod) -> list[NodeView]:
    """The nodes as this pod finds them, those that count in another unit left out."""
    special = index.views_for(pod.uid, priority=pod.priority)
    return [special.get(view.name, view) for view in index.views() if view.unit == index.unit]


def _has_host(view: NodeView, host: HostAmount) -> bool:
    """Whether a node has the CPU and memory; one of which neither is known has."""
    return view.host is None or view.host.free.holds(host)
