"""What controllers tell of their pods, in kube-controller-manager's words. Pure."""

from __future__ import annotations

from playground.cluster import JsonObject


def created(workload: JsonObject, pod: str) -> str:
    """A pod was made."""
    return _of_set(workload, "create", pod, "successful") or f"Created pod: {pod}"


def deleted(workload: JsonObject, pod: str) -> str:
    """A pod was deleted."""
    return _of_set(workload, "delete", pod, "successful") or f"Deleted pod: {pod}"


def refused(workload: JsonObject, pod: str, why: str) -> str:
    """A pod was not let in."""
    return _of_set(workload, "create", pod, f"failed error: {why}") or f"Error creating: {why}"


def _of_set(workload: JsonObject, verb: str, pod: str, outcome: str) -> str:
    """A StatefulSet's sentence; empty for other kinds."""
    if workload["kind"] != "StatefulSet":
        return ""
    return f"{verb} Pod {pod} in StatefulSet {workload['metadata']['name']} {outcome}"
