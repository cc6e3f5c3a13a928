"""What a pod was to get, and what the kubelet gave it: plan and grant compared. Pure."""

from collections.abc import Mapping

from cli.kubectl.wording import listed
from extender.observing import bound_claim
from fracgpu.gpunodes import GpuNode, Grant
from fracgpu.names import GpuUuid
from fracgpu.plans import Share
from fracgpu.pods import Pod
from fracgpu.quantities import format_mib

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
    """Shares for a person: ``4 GiB of GPU 0``."""
    parts = []
    for name, shares in containers.items():
        whose = f" for {name!r}" if len(containers) > 1 else ""
        for share in shares:
            parts.append(f"{format_mib(share.units * node.spec.memory_unit)} of {gpu_name(share.gpu, node)}{whose}")
    return listed(parts, most=16)


def gpu_name(uuid: GpuUuid, node: GpuNode) -> str:
    """``GPU 0``, or the UUID where the node has no such GPU."""
    found = next((gpu.index for gpu in node.spec.gpus if gpu.uuid == uuid), None)
    return uuid if found is None else f"GPU {found}"


def _sorted(containers: Shares) -> dict[str, list[Share]]:
    return {name: sorted(shares, key=lambda share: share.gpu) for name, shares in containers.items()}
