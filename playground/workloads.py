"""The pods that Kubernetes' controllers would make of a workload: pure, and the same every time.

Names follow the controllers' patterns, with a hash where they draw random letters. There is no controller
afterwards: nothing is replaced, rolled out or started later (of a Job, what would run at first).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from playground.cluster import JsonObject

MAX_PODS = 5000
"""Of one workload: more is a typing mistake."""

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # what Kubernetes uses, so that no words come out


class WorkloadError(ValueError):
    """A workload that cannot be turned into pods; the text says what to change."""


def pods_of(manifest: JsonObject) -> list[JsonObject]:
    """Return the pods that a manifest stands for, itself if it is one.

    Raises:
        WorkloadError: it is of another kind than ``KINDS``, or lacks what its kind needs.
    """
    kind = manifest.get("kind")
    if not isinstance(kind, str) or kind not in _EXPANDERS:
        shown = f"kind {kind}" if kind else "a manifest without kind"
        raise WorkloadError(f"{shown} is not supported; the playground runs {', '.join(_EXPANDERS)} and List")
    version, expand = _EXPANDERS[kind]
    check_manifest(manifest, version=version)
    return expand(manifest)


def check_manifest(manifest: JsonObject, *, version: str) -> None:
    """Check that a manifest of a known kind has that kind's version, and a name.

    Raises:
        WorkloadError: it lacks one of them.
    """
    kind = manifest["kind"]
    if manifest.get("apiVersion") != version:
        raise WorkloadError(f"{kind} must have apiVersion: {version}, not {manifest.get('apiVersion')!r}")
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name") or "", str):
        raise WorkloadError("metadata must be an object with a name")
    if not metadata.get("name") and not (kind == "Pod" and metadata.get("generateName")):
        raise WorkloadError("metadata.name is missing")


def _pod(manifest: JsonObject) -> list[JsonObject]:
    return [manifest]


def _deployment(manifest: JsonObject) -> list[JsonObject]:
    spec, template = _spec(manifest), _template(manifest)
    digest = _letters(json.dumps(template, sort_keys=True, default=str), length=10)
    base = f"{manifest['metadata']['name']}-{digest}"
    return [
        _make(manifest, template, name=_with_suffix(base, index), labels={"pod-template-hash": digest})
        for index in range(_count(spec, "replicas"))
    ]


def _replica_set(manifest: JsonObject) -> list[JsonObject]:
    spec, template = _spec(manifest), _template(manifest)
    base = manifest["metadata"]["name"]
    return [_make(manifest, template, name=_with_suffix(base, index)) for index in range(_count(spec, "replicas"))]


def _stateful_set(manifest: JsonObject) -> list[JsonObject]:
    spec, template = _spec(manifest), _template(manifest)
    base = manifest["metadata"]["name"]
    return [
        _make(
            manifest,
            template,
            name=f"{base}-{index}",
            labels={
                "apps.kubernetes.io/pod-index": str(index),
                "statefulset.kubernetes.io/pod-name": f"{base}-{index}",
            },
        )
        for index in range(_count(spec, "replicas"))
    ]


def _job(manifest: JsonObject) -> list[JsonObject]:
    spec, template = _spec(manifest), _template(manifest)
    base = manifest["metadata"]["name"]
    parallelism = _count(spec, "parallelism")
    # At most `parallelism` run at a time; without completions they are workers on a queue of their own.
    running = min(parallelism, _count(spec, "completions")) if spec.get("completions") is not None else parallelism
    labels = {"job-name": base, "batch.kubernetes.io/job-name": base}
    return [_make(manifest, template, name=_with_suffix(base, index), labels=labels) for index in range(running)]


_EXPANDERS: Mapping[str, tuple[str, Callable[[JsonObject], list[JsonObject]]]] = {
    "Pod": ("v1", _pod),
    "Deployment": ("apps/v1", _deployment),
    "ReplicaSet": ("apps/v1", _replica_set),
    "StatefulSet": ("apps/v1", _stateful_set),
    "Job": ("batch/v1", _job),
}
"""Kind -> (apiVersion, the function that makes its pods)."""

KINDS = tuple(_EXPANDERS)


def _spec(manifest: JsonObject) -> JsonObject:
    spec = manifest.get("spec")
    if not isinstance(spec, dict):
        raise WorkloadError("spec is missing, or not an object")
    return spec


def _template(manifest: JsonObject) -> JsonObject:
    template = _spec(manifest).get("template")
    if not isinstance(template, dict) or not isinstance(template.get("spec"), dict):
        raise WorkloadError("spec.template.spec is missing, or not an object")
    for field in ("labels", "annotations"):
        metadata = template.get("metadata") or {}
        if not isinstance(metadata, dict) or not isinstance(metadata.get(field) or {}, dict):
            raise WorkloadError(f"spec.template.metadata.{field} must be an object")
    return template


def _count(spec: JsonObject, field: str) -> int:
    value: Any = 1 if spec.get(field) is None else spec[field]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_PODS:
        raise WorkloadError(f"spec.{field} must be a whole number from 0 to {MAX_PODS}, not {value!r}")
    return value


def _make(
    manifest: JsonObject, template: JsonObject, *, name: str, labels: Mapping[str, str] | None = None
) -> JsonObject:
    written = template.get("metadata") or {}
    metadata = {**written, "name": name, "labels": {**(written.get("labels") or {}), **(labels or {})}}
    namespace = manifest["metadata"].get("namespace")
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _with_suffix(base: str, index: int) -> str:
    return f"{base}-{_letters(f'{base}/{index}', length=5)}"


def _letters(text: str, *, length: int) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:length])
