"""What the API server fills into a pod before anybody sees it: pure, from the decoded pod (``shapes``) alone.

Only fields of core/v1 that every pod has on the wire (see the captures in ``tests/``) or that fracgpu's resources
depend on. Volumes, probes, service accounts and PriorityClasses are left out: ``spec.priority`` stays as the author
wrote it, where a real cluster computes it from the class.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from playground.cluster import JsonObject

_TOLERATIONS = [
    {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for state in ("not-ready", "unreachable")
]


def default_pod(pod: JsonObject) -> JsonObject:
    """Return the pod with its defaults; doing it twice changes nothing."""
    spec = {
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
        **default_template(pod)["spec"],
    }
    for kind in ("initContainers", "containers"):
        if kind in spec:
            spec[kind] = [{**entry, "resources": _default_resources(entry["resources"])} for entry in spec[kind]]
    tolerated = {toleration.get("key") for toleration in spec.get("tolerations", [])}
    missing = [toleration for toleration in _TOLERATIONS if toleration["key"] not in tolerated]
    spec["tolerations"] = [*spec.get("tolerations", []), *missing]
    return {**pod, "spec": spec}


def default_template(template: JsonObject) -> JsonObject:
    """Return a workload's pod template with its defaults: fewer than a pod has."""
    spec = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        **template.get("spec", {}),
    }
    for kind in ("initContainers", "containers"):
        if kind in spec:
            spec[kind] = [_default_container(container) for container in spec[kind]]
    return {**template, "spec": spec}


def qos_class(pod: JsonObject) -> str:
    """The quality of service class, from requests and limits of CPU and memory alone."""
    containers = [c.get("resources", {}) for c in all_containers(pod)]
    pairs = [
        (resources.get("requests", {}).get(name), resources.get("limits", {}).get(name))
        for resources in containers
        for name in ("cpu", "memory")
    ]
    if all(request is None and limit is None for request, limit in pairs):
        return "BestEffort"
    if all(request is not None and request == limit for request, limit in pairs):
        return "Guaranteed"
    return "Burstable"


def all_containers(pod: JsonObject) -> Iterator[JsonObject]:
    """Init containers and app containers."""
    spec = pod.get("spec", {})
    yield from spec.get("initContainers", [])
    yield from spec.get("containers", [])


def _default_container(container: JsonObject) -> JsonObject:
    image = str(container.get("image", ""))
    tag = image.rpartition("/")[2].partition(":")[2]
    ports = [{"protocol": "TCP", **port} for port in container.get("ports", [])]
    return {
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "Always" if tag in ("", "latest") and "@" not in image else "IfNotPresent",
        "resources": {},
        **container,
        **({"ports": ports} if ports else {}),
    }


def _default_resources(resources: JsonObject) -> JsonObject:
    quantities = {
        kind: {name: _quantity(value) for name, value in resources.get(kind, {}).items()}
        for kind in ("limits", "requests")
    }
    # A limit without a request asks for as much as it allows.
    quantities["requests"] = {**quantities["limits"], **quantities["requests"]}
    return {**resources, **{kind: amounts for kind, amounts in quantities.items() if amounts}}


def _quantity(value: Any) -> str:
    if isinstance(value, float) and not value.is_integer():
        return f"{round(value * 1000)}m"
    return value if isinstance(value, str) else str(int(value))
