"""What a pod was to get, and what the kubelet gave it: plan and grant compared. Pure."""

from collections.abc import Mapping

from extender.observing import bound_claim
from fracgpu.gpunodes import GpuNode, Grant
from fracgpu.plans import Share
from fracgpu.pods import Pod
from fracgpu.wording import shares_in_words

Shares = Mapping[str, tuple[Share, ...]]
"""Container name -> its shares."""


def planned_shares(pod: Pod) -> Shares | None:
    """What the Binding of the pod says; None where it was not bound by fracgpu, or where that is not to be believed."""
    claim = bound_claim(pod)
    return claim.plan.containers if claim is not None else None


def grant_of(pod: Pod, node: GpuNode) -> Grant | None:
    """What the kubelet gave the pod, by what its node says."""
    return next((grant for grant in node.status.grants if grant.pod_uid == pod.uid), None)


def difference(pod: Pod, node: GpuNode) -> str:
    """How a pod's grant differs from its plan, as a sentence; empty where it does not, or one of the two is missing."""
    planned, grant = planned_shares(pod), grant_of(pod, node)
    if planned is None or grant is None or _sorted(planned) == _sorted(grant.containers):
        return ""
    return f"it was to get {described(planned, node)}, and the kubelet gave {described(grant.containers, node)}"


def described(containers: Shares, node: GpuNode) -> str:
    """Shares for a person: ``4 GiB on GPU 0 (NVIDIA L4) of node-1``."""
    return shares_in_words(containers, unit=node.spec.memory_unit, node=node.node, gpus=node.spec.gpus)


def _sorted(containers: Shares) -> dict[str, list[Share]]:
    return {name: sorted(shares, key=lambda share: share.gpu) for name, shares in containers.items()}
