"""Pods out of manifests, as the webhook would let them into a cluster. Pure.

What a pod asks for by annotations, or in another tool's language, becomes limits by the webhook's own code; what it
would refuse is told in its words. An administrator's own rules of the webhook, which are nowhere to be read, are left
out.
"""

import msgspec
from msgspec import Struct

from fracgpu.names import PodUid
from fracgpu.pods import Pod
from playground.cluster import JsonObject
from playground.manifests import Manifests
from webhook.mutation import mutate
from webhook.pods import AdmittedPod
from webhook.policy import Policy


class Wanted(Struct, frozen=True):
    """A pod of a manifest, or what stands in its place.

    Attributes:
        name: ``namespace/name``.
        pod: as it would be let in; None for one that would not be, and for what is no pod.
        refusal: why there is none.
        is_pod: whether it was meant to be one.
    """

    name: str
    pod: Pod | None
    refusal: str = ""
    is_pod: bool = True


def wanted_pods(manifests: Manifests, *, policy: Policy) -> list[Wanted]:
    """Every pod that the manifests stand for, in their order; then what yields none.

    Args:
        manifests: as they were read.
        policy: how the webhook counts.
    """
    pods = [_wanted(found, number, policy) for number, found in enumerate(manifests.pods)]
    return pods + [
        Wanted(refused.name, None, f"left out: {refused.message}", is_pod=False) for refused in manifests.refused
    ]


def _wanted(found: JsonObject, number: int, policy: Policy) -> Wanted:
    name = _name_of(found)
    try:
        pod = msgspec.convert(found, AdmittedPod)
    except msgspec.ValidationError as exc:
        return Wanted(name, None, f"it is not a pod as Kubernetes has them: {exc}")
    namespace, _, short = name.partition("/")
    meta = msgspec.structs.replace(pod.metadata, namespace=namespace, name=short, uid=PodUid(f"wanted-{number}"))
    decision = mutate(msgspec.structs.replace(pod, metadata=meta), namespace=namespace, policy=policy)
    if decision.refusal:
        return Wanted(name, None, f"refused: {decision.refusal}")
    return Wanted(name, decision.pod)


def _name_of(found: JsonObject) -> str:
    """``namespace/name`` of a manifest that may be anything."""
    metadata = found.get("metadata")
    if not isinstance(metadata, dict):
        return "default/"
    return f"{metadata.get('namespace') or 'default'}/{metadata.get('name') or metadata.get('generateName') or ''}"
