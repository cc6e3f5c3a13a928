"""The status that the kubelet writes onto a pod: pure functions from containers to JSON.

Only what schedulers, controllers and people read is there: phase, reason, conditions, container states and the
device IDs with their health (gate ResourceHealthStatus of Kubernetes 1.36). Left out: IP addresses, image IDs, QoS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from playground.cluster import JsonObject
from playground.node.containers import Container, timestamp

IsHealthy = Callable[[str, str], bool]
"""(resource, device ID) -> healthy."""


def rejected(reason: str, message: str) -> JsonObject:
    """Return the status of a pod that admission refused."""
    return {"phase": "Failed", "reason": reason, "message": f"Pod was rejected: {message}"}


def running_or_ended(
    pod: JsonObject, containers: Iterable[Container], *, is_healthy: IsHealthy, final: bool
) -> JsonObject:
    """Return the status of an admitted pod.

    Args:
        pod: the pod as the API server has it.
        containers: the newest container of every name.
        is_healthy: tells a device's health.
        final: whether no container runs any more and none will: the phase becomes Succeeded or Failed.
    """
    by_name = {container.config.name: container for container in containers}
    spec = pod["spec"]
    apps = [container["name"] for container in spec["containers"]]
    ready = all(name in by_name and by_name[name].exit_code is None for name in apps)
    phase = "Running" if any(name in by_name for name in apps) else "Pending"
    if final:
        clean = all(name in by_name and by_name[name].exit_code == 0 for name in apps)
        phase = "Succeeded" if clean else "Failed"
    status: JsonObject = {
        "phase": phase,
        "startTime": pod.get("status", {}).get("startTime") or timestamp(),
        "conditions": _conditions(pod, {"Initialized": True, "Ready": ready, "ContainersReady": ready}),
        "containerStatuses": [
            _container(entry, by_name.get(entry["name"]), is_healthy) for entry in spec["containers"]
        ],
    }
    if spec.get("initContainers"):
        status["initContainerStatuses"] = [
            _container(entry, by_name.get(entry["name"]), is_healthy) for entry in spec["initContainers"]
        ]
    return status


def _conditions(pod: JsonObject, values: dict[str, bool]) -> list[JsonObject]:
    """Return the pod's conditions with these set: a merge patch replaces lists, so the others are repeated."""
    conditions = {entry["type"]: entry for entry in pod.get("status", {}).get("conditions", [])}
    for kind, value in values.items():
        text = str(value)
        if conditions.get(kind, {}).get("status") != text:
            conditions[kind] = {"type": kind, "status": text, "lastTransitionTime": timestamp()}
    return list(conditions.values())


def _container(entry: JsonObject, container: Container | None, is_healthy: IsHealthy) -> JsonObject:
    status: JsonObject = {
        "name": entry["name"],
        "image": entry.get("image", ""),
        "imageID": "",
        "ready": container is not None and container.exit_code is None,
        "started": container is not None and container.exit_code is None,
        "restartCount": container.config.restart_count if container else 0,
    }
    if container is None:
        return status | {"state": {"waiting": {"reason": "PodInitializing"}}}
    status["containerID"] = f"playground://{container.id}"
    if container.exit_code is None:
        status["state"] = {"running": {"startedAt": container.started_at}}
    else:
        status["state"] = {
            "terminated": {
                "exitCode": container.exit_code,
                "reason": "Completed" if container.exit_code == 0 else "Error",
                "startedAt": container.started_at,
                "finishedAt": container.finished_at,
                "containerID": status["containerID"],
            }
        }
    if container.config.device_ids:
        status["allocatedResourcesStatus"] = [
            {
                "name": resource,
                "resources": [
                    {
                        "resourceID": device,
                        "health": "Healthy" if is_healthy(resource, device) else "Unhealthy",
                    }
                    for device in sorted(ids)
                ],
            }
            for resource, ids in sorted(container.config.device_ids.items())
        ]
    return status
