"""The smallest JSON Patch (RFC 6902) that makes a pod as it came in into the pod as it is to be.

Pure. Only what admission changes is compared: annotations, amounts, environment variables and where the pod may run;
whatever else a pod has is never named in a patch, and so never lost. Requests are written beside limits: kube-apiserver
would default them after a webhook's patch as it does before the first one (apiserver's mutating dispatcher, then
SetDefaults_Pod), but a patch that leaves nothing to a later step is the same everywhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from fracgpu.pods import Quantity
from webhook.pods import AdmittedContainer, AdmittedPod, AdmittedPodSpec, EnvVar, Toleration


class Operation(Struct, frozen=True, omit_defaults=True):
    """One step of a JSON Patch; ``add`` also replaces a member that is there, such as an explicit null."""

    op: str
    path: str
    value: Any = msgspec.UNSET


def patch_between(before: AdmittedPod, after: AdmittedPod) -> list[Operation]:
    """What makes one into the other; nothing where they are equal."""
    return [
        *_of_mapping("/metadata/annotations", before.metadata.annotations, after.metadata.annotations),
        *_of_spec(before.spec, after.spec),
    ]


def _of_spec(before: AdmittedPodSpec, after: AdmittedPodSpec) -> Iterator[Operation]:
    for field, mine, theirs in (
        ("containers", before.containers, after.containers),
        ("initContainers", before.init_containers, after.init_containers),
    ):
        for index, (old, new) in enumerate(zip(mine or (), theirs or (), strict=True)):
            if old is not new:
                yield from _of_container(f"/spec/{field}/{index}", old, new)
    for name, was, becomes in (
        ("schedulerName", before.scheduler_name, after.scheduler_name),
        ("runtimeClassName", before.runtime_class_name, after.runtime_class_name),
    ):
        if was != becomes:
            yield Operation("add", f"/spec/{name}", becomes)
    yield from _of_mapping("/spec/nodeSelector", before.node_selector, after.node_selector)
    added = (after.tolerations or ())[len(before.tolerations or ()) :]
    yield from _of_tolerations(before.tolerations, added)


def _of_container(path: str, before: AdmittedContainer, after: AdmittedContainer) -> Iterator[Operation]:
    if after.resources is not None and before.resources is None:
        members = {"limits": after.resources.limits, "requests": after.resources.requests}
        if any(members.values()):
            yield Operation("add", f"{path}/resources", {name: amounts for name, amounts in members.items() if amounts})
    elif after.resources is not None and before.resources is not None:
        yield from _of_mapping(f"{path}/resources/limits", before.resources.limits, after.resources.limits)
        yield from _of_mapping(f"{path}/resources/requests", before.resources.requests, after.resources.requests)
    yield from _of_env(f"{path}/env", before.env or (), after.env or ())


def _of_mapping(
    path: str, before: Mapping[str, Quantity] | None, after: Mapping[str, Quantity] | None
) -> Iterator[Operation]:
    after = after or {}
    if before is None:
        if after:
            yield Operation("add", path, dict(after))
        return
    for key, value in after.items():
        if before.get(key) != value:
            yield Operation("add", f"{path}/{_escaped(key)}", value)
    for key in before:
        if key not in after:
            yield Operation("remove", f"{path}/{_escaped(key)}")


def _of_env(path: str, before: Sequence[EnvVar], after: Sequence[EnvVar]) -> Iterator[Operation]:
    """Variables are only ever taken out; from the last to the first, so that the places of the others stay."""
    kept = {id(variable) for variable in after}
    for index in range(len(before) - 1, -1, -1):
        if id(before[index]) not in kept:
            yield Operation("remove", f"{path}/{index}")


def _of_tolerations(before: Sequence[Toleration] | None, added: Sequence[Toleration]) -> Iterator[Operation]:
    if before is None and added:
        yield Operation("add", "/spec/tolerations", [msgspec.to_builtins(toleration) for toleration in added])
    else:
        for toleration in added:
            yield Operation("add", "/spec/tolerations/-", msgspec.to_builtins(toleration))


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")  # RFC 6901
