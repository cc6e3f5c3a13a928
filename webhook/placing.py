"""Where a GPU pod may run, and what it gets that leaves something open, as the administrator has set it. Pure."""

import msgspec

from fracgpu.annotations import PodAnnotations, has_size, key_for
from fracgpu.names import (
    ANNOTATION_GPU_FRACTION,
    ANNOTATION_GPU_MEMORY,
    RESOURCE_MEMORY,
    RESOURCE_REPLICA,
)
from webhook.pods import DEFAULT_SCHEDULER, AdmittedPod, Toleration, count_of, limits_of, requests_of
from webhook.policy import Policy, Rules


def with_default_size(pod: AdmittedPod, *, rules: Rules) -> AdmittedPod:
    """A pod that says something about its GPU, and nowhere how much of it, with the size that it gets then."""
    default = rules.default_gpu_memory or rules.default_gpu_fraction
    annotations = PodAnnotations(pod.annotations)
    asked = [annotations.of_pod, *annotations.by_container.values()]
    if not default or not any(asked) or any(map(has_size, asked)):
        return pod
    if any(_holds(pod)):
        return pod
    key = ANNOTATION_GPU_MEMORY if rules.default_gpu_memory else ANNOTATION_GPU_FRACTION
    keys = [key_for(key, name) for name in annotations.by_container] or [key]
    return pod.with_annotations(pod.annotations | dict.fromkeys(keys, default))


def placed(pod: AdmittedPod, *, policy: Policy) -> AdmittedPod:
    """A GPU pod with what the administrator wants every GPU pod to have; what it says itself stands."""
    spec = pod.spec
    if policy.scheduler_name and spec.scheduler_name in ("", DEFAULT_SCHEDULER):
        spec = msgspec.structs.replace(spec, scheduler_name=policy.scheduler_name)
    if policy.runtime_class_name and spec.runtime_class_name is None:
        spec = msgspec.structs.replace(spec, runtime_class_name=policy.runtime_class_name)
    if missing := policy.node_selector.keys() - (spec.node_selector or {}).keys():
        added = {key: policy.node_selector[key] for key in sorted(missing)}
        spec = msgspec.structs.replace(spec, node_selector=(spec.node_selector or {}) | added)
    tolerations = spec.tolerations or ()
    lacking = tuple(wanted for wanted in policy.tolerations if not any(_same(wanted, have) for have in tolerations))
    if lacking:
        spec = msgspec.structs.replace(spec, tolerations=tolerations + lacking)
    return pod if spec is pod.spec else msgspec.structs.replace(pod, spec=spec)


def _holds(pod: AdmittedPod) -> list[str]:
    """The containers that have limits or requests of ours already."""
    return [
        container.name
        for _, _, container in pod.listed()
        for amounts in (limits_of(container), requests_of(container))
        if any(count_of(amounts.get(resource, 0)) != 0 for resource in (RESOURCE_MEMORY, RESOURCE_REPLICA))
    ]


def _same(one: Toleration, other: Toleration) -> bool:
    """Equal, where no operator is Equal."""
    return all(getattr(one, name) == getattr(other, name) for name in ("key", "value", "effect")) and (
        one.operator or "Equal"
    ) == (other.operator or "Equal")
