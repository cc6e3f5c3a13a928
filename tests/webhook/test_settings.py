"""Flags and the file, and the policy that they come to."""

from fractions import Fraction
from pathlib import Path

import pytest

from fracgpu.errors import SettingError
from webhook.file import load_settings
from webhook.pods import Toleration
from webhook.policy import DIALECTS

TLS = ("--tls-cert=c", "--tls-key=k")


def test_without_settings_everything_is_understood_and_nothing_is_added() -> None:
    _, policy = load_settings(TLS)

    assert policy.dialects == frozenset(DIALECTS)
    assert (policy.compute_shares, policy.steering_env, policy.env_from) == ("seats", "refuse", "refuse")
    assert (policy.scheduler_name, policy.runtime_class_name, policy.node_selector) == ("", "", {})
    assert policy.rules_in("team-a").nvidia_gpu == "leave"
    assert not policy.reads_nvidia_gpu
    assert policy.nodes_may_be_added


def test_flags() -> None:
    flags = (
        "--dialects=hami,kai",
        "--scheduler-name=fracgpu-scheduler",
        "--node-selector=pool=gpu,nvidia.com/gpu.present=true",
        "--tolerations=nvidia.com/gpu:NoSchedule,team=a:NoExecute,spot",
        "--max-gpu-memory=40Gi",
        "--max-gpu-fraction=0.5",
        "--no-nodes-may-be-added",
    )

    _, policy = load_settings((*TLS, *flags))

    assert policy.dialects == {"hami", "kai"}
    assert policy.scheduler_name == "fracgpu-scheduler"
    assert policy.node_selector == {"pool": "gpu", "nvidia.com/gpu.present": "true"}
    assert policy.tolerations == (
        Toleration("nvidia.com/gpu", "Exists", "", "NoSchedule"),
        Toleration("team", "Equal", "a", "NoExecute"),
        Toleration("spot", "Exists", "", ""),
    )
    assert policy.rules.max_gpu_memory == 40 * 2**30
    assert policy.rules.max_gpu_fraction == Fraction(1, 2)
    assert not policy.nodes_may_be_added


def test_no_dialect() -> None:
    assert load_settings((*TLS, "--dialects=none"))[1].dialects == frozenset()


def test_a_file_says_what_holds_where(tmp_path: Path) -> None:
    file = tmp_path / "webhook.yaml"
    file.write_text(
        """
version: v1alpha1
memoryUnitMiB: 1024
defaultGpuMemory: 2Gi
namespaces:
  - namespaces: [team-a]
    nvidiaGpu: seat
    defaultGpuFraction: 0.5
  - namespaces: team-*
    nvidiaGpu: whole
    maxGpuCount: 2
"""
    )

    _, policy = load_settings((*TLS, f"--config-file={file}"))

    assert policy.unit == 1024
    here, there, elsewhere = map(policy.rules_in, ("team-a", "team-b", "prod"))
    assert (here.nvidia_gpu, there.nvidia_gpu, elsewhere.nvidia_gpu) == ("seat", "whole", "leave")
    assert policy.reads_nvidia_gpu
    assert (here.default_gpu_memory, here.default_gpu_fraction) == ("", "0.5")
    assert (there.default_gpu_memory, elsewhere.default_gpu_memory) == ("2Gi", "2Gi")
    assert (here.max_gpu_count, there.max_gpu_count, elsewhere.max_gpu_count) == (2, 2, None)


WRONG_FLAGS = {
    "an unknown dialect": ("--dialects=hammi", "--dialects"),
    "a size without a suffix": ("--max-gpu-memory=40", "--max-gpu-memory"),
    "a default of nothing": ("--default-gpu-memory=0Gi", "--default-gpu-memory"),
    "a fraction above 1": ("--max-gpu-fraction=2", "--max-gpu-fraction"),
    "no GPUs": ("--max-gpu-count=0", "--max-gpu-count"),
    "a default that is no whole number of seats": ("--default-gpu-fraction=0.3", "4 seats"),
    "no label": ("--node-selector=pool", "KEY=VALUE"),
    "no taint": ("--tolerations=nvidia.com/gpu:Never", "NoSchedule"),
    "no name": ("--scheduler-name=My_Scheduler", "--scheduler-name"),
}


@pytest.mark.parametrize(("flag", "want"), WRONG_FLAGS.values(), ids=WRONG_FLAGS)
def test_a_wrong_flag_is_a_sentence(flag: str, want: str) -> None:
    with pytest.raises(SettingError) as caught:
        load_settings((*TLS, flag))
    assert want in str(caught.value)


WRONG_FILES = {
    "no version": ("memoryUnitMiB: 512", "version is missing; it must be v1alpha1"),
    "an unknown key": ("version: v1alpha1\nmemoryUnit: 512", "memoryUnit"),
    "namespaces that are no list": ("version: v1alpha1\nnamespaces: {a: b}", "namespaces is"),
    "an entry that is none": ("version: v1alpha1\nnamespaces: [team-a]", "namespaces[0] is 'team-a'"),
    "an entry without namespaces": ("version: v1alpha1\nnamespaces: [{nvidiaGpu: seat}]", "namespaces[0].namespaces"),
    "an entry for no namespace": ("version: v1alpha1\nnamespaces: [{namespaces: []}]", "namespaces[0].namespaces"),
    "an unknown rule": (
        "version: v1alpha1\nnamespaces: [{namespaces: a, maxGpus: 2}]",
        "namespaces[0] has an unknown key 'maxGpus'",
    ),
    "a rule of the wrong kind": (
        "version: v1alpha1\nnamespaces: [{namespaces: a, nvidiaGpu: all}]",
        "namespaces[0].nvidiaGpu is 'all'",
    ),
    "both defaults": (
        "version: v1alpha1\nnamespaces: [{namespaces: a, defaultGpuMemory: 1Gi, defaultGpuFraction: 1}]",
        "namespaces[0].defaultGpuMemory ('1Gi') and namespaces[0].defaultGpuFraction ('1')",
    ),
}


@pytest.mark.parametrize(("content", "want"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_wrong_file_is_a_sentence_that_names_it(content: str, want: str, tmp_path: Path) -> None:
    file = tmp_path / "webhook.yaml"
    file.write_text(content)

    with pytest.raises(SettingError) as caught:
        load_settings((*TLS, f"--config-file={file}"))

    assert str(file) in str(caught.value)
    assert want in str(caught.value)
