"""Short words for pods and reviews as kube-apiserver sends them, and a reader of JSON Patches."""

import copy
from base64 import b64decode
from dataclasses import dataclass
from typing import Any

import msgspec

from fracgpu.quantities import Mib
from webhook.cards import Cluster
from webhook.mutation import mutate
from webhook.patches import patch_between
from webhook.pods import AdmittedPod
from webhook.policy import Policy

POLICY = Policy(unit=Mib(512), replicas=4)
NO_GPUS = Cluster()


def container(
    name: str = "main",
    limits: dict[str, Any] | None = None,
    *,
    requests: dict[str, Any] | None = None,
    env: tuple[str, ...] | dict[str, str] = (),
    restart: str = "",
) -> dict[str, Any]:
    """A container as in a manifest; members that are not given are absent."""
    made: dict[str, Any] = {"name": name, "image": "example.com/app:1"}
    resources = {key: value for key, value in (("limits", limits), ("requests", requests)) if value is not None}
    if resources:
        made["resources"] = resources
    if env:
        values = env if isinstance(env, dict) else dict.fromkeys(env, "x")
        made["env"] = [{"name": variable, "value": value} for variable, value in values.items()]
    if restart:
        made["restartPolicy"] = restart
    return made


def pod(
    annotations: dict[str, str] | None = None, *containers: dict[str, Any], init: tuple[dict[str, Any], ...] = ()
) -> dict[str, Any]:
    """A pod as in a manifest, by default with the one container ``main``; short annotation keys are fracgpu's."""
    made: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "team-a"},
        "spec": {"containers": list(containers) or [container()]},
    }
    if annotations is not None:
        made["metadata"]["annotations"] = {
            key if "/" in key else f"fracgpu.io/{key}": value for key, value in annotations.items()
        }
    if init:
        made["spec"]["initContainers"] = list(init)
    return made


def typed(manifest: dict[str, Any]) -> AdmittedPod:
    return msgspec.convert(manifest, AdmittedPod)


@dataclass(frozen=True)
class Decided:
    """What became of a manifest."""

    refusal: str
    warnings: tuple[str, ...]
    operations: list[dict[str, Any]]
    manifest: dict[str, Any]

    @property
    def annotations(self) -> dict[str, str]:
        return self.manifest["metadata"].get("annotations") or {}

    def limits(self, name: str = "main") -> dict[str, Any]:
        """The limits of a container."""
        spec = self.manifest["spec"]
        (found,) = [each for each in spec["containers"] + spec.get("initContainers", []) if each["name"] == name]
        limits: dict[str, Any] = found.get("resources", {}).get("limits") or {}
        return limits


def decide(
    manifest: dict[str, Any], *, policy: Policy = POLICY, namespace: str = "team-a", cluster: Cluster = NO_GPUS
) -> Decided:
    """What the webhook makes of a manifest, with its patch applied; one that was let in stays so on a second look."""
    before = typed(manifest)
    decision = mutate(before, namespace=namespace, policy=policy, cluster=cluster)
    if decision.refusal:
        assert decision.pod is before
        return Decided(decision.refusal, decision.warnings, [], manifest)
    operations = msgspec.to_builtins(patch_between(before, decision.pod))
    after = patched(manifest, operations)
    finished = typed(after)
    assert finished == decision.pod, "the patch does not say what was decided"
    again = mutate(finished, namespace=namespace, policy=policy, cluster=cluster)
    assert again.refusal == ""
    assert patch_between(finished, again.pod) == [], "not idempotent"
    return Decided("", decision.warnings, operations, after)


def review(
    manifest: object, *, operation: str = "CREATE", kind: tuple[str, str, str] = ("", "v1", "Pod")
) -> dict[str, Any]:
    """An AdmissionReview, by default of a pod."""
    return {
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "186e27b2-329a-4841-b7f4-af82ab6cfc1a",
            "kind": dict(zip(("group", "version", "kind"), kind, strict=True)),
            "resource": {"group": kind[0], "version": kind[1], "resource": f"{kind[2].lower()}s"},
            "namespace": "team-a",
            "operation": operation,
            "object": manifest,
            "oldObject": None,
        },
    }


def operations_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    """The JSON Patch of an AdmissionResponse; empty if it has none."""
    if "patch" not in response:
        return []
    assert response["patchType"] == "JSONPatch"
    operations: list[dict[str, Any]] = msgspec.json.decode(b64decode(response["patch"], validate=True))
    return operations


def patched(manifest: dict[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
    """Apply a JSON Patch by RFC 6902, of which ``add`` and ``remove`` are allowed here."""
    result = copy.deepcopy(manifest)
    for operation in operations:
        *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
        place: Any = result
        for part in parents:
            place = place[int(part) if isinstance(place, list) else part]
        if operation["op"] == "remove":
            del place[int(last) if isinstance(place, list) else last]
            continue
        assert operation["op"] == "add"
        if isinstance(place, list):
            assert last == "-"
            place.append(copy.deepcopy(operation["value"]))
        else:
            assert isinstance(place, dict)
            place[last] = copy.deepcopy(operation["value"])
    return result
