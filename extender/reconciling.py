"""What the ledger should say of a pod, from what is known of it: one pure function, for repairs and for rebuilds.

Facts rank: what the kubelet granted is the truth on a node, then the plan that the Binding wrote, then the ledger.
A share is free again only when the plugin, having seen that the pod ended, lists no grant of it (design, release).
"""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from extender.ledger.claims import Claim, ClaimState, Entry
from fracgpu.gpunodes import GpuNode
from fracgpu.plans import Plan


class Drift(StrEnum):
    """Why the ledger is changed outside of a request."""

    CONFIRMED = "confirmed"
    """The Binding is seen to have happened."""
    UNKNOWN_POD = "unknown_pod"
    """A pod holds or is promised a share that the ledger does not know."""
    OFF_PLAN = "off_plan"
    """The kubelet, or another writer, gave other shares than the ledger says."""
    FOREIGN_UNIT = "foreign_unit"
    """A plan counts memory in another unit than its node by now; it is recorded in the node's, rounded up."""
    RELEASED = "released"
    """The pod ended and its share is free."""
    UNSETTLED = "unsettled"
    """A reservation's deadline has passed, or a bound pod is not: the pod has to be read again."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one pod.

    Attributes:
        entry: its claim in the ledger.
        planned: its claim by its annotation, while the pod exists and is bound; see `binding.bound_claim`.
        granted: its claim by the GPUNode status of a node, as long as the plugin keeps the grant.
        ended_at: the resourceVersion at which it was seen to be gone, or terminal with all containers terminated;
            empty while it lives.
        is_unbound: whether the pod is there and has no node, as far as is known.
        node: the GPUNode of the node that the claim is about; None where the cluster has none of that name.
        is_overdue: whether the deadline of its reservation has passed.
    """

    entry: Entry | None
    planned: Claim | None
    granted: Claim | None
    ended_at: str
    is_unbound: bool
    node: GpuNode | None
    is_overdue: bool


@dataclass(frozen=True, slots=True)
class Repair:
    """A change of the ledger: from `before` (None: nothing) to `after` (None: nothing).

    For `Drift.UNSETTLED` the pod is to be read first.
    """

    drift: Drift
    before: Claim | None
    after: Claim | None


def judge(facts: Facts) -> Repair | None:
    """Decide what the ledger has to change about a pod; None where it agrees with the facts."""
    claim = facts.entry.claim if facts.entry else None
    truth = _truth(facts)
    if truth is not None:
        if claim == truth:
            return None
        if _is_foreign(facts):
            return Repair(Drift.FOREIGN_UNIT, claim, truth)
        if claim is None:
            return Repair(Drift.UNKNOWN_POD, None, truth)
        return Repair(Drift.CONFIRMED if claim.bound() == truth else Drift.OFF_PLAN, claim, truth)
    if facts.entry is None or claim is None:
        return None
    if claim.state is ClaimState.HELD:
        # A hold ends by itself; one of a pod that has ended need not wait for that.
        return Repair(Drift.RELEASED, claim, None) if facts.ended_at else None
    if claim.state is ClaimState.BINDING:
        return Repair(Drift.UNSETTLED, claim, None) if facts.is_overdue else None
    if facts.is_unbound:
        # Most likely the news that it is bound is on its way; or the API server was set back to an old state.
        return Repair(Drift.UNSETTLED, claim, None)
    return Repair(Drift.RELEASED, claim, None) if _is_free(facts) else None


def _truth(facts: Facts) -> Claim | None:
    """What the pod takes, from the kubelet and from its plan; None where it may take nothing any more."""
    planned = None if facts.ended_at else facts.planned
    granted = facts.granted
    if planned is not None and facts.node is not None and _is_foreign(facts):
        planned = msgspec.structs.replace(planned, plan=planned.plan.in_unit(facts.node.spec.memory_unit))
    if planned is None or granted is None or granted.node != planned.node:
        return granted or planned
    # The kubelet admits container by container: until it has, the plan speaks for the others.
    containers = {**planned.plan.containers, **granted.plan.containers}
    return Claim(
        planned.uid,
        planned.namespace,
        planned.name,
        planned.node,
        ClaimState.BOUND,
        Plan(planned.plan.unit, containers),
    )


def _is_foreign(facts: Facts) -> bool:
    planned, node = facts.planned, facts.node
    return planned is not None and node is not None and planned.plan.unit != node.spec.memory_unit


def _is_free(facts: Facts) -> bool:
    """Whether the absence of a grant proves that the share is free."""
    if not facts.ended_at:
        return False
    if facts.node is None:
        return True  # the node itself is gone from the cluster, and its GPUs with it
    status = facts.node.status
    # The second where we learned of the end late: the plugin's watch moves on only when something happens on its node.
    return is_at_least(status.observed_pods, facts.ended_at) or (
        facts.entry is not None and facts.entry.claim.uid in status.ended_pods
    )


def is_at_least(resource_version: str, other: str) -> bool:
    """Whether a resourceVersion is not older than another; False where either cannot be compared.

    Resource versions of one resource are whole numbers that grow (Kubernetes KEP-5504, comparable resource version).
    """
    if not (resource_version.isdecimal() and other.isdecimal()):
        return False
    return int(resource_version) >= int(other)
