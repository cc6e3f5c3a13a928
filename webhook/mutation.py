"""What becomes of a pod that is about to be created: the order of the steps, each in a module of its own. Pure.

A pod in another tool's language is translated; annotations become limits; whatever may not be is refused; and a pod
that asks for a GPU gets what the administrator wants all of them to have. Taken through once more, it stays as it is.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fracgpu.errors import RequestError
from fracgpu.requests import request_of
from webhook.cards import Cluster, why_too_large
from webhook.checks import check_finished, check_names
from webhook.dialects.notes import undone
from webhook.dialects.translating import translated
from webhook.environment import with_safe_environment
from webhook.limits import with_limits
from webhook.placing import placed, with_default_size
from webhook.pods import AdmittedPod
from webhook.policy import Policy

OWN_LANGUAGE: Final = "fracgpu"
"""What `Decision.language` says of a pod that asks in our own annotations and resources."""

_NO_CLUSTER = Cluster()


class RefusalReason(StrEnum):
    """What kind of mistake a pod is refused for, to be counted: the step that found it."""

    NAME = "Name"
    """An annotation or resource that fracgpu does not know, or that only fracgpu writes."""
    LANGUAGE = "Language"
    """Another tool's manifest that cannot be read, or several languages in one pod."""
    SIZE = "Size"
    """Annotations that cannot become limits."""
    REQUEST = "Request"
    """Limits that contradict themselves or the annotations, or are more than the namespace may ask."""
    ENVIRONMENT = "Environment"
    """A variable that would choose other GPUs or lift limits."""
    TOO_LARGE = "TooLarge"
    """More than any GPU of the cluster could hold."""
    UNREADABLE = "Unreadable"
    """No pod that can be read."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to answer.

    Attributes:
        pod: as it is to be; as it came in where it is refused.
        refusal: why the pod is refused, for the person who wrote it; empty for a pod that is let in.
        reason: the same, to be counted; None for a pod that is let in.
        warnings: what that person should know although the pod is let in.
        language: in which a pod asks for GPUs that is let in: fracgpu, or another tool's dialect; empty where it asks
            for none.
    """

    pod: AdmittedPod
    refusal: str = ""
    reason: RefusalReason | None = None
    warnings: tuple[str, ...] = ()
    language: str = ""


def mutate(pod: AdmittedPod, *, namespace: str, policy: Policy, cluster: Cluster = _NO_CLUSTER) -> Decision:
    """Decide on a pod. Any pod gets a decision; nothing is raised.

    Args:
        pod: as it came in.
        namespace: where it is to be; its metadata need not say so yet.
        policy: what the administrator has set.
        cluster: the GPUs that there are, as far as is known.
    """
    rules = policy.rules_in(namespace)
    step = RefusalReason.LANGUAGE
    try:
        original, note = undone(pod)
        step = RefusalReason.NAME
        check_names(original)
        step = RefusalReason.LANGUAGE
        translation = translated(original, before=note, policy=policy, nvidia_gpu=rules.nvidia_gpu)
    except RequestError as exc:
        return Decision(pod, refusal=str(exc), reason=step)
    try:
        step = RefusalReason.SIZE
        finished = with_limits(with_default_size(translation.pod, rules=rules), policy=policy)
        step = RefusalReason.REQUEST
        request = request_of(finished)
        check_finished(finished, request, policy=policy, rules=rules)
        if request is None:
            return Decision(finished, warnings=translation.warnings)
        step = RefusalReason.ENVIRONMENT
        holders = {container.container for container in request.containers}
        finished = with_safe_environment(placed(finished, policy=policy), holders=holders, policy=policy)
        warnings = translation.warnings
        if why := why_too_large(request, cluster=cluster, unit=policy.unit):
            if not policy.nodes_may_be_added:
                step = RefusalReason.TOO_LARGE
                raise RequestError(why)
            warnings += (f"{why}; the pod waits until a node is added that can hold it",)
    except RequestError as exc:
        understood = f" (so was understood what the pod asks by {translation.origin})" if translation.origin else ""
        return Decision(pod, refusal=f"{exc}{understood}", reason=step)
    return Decision(finished, warnings=warnings, language=translation.dialect or OWN_LANGUAGE)
