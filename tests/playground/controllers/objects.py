"""Short ways to write workloads and their pods as the API server keeps them."""

from __future__ import annotations

import itertools
from typing import Any

_numbers = itertools.count(1)
NOW = "2026-01-01T00:00:00Z"


def make_workload(kind: str, **spec: Any) -> dict[str, Any]:
    """A complete workload called w."""
    labels = {"app": "w"}
    whole = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "x"}]}},
        **spec,
    }
    metadata = {"name": "w", "namespace": "default", "uid": f"uid-{next(_numbers)}", "generation": 1}
    version = "batch/v1" if kind == "Job" else "apps/v1"
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": whole, "status": {}}


def make_pod(
    name: str, *, ready: bool = False, phase: str = "Pending", ending: bool = False, **metadata: Any
) -> dict[str, Any]:
    """A pod; a ready one is bound and runs."""
    own = {"name": name, "namespace": "default", "uid": f"uid-{next(_numbers)}", "creationTimestamp": NOW, **metadata}
    if ending:
        own["deletionTimestamp"] = NOW
    conditions = [{"type": "Ready", "status": "True"}] if ready else []
    status = {"phase": "Running" if ready else phase, "conditions": conditions}
    return {"kind": "Pod", "metadata": own, "spec": {"nodeName": "n1"} if ready else {}, "status": status}


def names(objects: Any) -> list[str]:
    """The names of objects."""
    return [obj["metadata"].get("name", "") for obj in objects]
