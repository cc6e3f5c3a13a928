"""What a pod's user is told by events: which GPUs it was assigned, and that it has others than it was. Pure.

That a pod waits, or others were evicted for it, is said by kube-scheduler itself, in this extender's words.
"""

from typing import Final

from extender.reconciling import Drift, Repair
from fracgpu.gpunodes import GpuNode
from fracgpu.plans import Plan
from fracgpu.wording import shares_in_words

COMPONENT: Final = "fracgpu-extender"
ASSIGNED: Final = "GpuAssigned"
CORRECTED: Final = "GpuShareCorrected"


def plan_in_words(plan: Plan, *, node: str, known: GpuNode | None) -> str:
    """Which GPUs a plan gives; `known` is what is known of that node's."""
    return shares_in_words(plan.containers, unit=plan.unit, node=node, gpus=known.spec.gpus if known else ())


def why_corrected(repair: Repair, *, known: GpuNode | None) -> str:
    """A sentence for the user of a pod that holds other shares than it was assigned; empty where it does not.

    Args:
        repair: of the ledger.
        known: what is known of the GPUs of the node that the pod is on.
    """
    if repair.after is None or repair.drift not in (Drift.UNKNOWN_POD, Drift.OFF_PLAN):
        return ""
    has = plan_in_words(repair.after.plan, node=repair.after.node, known=known)
    if repair.before is None:
        return f"The pod has {has}, which were not assigned to it by fracgpu; they count as taken from now on."
    assigned = plan_in_words(repair.before.plan, node=repair.before.node, known=known)
    return f"The pod has {has}, and not {assigned}, as it was assigned; what it has counts as taken from now on."
