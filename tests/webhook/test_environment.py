"""Variables that would choose other GPUs or lift limits: refused, removed, or harmless."""

from dataclasses import replace
from typing import Any

import pytest

from tests.webhook.builders import POLICY, container, decide, pod

MEMORY = "fracgpu.io/memory"
REMOVING = replace(POLICY, steering_env="remove")
ALLOWING = replace(POLICY, env_from="allow")
STEERING = (
    "NVIDIA_VISIBLE_DEVICES",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "CUDA_DISABLE_CONTROL",
    "NVIDIA_GPU_MEMORY_LIMIT",
    "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT",
    "CUDA_MPS_PIPE_DIRECTORY",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
    "CUDA_DEVICE_MEMORY_LIMIT",
    "CUDA_DEVICE_MEMORY_LIMIT_0",
    "CUDA_DEVICE_SM_LIMIT",
    "LD_PRELOAD",
    "LD_AUDIT",
)


@pytest.mark.parametrize("variable", STEERING)
@pytest.mark.parametrize("directly", [True, False])
def test_a_variable_that_would_override_the_plugin_is_refused(variable: str, directly: bool) -> None:
    holder = container("main", {MEMORY: "8"} if directly else None, env=("MODEL", variable))

    refusal = decide(pod(None if directly else {"gpu-memory": "4Gi"}, holder)).refusal

    assert f"container 'main' sets '{variable}' in env" in refusal
    assert ("container's command" if variable.startswith("LD_") else "fracgpu.io/gpu-model") in refusal


@pytest.mark.parametrize("variable", STEERING)
def test_or_removed_where_the_administrator_wants_it_so(variable: str) -> None:
    holder = container(env=("A", variable, "B", variable))

    decided = decide(pod({"gpu-memory": "4Gi"}, holder), policy=REMOVING)

    assert decided.refusal == ""
    assert [each["name"] for each in decided.manifest["spec"]["containers"][0]["env"]] == ["A", "B"]


@pytest.mark.parametrize(
    "variable", ["CUDA_HOME", "NVIDIA_DRIVER_CAPABILITIES", "LD_LIBRARY_PATH", "XNVIDIA_VISIBLE_DEVICES", "cuda_mps_x"]
)
def test_other_variables_stay(variable: str) -> None:
    assert decide(pod({"gpu-memory": "4Gi"}, container(env=(variable,)))).refusal == ""


@pytest.mark.parametrize("value", ["all", "0", "GPU-1", "void,all", " void"])
@pytest.mark.parametrize("place", ["containers", "initContainers"])
def test_the_other_containers_of_the_pod_see_no_gpu(value: str, place: str) -> None:
    """With NVIDIA's runtime as the default the variable alone shows a container every GPU of the node."""
    thief = container("thief", env={"NVIDIA_VISIBLE_DEVICES": value})
    manifest = pod({"gpu-memory": "4Gi"}, container(), *([thief] if place == "containers" else []))
    if place == "initContainers":
        manifest["spec"]["initContainers"] = [thief]

    refused, removed = decide(manifest), decide(manifest, policy=REMOVING)

    assert "container 'thief' sets 'NVIDIA_VISIBLE_DEVICES' in env" in refused.refusal
    assert removed.manifest["spec"][place][-1]["env"] == []


def test_a_value_from_elsewhere_is_not_trusted() -> None:
    thief = container("thief") | {
        "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "y"}}}]
    }

    assert "'thief'" in decide(pod({"gpu-memory": "4Gi"}, container(), thief)).refusal


@pytest.mark.parametrize("value", ["void", "none", ""])
def test_no_gpu_for_a_container_without_one_is_no_mistake(value: str) -> None:
    other = container("other", env={"NVIDIA_VISIBLE_DEVICES": value})

    decided = decide(pod({"gpu-memory": "4Gi"}, container(), other))

    assert decided.refusal == ""
    assert decided.manifest["spec"]["containers"][1] == other


def test_what_the_cluster_set_before_the_pod_was_understood_is_taken_back() -> None:
    """deploy/kustomize/admission/void-visible-devices.yaml runs before the webhook."""
    holder = container(env={"A": "x", "NVIDIA_VISIBLE_DEVICES": "void"})

    decided = decide(pod({"gpu-memory": "4Gi"}, holder))

    assert decided.operations[-1] == {"op": "remove", "path": "/spec/containers/0/env/1"}


def test_pods_without_a_gpu_are_not_judged() -> None:
    assert decide(pod(None, container(env=STEERING))).operations == []


def from_source(kind: str = "configMapRef", *, prefix: str | None = None) -> dict[str, Any]:
    source: dict[str, Any] = {kind: {"name": "settings"}}
    return container() | {"envFrom": [source if prefix is None else source | {"prefix": prefix}]}


@pytest.mark.parametrize("prefix", [None, "", "N", "NVIDIA_", "CUDA_MPS_PI", "CUDA_MPS_PIPE_DIR", "LD_", "L"])
@pytest.mark.parametrize("kind", ["configMapRef", "secretRef"])
def test_variables_that_cannot_be_seen_are_refused(kind: str, prefix: str | None) -> None:
    manifest = pod({"gpu-memory": "4Gi"}, from_source(kind, prefix=prefix))

    refusal = decide(manifest).refusal

    assert f"the {'ConfigMap' if kind == 'configMapRef' else 'Secret'} 'settings'" in refusal
    assert "valueFrom: configMapKeyRef or secretKeyRef" in refusal
    assert decide(manifest, policy=ALLOWING).refusal == ""


@pytest.mark.parametrize("prefix", ["APP_", "NVIDIA_VISIBLE_DEVICES_", "CUDA_X", "nvidia_"])
def test_a_prefix_that_no_such_variable_has_is_no_risk(prefix: str) -> None:
    assert decide(pod({"gpu-memory": "4Gi"}, from_source(prefix=prefix))).refusal == ""


def test_of_a_container_without_a_gpu_only_visible_devices_matter() -> None:
    def other(prefix: str) -> dict[str, Any]:
        return pod({"gpu-memory": "4Gi"}, container(), from_source(prefix=prefix) | {"name": "other"})

    assert decide(other("LD_")).refusal == ""
    assert "NVIDIA_VISIBLE_DEVICES" in decide(other("")).refusal
