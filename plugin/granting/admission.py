"""Who is being admitted: which container of which pod the kubelet is asking devices for right now.

Pure. The kubelet's device calls carry no pod identity, but it admits one pod at a time, and PodResources lists that
pod already, without the devices that its plan names (seen on Kubernetes 1.36; before 1.34 it lists pods that were
refused as well). Within a pod the kubelet goes through sidecars, then app containers, in the order of the manifest.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from fracgpu.errors import FracgpuError, InputError
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid, PodUid
from fracgpu.plans import decode_plan
from fracgpu.pods import Pod
from fracgpu.quantities import Mib
from fracgpu.requests import request_of
from plugin.granting.listing import Listing


class AdmissionError(FracgpuError):
    """A container must not get the devices that the kubelet asked for; the sentence appears in the pod's status."""

    reason = "AdmissionRefused"


@dataclass(frozen=True, slots=True)
class Claim:
    """What one container may be given.

    Attributes:
        pod: whose container it is.
        container: its name; empty in a claim with a `problem`.
        resource: fracgpu.io/memory or fracgpu.io/replica; empty in a claim with a `problem`.
        size: how many device IDs, over all GPUs.
        gpus: over how many GPUs they are split evenly; of no meaning with a plan.
        planned: GPU -> device IDs on it, by the pod's plan; empty for a pod without a plan.
        units: GPU -> memory units of it, by the pod's plan, also where it counts in seats; empty without a plan.
        unit: the memory unit, in MiB, of the plan; None without a plan.
        replicas: only GPUs with this replica count will do; None where any will.
        problem: why this pod can have nothing; empty for a sound claim.
    """

    pod: Pod
    container: str = ""
    resource: str = ""
    size: int = 0
    gpus: int = 1
    planned: Mapping[GpuUuid, int] = field(default_factory=dict)
    units: Mapping[GpuUuid, int] = field(default_factory=dict)
    unit: Mib | None = None
    replicas: int | None = None
    problem: str = ""


def claims_of(pod: Pod) -> tuple[Claim, ...]:
    """What the containers of a pod may be given, in the kubelet's order; empty for a pod without GPUs.

    The plan decides; a pod without one bypassed the extender, and its limits decide. Where neither can be read the
    answer is one claim with the `problem`.
    """
    try:
        return tuple(_planned(pod, pod.allocation) if pod.allocation is not None else _asked(pod))
    except InputError as exc:
        return (Claim(pod, problem=f"pod {pod.key}: {exc}"),)


def wants_gpu(pod: Pod) -> bool:
    """Whether a pod has, or asks for, a share of a GPU."""
    return bool(claims_of(pod))


def waiting_claims(pods: Iterable[Pod], listing: Listing) -> list[Claim]:
    """The next claim of each of these pods that the kubelet lists without the devices for it."""
    listed = {entry.key: entry for entry in listing}
    waiting: list[Claim] = []
    for pod in pods:
        entry = listed.get(pod.key)
        if entry is None:
            continue
        for claim in claims_of(pod):
            if not (entry.has_devices if claim.problem else entry.ids(claim.container, claim.resource)):
                waiting.append(claim)
                break
    return waiting


def ungranted_claims(pods: Iterable[Pod], *, is_granted: Callable[[PodUid, str], bool]) -> list[Claim]:
    """The next claim of each of these pods that has no grant: the guess where PodResources does not answer.

    `is_granted` tells whether a pod's container has a grant.
    """
    claims = ([claim for claim in claims_of(pod) if not is_granted(pod.uid, claim.container)] for pod in pods)
    return [waiting[0] for waiting in claims if waiting]


def under_admission(
    claims: Iterable[Claim],
    resource: str,
    *,
    size: int,
    given: Mapping[GpuUuid, int] | None,
    refused: Collection[PodUid],
) -> Claim | None:
    """The claim that the kubelet is asking for; None where it cannot be any of these.

    With one claim there is nothing to choose, whatever its size: a contradiction is told apart later. Among several
    the one that fits best what is asked, then one not refused before, then the oldest pod.

    Args:
        claims: those waiting.
        resource: what the kubelet asks for.
        size: how many devices it asks for.
        given: GPU -> devices that the kubelet has chosen; None while it has not.
        refused: pods that this plugin refused; older kubelets still list them for a moment.
    """

    def unlikeliness(claim: Claim) -> tuple[bool, bool, bool, str, str]:
        created = claim.pod.metadata.creation_timestamp or ""
        off_plan = bool(given and claim.planned) and claim.planned != given
        return (not fits(claim, size=size), off_plan, claim.pod.uid in refused, created, claim.pod.uid)

    return min((claim for claim in claims if claim.resource in (resource, "")), key=unlikeliness, default=None)


def fits(claim: Claim, *, size: int) -> bool:
    """Whether a claim is one for so many devices; one with a problem may be for any number."""
    return bool(claim.problem) or claim.size == size


def _planned(pod: Pod, text: str) -> Iterable[Claim]:
    plan = decode_plan(text)
    for container in (*pod.init_containers, *pod.containers):
        shares = plan.containers.get(container.name)
        if not shares:
            continue
        is_seats = any(share.seats for share in shares)
        planned = {share.gpu: share.seats if is_seats else share.units for share in shares}
        yield Claim(
            pod,
            container.name,
            RESOURCE_REPLICA if is_seats else RESOURCE_MEMORY,
            size=sum(planned.values()),
            gpus=len(planned),
            planned=planned,
            units={share.gpu: share.units for share in shares},
            unit=plan.unit,
        )


def _asked(pod: Pod) -> Iterable[Claim]:
    request = request_of(pod)
    for asked in request.containers if request else ():
        yield Claim(
            pod,
            asked.container,
            RESOURCE_REPLICA if asked.seats else RESOURCE_MEMORY,
            size=asked.gpus * (asked.seats or asked.units),
            gpus=asked.gpus,
            replicas=asked.replicas,
        )
