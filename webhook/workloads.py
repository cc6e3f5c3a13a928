"""The pod templates of what makes pods, so that a mistake is told when that is applied. Pure.

A template is judged as the pod that will come of it; what is special to it is only where it stands.
"""

from typing import Final

import msgspec
from msgspec import Struct

from fracgpu.names import ANNOTATION_GPU_MEMORY, DOMAIN
from fracgpu.pods import ObjectMeta
from webhook.pods import AdmittedPod, AdmittedPodSpec

WORKLOADS: Final = (
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "StatefulSet"),
    ("apps", "v1", "DaemonSet"),
    ("batch", "v1", "Job"),
    ("batch", "v1", "CronJob"),
)
"""Group, version and kind of what is judged."""


class _Template(Struct, frozen=True):
    """core/v1 PodTemplateSpec."""

    metadata: ObjectMeta = ObjectMeta()
    spec: AdmittedPodSpec = AdmittedPodSpec()


class _Spec(Struct, frozen=True):
    template: _Template = _Template()


class _Workload(Struct, frozen=True):
    """apps/v1 Deployment and its like, and batch/v1 Job."""

    metadata: ObjectMeta = ObjectMeta()
    spec: _Spec = _Spec()


class _JobTemplate(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: _Spec = _Spec()


class _CronSpec(Struct, frozen=True, rename="camel"):
    job_template: _JobTemplate = _JobTemplate()


class _CronJob(Struct, frozen=True):
    """batch/v1 CronJob."""

    metadata: ObjectMeta = ObjectMeta()
    spec: _CronSpec = _CronSpec()


def pod_template_of(kind: str, content: msgspec.Raw) -> tuple[ObjectMeta, AdmittedPod]:
    """The metadata around the pod template, and the pod that it describes.

    Args:
        kind: one of `WORKLOADS`.
        content: the object as JSON.

    Raises:
        msgspec.DecodeError: it is no such object.
    """
    if kind == "CronJob":
        found = _cron_job_decoder.decode(content)
        job = found.spec.job_template
        metadata, template = found.metadata, job.spec.template
        outer = (metadata.annotations or {}) | (job.metadata.annotations or {})
        metadata = msgspec.structs.replace(metadata, annotations=outer)
    else:
        workload = _workload_decoder.decode(content)
        metadata, template = workload.metadata, workload.spec.template
    return metadata, AdmittedPod(metadata=template.metadata, spec=template.spec)


def why_misplaced(kind: str, metadata: ObjectMeta, pod: AdmittedPod) -> str:
    """What to do about annotations of ours on the workload itself, where nobody reads them; empty where it has none."""
    own = [key for key in metadata.annotations or {} if key.startswith(f"{DOMAIN}/") and key not in pod.annotations]
    if not own:
        return ""
    place = "spec.jobTemplate.spec.template" if kind == "CronJob" else "spec.template"
    return (
        f"annotation {own[0][:128]} stands on the {kind} itself, where it has no effect; write it into "
        f'{place}.metadata.annotations, for example {ANNOTATION_GPU_MEMORY}: "4Gi"'
    )


_workload_decoder = msgspec.json.Decoder(_Workload)
_cron_job_decoder = msgspec.json.Decoder(_CronJob)
