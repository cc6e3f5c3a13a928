"""What becomes of a pod that is about to be created: the order of the steps, each in a module of its own. Pure.

A pod in another tool's language is translated; annotations become limits; whatever may not be is refused; and a pod
that asks for a GPU gets what the administrator wants all of them to have. Taken through once more, it stays as it is.
"""

from dataclasses import dataclass

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

_NO_CLUSTER = Cluster()


@dataclass(frozen=True, slots=True)
class Decision:
    """What to answer.

    Attributes:
        pod: as it is to be; as it came in where it is refused.
        refusal: why the pod is refused, for the person who wrote it; empty for a pod that is let in.
        warnings: what that person should know although the pod is let in.
    """

    pod: AdmittedPod
    refusal: str = ""
    warnings: tuple[str, ...] = ()


def mutate(pod: AdmittedPod, *, namespace: str, policy: Policy, cluster: Cluster = _NO_CLUSTER) -> Decision:
    """Decide on a pod. Any pod gets a decision; nothing is raised.

    Args:
        pod: as it came in.
        namespace: where it is to be; its metadata need not say so yet.
        policy: what the administrator has set.
        cluster: the GPUs that there are, as far as is known.
    """
    rules = policy.rules_in(namespace)
    try:
        original, note = undone(pod)
        check_names(original)
        translation = translated(original, before=note, policy=policy, nvidia_gpu=rules.nvidia_gpu)
    except RequestError as exc:
        return Decision(pod, refusal=str(exc))
    try:
        finished = with_limits(with_default_size(translation.pod, rules=rules), policy=policy)
        request = request_of(finished)
        check_finished(finished, request, policy=policy, rules=rules)
        if request is None:
            return Decision(finished, warnings=translation.warnings)
        holders = {container.container for container in request.containers}
        finished = with_safe_environment(placed(finished, policy=policy), holders=holders, policy=policy)
        warnings = translation.warnings
        if why := why_too_large(request, cluster=cluster, unit=policy.unit):
            if not policy.nodes_may_be_added:
                raise RequestError(why)
            warnings += (f"{why}; the pod waits until a node is added that can hold it",)
    except RequestError as exc:
        understood = f" (so was understood what the pod asks by {translation.origin})" if translation.origin else ""
        return Decision(pod, refusal=f"{exc}{understood}")
    return Decision(finished, warnings=warnings)
