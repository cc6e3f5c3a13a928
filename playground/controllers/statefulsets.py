"""StatefulSets: pods with numbers, made and replaced one after the other. Pure.

A changed template replaces pods from the highest number down, as far as ``partition`` says; with OnDelete people do it.
Volume claims of the template are not made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from playground.cluster import JsonObject
from playground.controllers.plans import Plan, is_active, is_ending, is_ready, pod_from, template_hash, wanted

REVISION_LABEL = "controller-revision-hash"


def decide(stateful_set: JsonObject, pods: Sequence[JsonObject]) -> Plan:
    """Say what a StatefulSet needs; ``pods`` are those that belong to it."""
    spec, name = stateful_set["spec"], stateful_set["metadata"]["name"]
    revision = f"{name}-{template_hash(spec['template'])}"
    first = int(spec.get("ordinals", {}).get("start", 0))
    numbers = range(first, first + wanted(spec))
    by_number = {_number(pod): pod for pod in pods}
    status = _status(stateful_set, [by_number[n] for n in numbers if n in by_number], revision)
    if is_ending(stateful_set):
        return Plan(status=status)
    in_order = spec["podManagementPolicy"] == "OrderedReady"
    ended = [pod for pod in pods if not is_active(pod) and not is_ending(pod)]
    if ended:  # its name is needed for the next one
        return Plan(delete=tuple(ended), status=status)
    missing = [number for number in numbers if number not in by_number]
    surplus = sorted((number for number in by_number if number not in numbers), reverse=True)
    unready = [number for number, pod in by_number.items() if is_ending(pod) or not is_ready(pod)]
    if missing:
        if in_order:
            waiting = [number for number in unready if number < missing[0]]
            missing = [] if waiting or any(map(is_ending, pods)) else missing[:1]
        created = tuple(_pod(stateful_set, number, revision) for number in missing)
        return Plan(create=created, status=status)
    if surplus:
        going = [by_number[number] for number in surplus if not is_ending(by_number[number])]
        if in_order:
            going = [] if any(map(is_ending, pods)) else going[:1]
        return Plan(delete=tuple(going), status=status)
    if unready or spec["updateStrategy"]["type"] != "RollingUpdate":
        return Plan(delete=_stuck(by_number, numbers, unready, revision, spec), status=status)
    return Plan(delete=_outdated(by_number, numbers, revision, spec)[:1], status=status)


def _outdated(
    by_number: Mapping[int, JsonObject], numbers: range, revision: str, spec: JsonObject
) -> tuple[JsonObject, ...]:
    """Pods of an earlier template, the highest number first."""
    partition = spec["updateStrategy"].get("rollingUpdate", {}).get("partition", 0)
    pods = [by_number[number] for number in reversed(numbers) if number >= partition]
    return tuple(pod for pod in pods if pod["metadata"].get("labels", {}).get(REVISION_LABEL) != revision)


def _stuck(
    by_number: Mapping[int, JsonObject], numbers: range, unready: Sequence[int], revision: str, spec: JsonObject
) -> tuple[JsonObject, ...]:
    """The pod that never got ready, where a changed template may mend it: nothing else would go on."""
    if spec["updateStrategy"]["type"] != "RollingUpdate":
        return ()
    outdated = _outdated(by_number, numbers, revision, spec)
    return tuple(pod for pod in outdated if _number(pod) in unready and not is_ending(pod))[:1]


def _pod(stateful_set: JsonObject, number: int, revision: str) -> JsonObject:
    name = f"{stateful_set['metadata']['name']}-{number}"
    labels = {
        "apps.kubernetes.io/pod-index": str(number),
        REVISION_LABEL: revision,
        "statefulset.kubernetes.io/pod-name": name,
    }
    spec: JsonObject = {"hostname": name}
    if stateful_set["spec"].get("serviceName"):
        spec["subdomain"] = stateful_set["spec"]["serviceName"]
    return pod_from(stateful_set, name=name, labels=labels, spec=spec)


def _status(stateful_set: JsonObject, pods: Sequence[JsonObject], revision: str) -> JsonObject:
    replicas = wanted(stateful_set["spec"])
    current = [pod for pod in pods if pod["metadata"].get("labels", {}).get(REVISION_LABEL) == revision]
    before = stateful_set.get("status", {})
    ready = sum(is_ready(pod) and not is_ending(pod) for pod in pods)
    is_done = len(current) == len(pods) == replicas and ready == replicas
    counts: JsonObject = {
        "replicas": len(pods),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "updatedReplicas": len(current),
        "updateRevision": revision,
        "currentRevision": revision if is_done else before.get("currentRevision", revision),
        "observedGeneration": stateful_set["metadata"]["generation"],
        "collisionCount": 0,
    }
    is_same = counts["currentRevision"] == revision
    counts["currentReplicas"] = len(current) if is_same else len(pods) - len(current)
    return counts


def _number(pod: JsonObject) -> int:
    last = pod["metadata"]["name"].rpartition("-")[2]
    return int(last) if last.isdecimal() else -1
