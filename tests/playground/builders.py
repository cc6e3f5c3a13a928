"""Short ways to write pods and nodes in tests."""

from __future__ import annotations

from typing import Any

MEMORY = "fracgpu.io/memory"


def make_pod(name: str, *, units: int = 0, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """A pod of one container that asks for ``units`` of GPU memory."""
    container: dict[str, Any] = {"name": "main", "image": "app:1"}
    if units:
        container["resources"] = {"limits": {MEMORY: str(units)}}
    metadata = {"name": name, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container], **spec},
    }


def make_node(name: str, *, units: int, **spec: Any) -> dict[str, Any]:
    """A node that offers ``units`` of GPU memory."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": spec,
        "status": {"allocatable": {MEMORY: str(units), "cpu": "8"}},
    }
