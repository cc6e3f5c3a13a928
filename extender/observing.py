"""What the extender reads of pods and GPUNodes: which concern it, what they claim, whether they have ended. Pure.

A cluster has tens of thousands of pods, and each replica keeps them all: `reduced` leaves of each what is ever asked.
"""

import logging
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

import msgspec

from extender.index import Nomination
from extender.ledger.claims import Claim, ClaimState
from extender.reconciling import Facts, judge
from extender.sharingpolicies import slim
from fracgpu.errors import InputError, PlanError, RequestError
from fracgpu.gpunodes import GpuNode, UsedMemory
from fracgpu.hosts import NOTHING, HostAmount, host_request_of
from fracgpu.names import DOMAIN, RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid, NodeName, PodUid
from fracgpu.nodes import Node, NodeStatus
from fracgpu.plans import Plan, check_shares, decode_plan
from fracgpu.pods import Container, ContainerStatus, ObjectMeta, Pod, PodSpec, PodStatus, Quantity, Resources
from fracgpu.quantities import Mib, parse_count
from fracgpu.requests import gpu_resource_names, request_of

_RESOURCES: Final = (RESOURCE_MEMORY, RESOURCE_REPLICA)
_logger = logging.getLogger(__name__)


def reduced(pod: Pod) -> Pod | None:
    """What is kept of a pod: of one without a GPU what it takes of its node; None for one that takes nothing."""
    if not asks_gpu(pod):
        return _bystander(pod)
    meta, spec, status = pod.metadata, pod.spec, pod.status or PodStatus()
    return Pod(
        msgspec.structs.replace(
            meta,
            namespace=sys.intern(meta.namespace),
            creation_timestamp=sys.intern(meta.creation_timestamp) if meta.creation_timestamp else None,
            generate_name="",
            annotations={key: value for key, value in pod.annotations.items() if key.startswith(f"{DOMAIN}/")},
            # Pods of one workload have the same labels: their texts are kept once.
            labels={sys.intern(key): sys.intern(value) for key, value in (meta.labels or {}).items()},
        ),
        PodSpec(
            NodeName(sys.intern(spec.node_name)),
            priority=spec.priority,
            containers=tuple(map(_reduced_container, pod.containers)),
            init_containers=tuple(map(_reduced_container, pod.init_containers)),
            resources=spec.resources,
            overhead=spec.overhead,
        ),
        PodStatus(
            sys.intern(status.phase),
            nominated_node_name=status.nominated_node_name,
            conditions=None if spec.node_name else status.conditions,  # why it waits
            container_statuses=tuple(filter(_is_running, status.container_statuses or ())),
            init_container_statuses=tuple(filter(_is_running, status.init_container_statuses or ())),
        ),
    )


def reduced_node(node: GpuNode) -> GpuNode:
    """What is kept of a GPUNode, with the texts that many of them share kept once."""
    gpus = tuple(
        msgspec.structs.replace(
            gpu,
            product=sys.intern(gpu.product),
            memory=_one(gpu.memory),
            problem=sys.intern(gpu.problem),
            parent="",
            pending=None,
        )
        for gpu in node.spec.gpus
    )
    return msgspec.structs.replace(
        node,
        spec=msgspec.structs.replace(node.spec, gpus=gpus),
        status=msgspec.structs.replace(
            node.status, isolation=None, sharing=slim(node.status.sharing), usage=_reduced_usage(node), usage_time=None
        ),
    )


def _reduced_usage(node: GpuNode) -> tuple[UsedMemory, ...] | None:
    """What pods use of each GPU, whichever of their containers does, with the names that the object has anyway."""
    if node.status.usage is None:
        return None
    gpus = {gpu.uuid: gpu.uuid for gpu in node.spec.gpus}
    uids = {grant.pod_uid: grant.pod_uid for grant in node.status.grants}
    used: Counter[tuple[PodUid, GpuUuid]] = Counter()
    for one in node.status.usage:
        used[uids.get(one.pod_uid, one.pod_uid), gpus.get(one.gpu, one.gpu)] += one.used
    return tuple(UsedMemory(uid, "", gpu, Mib(size)) for (uid, gpu), size in used.items())


def reduced_host(node: Node) -> Node:
    """What is kept of a Node: how much CPU and memory pods may have there."""
    found = node.status.allocatable if node.status else None
    kept = {name: amount for name, amount in found.items() if name in ("cpu", "memory")} if found else None
    meta = ObjectMeta(name=node.metadata.name, uid=node.metadata.uid, resource_version=node.metadata.resource_version)
    return Node(meta, NodeStatus(allocatable=kept))


def load_of(pod: Pod) -> HostAmount:
    """The CPU and memory for which kube-scheduler counts a pod; nothing once its phase says that it has ended."""
    return NOTHING if pod.is_terminal else host_request_of(pod)


def bound_claim(pod: Pod) -> Claim | None:
    """What a pod claims by the plan that its Binding carried; None where it is not bound, or not by fracgpu.

    Whoever may edit a pod may edit its annotation, so a plan is believed only as far as it is what the pod asks for:
    the same containers, each with as many units or seats as its limit says.
    """
    if not pod.spec.node_name or pod.allocation is None:
        return None
    try:
        plan = decode_plan(pod.allocation)
        if not _is_asked_for(plan, pod):
            raise PlanError("the allocation annotation is not what the pod's limits ask for")
    except InputError as exc:
        _logger.warning("allocation annotation ignored", extra={"pod": pod.key, "error": str(exc)})
        return None
    return Claim(pod.uid, pod.metadata.namespace, pod.metadata.name, pod.spec.node_name, ClaimState.BOUND, plan)


def _is_asked_for(plan: Plan, pod: Pod) -> bool:
    """Whether a plan gives the pod's containers as many units or seats as their limits say."""
    asked = {
        container.name: (parse_count(container.limit(RESOURCE_MEMORY)), parse_count(container.limit(RESOURCE_REPLICA)))
        for container in (*pod.containers, *pod.init_containers)
        if gpu_resource_names(container)
    }
    planned = {}
    for name, shares in plan.containers.items():
        units, seats = sum(share.units for share in shares), sum(share.seats for share in shares)
        planned[name] = (0 if seats else units, seats)  # seats take their units with them, which no limit counts
    return asked == planned


def asks_gpu(pod: Pod) -> bool:
    """Whether a pod is any of fracgpu's business: it has a plan, or a container that names one of our resources."""
    return pod.allocation is not None or any(
        container.limit(name)
        for container in (*pod.containers, *pod.init_containers)
        for name in (RESOURCE_MEMORY, RESOURCE_REPLICA)
    )


def has_ended(pod: Pod) -> bool:
    """Whether a pod that still exists will never use its share again: its phase alone proves nothing."""
    return pod.is_terminal and pod.all_terminated


def nomination_of(pod: Pod) -> Nomination | None:
    """For which node others were evicted so that this pod can run there; None once it is bound, or is ending."""
    node = pod.status.nominated_node_name if pod.status else ""
    if not node or pod.spec.node_name or pod.metadata.deletion_timestamp is not None or pod.is_terminal:
        return None
    try:
        request = request_of(pod)
    except RequestError:
        return None
    return Nomination(NodeName(node), pod.priority, request) if request else None


def granted_claims(node: GpuNode, *, pods: Mapping[str, Pod]) -> Iterable[Claim]:
    """What pods claim by the kubelet's grants.

    Grants with impossible numbers are left out, and those to pods that are known to be on another node: a pod never
    moves, so that is a plugin's mistake, or what somebody writes who has stolen its token.

    Args:
        node: whose grants.
        pods: UID -> pod, as far as they are known.
    """
    for grant in node.status.grants:
        pod = pods.get(grant.pod_uid)
        if pod is not None and pod.spec.node_name not in ("", node.node):
            _logger.error(
                "grant ignored",
                extra={"node": node.node, "uid": grant.pod_uid, "error": f"the pod is on {pod.spec.node_name}"},
            )
            continue
        try:
            check_shares(grant.containers)
        except PlanError as exc:
            _logger.error("grant ignored", extra={"node": node.node, "uid": grant.pod_uid, "error": str(exc)})
            continue
        containers = {
            name: tuple(sorted(shares, key=lambda share: share.gpu)) for name, shares in grant.containers.items()
        }
        plan = Plan(node.spec.memory_unit, containers)
        yield Claim(grant.pod_uid, grant.namespace, grant.name, node.node, ClaimState.BOUND, plan)


def rebuilt_claims(pods: Iterable[Pod], nodes: Iterable[GpuNode]) -> list[Claim]:
    """Everything that is taken, from the API server alone: plans of pods that live, and grants that plugins keep."""
    known: dict[str, Pod] = {pod.uid: pod for pod in pods}
    granted = {claim.uid: claim for node in nodes for claim in granted_claims(node, pods=known)}
    living = {pod.uid: pod for pod in known.values() if not has_ended(pod)}
    repairs = (
        judge(
            Facts(
                entry=None,
                planned=bound_claim(living[uid]) if uid in living else None,
                granted=granted.get(uid),
                ended_at="",
                is_unbound=False,
                node=None,
                is_overdue=False,
            )
        )
        for uid in {**living, **granted}
    )
    return [repair.after for repair in repairs if repair is not None and repair.after is not None]


def _bystander(pod: Pod) -> Pod | None:
    """A pod without a GPU, with nothing but its node and what it takes there."""
    if not pod.spec.node_name or pod.is_terminal:
        return None
    asked = host_request_of(pod)
    if asked == NOTHING:
        return None
    meta = ObjectMeta(uid=pod.uid, resource_version=pod.metadata.resource_version)
    return Pod(meta, PodSpec(NodeName(sys.intern(pod.spec.node_name)), containers=_taking(asked)))


@lru_cache(maxsize=4096)
def _taking(asked: HostAmount) -> tuple[Container, ...]:
    return (Container("", Resources(requests={"cpu": f"{asked.cpu_milli}m", "memory": f"{asked.memory_mib}Mi"})),)


def _reduced_container(container: Container) -> Container:
    limits = ((name, amount) for name in _RESOURCES if (amount := container.limit(name)))
    found = container.resources
    asked = {**(found.limits or {}), **(found.requests or {})} if found else {}
    requests = ((name, asked[name]) for name in ("cpu", "memory") if name in asked)
    return _container(container.name, container.restart_policy, tuple(limits), tuple(requests))


@lru_cache(maxsize=256)
def _one(memory: Mib) -> Mib:
    """The same number: all GPUs of a model have it, each its own object."""
    return memory


@lru_cache(maxsize=4096)  # the pods of one workload have the same containers: they are kept once
def _container(
    name: str,
    restart_policy: str | None,
    limits: tuple[tuple[str, Quantity], ...],
    requests: tuple[tuple[str, Quantity], ...],
) -> Container:
    resources = Resources(dict(limits) or None, dict(requests) or None) if limits or requests else None
    return Container(name, resources, restart_policy)


def _is_running(status: ContainerStatus) -> bool:
    """Only these say anything: see `Pod.all_terminated`."""
    return status.state is not None and status.state.running is not None
