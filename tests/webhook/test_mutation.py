"""What each pod is made of, and what each mistake is told."""

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from fracgpu.quantities import Mib
from fracgpu.requests import ContainerRequest, request_of
from tests.webhook.builders import POLICY, container, patched, pod, typed
from webhook.mutation import mutate
from webhook.patches import patch_for
from webhook.policy import Policy

MEMORY = "fracgpu.io/memory"
REPLICA = "fracgpu.io/replica"
THIRDS = Policy(unit=Mib(512), replicas=3)
FINE = Policy(unit=Mib(512), replicas=100)


@dataclass(frozen=True)
class Admitted:
    pod: dict[str, Any]
    want: tuple[ContainerRequest, ...]
    policy: Policy = POLICY


def units(container: str, units: int, *, gpus: int = 1) -> ContainerRequest:
    return ContainerRequest(container, gpus, units=units, seats=0)


def seats(container: str, seats: int, *, gpus: int = 1, replicas: int | None = 4) -> ContainerRequest:
    return ContainerRequest(container, gpus, units=0, seats=seats, replicas=replicas)


ADMITTED = {
    "a size in Gi": Admitted(pod({"gpu-memory": "4Gi"}), (units("main", 8),)),
    "the same size in Mi": Admitted(pod({"gpu-memory": "4096Mi"}), (units("main", 8),)),
    "a decimal size is rounded up to units": Admitted(pod({"gpu-memory": "500M"}), (units("main", 1),)),
    "a broken size is exact before it is rounded": Admitted(pod({"gpu-memory": "1.5Gi"}), (units("main", 3),)),
    "one byte more than a unit takes two": Admitted(pod({"gpu-memory": "536870913"}), (units("main", 2),)),
    "the smallest size takes a unit": Admitted(pod({"gpu-memory": "1Mi"}), (units("main", 1),)),
    "spaces around a size do no harm": Admitted(pod({"gpu-memory": " 4Gi\n"}), (units("main", 8),)),
    "a smaller unit makes more units": Admitted(
        pod({"gpu-memory": "4Gi"}), (units("main", 16),), policy=Policy(unit=Mib(256), replicas=4)
    ),
    "the largest size, in units that it does not fill": Admitted(
        pod({"gpu-memory": "16Ti"}), (units("main", 16778),), policy=Policy(unit=Mib(1000), replicas=4)
    ),
    "the same size on each of two GPUs": Admitted(
        pod({"gpu-memory": "4Gi", "gpu-count": "2"}), (units("main", 8, gpus=2),)
    ),
    "a fraction is seats": Admitted(pod({"gpu-fraction": "0.25"}), (seats("main", 1),)),
    "a fraction of each of two GPUs": Admitted(
        pod({"gpu-fraction": "0.5", "gpu-count": "2"}), (seats("main", 2, gpus=2),)
    ),
    "the fraction 1 is a whole GPU": Admitted(pod({"gpu-fraction": "1"}), (seats("main", 4),)),
    "a whole GPU where R is no decimal": Admitted(
        pod({"gpu-fraction": "1.0"}), (seats("main", 3, replicas=3),), policy=THIRDS
    ),
    "the first app container is the default": Admitted(
        pod({"gpu-memory": "1Gi"}, container("server"), container("logs")), (units("server", 2),)
    ),
    "another container by name": Admitted(
        pod({"gpu-memory": "1Gi", "container": "server"}, container("logs"), container("server")),
        (units("server", 2),),
    ),
    "a sidecar by name": Admitted(
        pod({"gpu-memory": "1Gi", "container": "proxy"}, init=(container("proxy", restart="Always"),)),
        (units("proxy", 2),),
    ),
    "an ordinary init container beside it asks nothing": Admitted(
        pod({"gpu-memory": "1Gi"}, init=(container("warm", {"cpu": "1"}),)), (units("main", 2),)
    ),
    "a limit that says the same": Admitted(
        pod({"gpu-memory": "4Gi"}, container("main", {MEMORY: 8})), (units("main", 8),)
    ),
    "a request that says the same": Admitted(
        pod({"gpu-memory": "4Gi"}, container("main", requests={MEMORY: "8"})), (units("main", 8),)
    ),
    "other resources stay": Admitted(
        pod({"gpu-memory": "4Gi"}, container("main", {"cpu": "1"}, requests={"cpu": "1"})), (units("main", 8),)
    ),
    "null resources": Admitted(pod({"gpu-memory": "4Gi"}, {"name": "main", "resources": None}), (units("main", 8),)),
    "null limits": Admitted(
        pod({"gpu-memory": "4Gi"}, {"name": "main", "resources": {"limits": None, "requests": None}}),
        (units("main", 8),),
    ),
    "limits written directly": Admitted(pod(None, container("main", {MEMORY: "8"})), (units("main", 8),)),
    "seats written directly go to a GPU of any R": Admitted(
        pod(None, container("main", {REPLICA: "2"})), (seats("main", 2, replicas=None),)
    ),
    "limits written directly over two GPUs": Admitted(
        pod({"gpu-count": "2"}, container("main", {MEMORY: "8"})), (units("main", 4, gpus=2),)
    ),
    "limits written directly, the counted container named": Admitted(
        pod({"gpu-count": "2", "container": "b"}, container("a", {MEMORY: "8"}), container("b", {MEMORY: "6"})),
        (units("a", 8), units("b", 3, gpus=2)),
    ),
    "an annotation for one container and a limit on another": Admitted(
        pod({"gpu-memory": "4Gi", "container": "a"}, container("a"), container("b", {MEMORY: "6"})),
        (units("a", 8), units("b", 6)),
    ),
    "the count speaks of the app container, not of the sidecar": Admitted(
        pod({"gpu-memory": "4Gi", "gpu-count": "2"}, init=(container("proxy", {MEMORY: "1"}, restart="Always"),)),
        (units("proxy", 1), units("main", 8, gpus=2)),
    ),
    "a container that another webhook put in front": Admitted(
        pod({"gpu-memory": "4Gi"}, container("mesh"), container("main", {MEMORY: "8"}, requests={MEMORY: "8"})),
        (units("main", 8),),
    ),
    "harmless environment": Admitted(
        pod({"gpu-memory": "4Gi"}, container(env=("MODEL", "NVIDIA_DRIVER_CAPABILITIES"))), (units("main", 8),)
    ),
    "steering environment in a container without a GPU": Admitted(
        pod({"gpu-memory": "4Gi"}, container("main"), container("logs", env=("NVIDIA_VISIBLE_DEVICES",))),
        (units("main", 8),),
    ),
}

UNTOUCHED = {
    "no annotations at all": pod(),
    "annotations of others": pod({"prometheus.io/scrape": "true", "team.fracgpu.io/x": "y", "fracgpu.iox/y": "z"}),
    "no containers at all": {"metadata": {"name": "p"}, "spec": {"containers": None}},
    "other resources": pod(None, container("main", {"nvidia.com/gpu": "1", "cpu": "500m"})),
    "zero asks nothing": pod(None, container("main", {MEMORY: "0"}, requests={MEMORY: "0"})),
    "zero on an init container asks nothing": pod(init=(container("warm", {MEMORY: 0}),)),
    "steering environment where no GPU is asked": pod(None, container(env=("NVIDIA_VISIBLE_DEVICES",))),
}

REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    # annotations: the size
    "a size without its suffix": (pod({"gpu-memory": "4096"}), ("gpu-memory", "'4096'", "less than 1 MiB", '"4096Mi"')),
    "a size in milli": (pod({"gpu-memory": "4096m"}), ("gpu-memory", "'4096m'", "less than 1 MiB", '"4Gi"')),
    "a size of nothing": (pod({"gpu-memory": "0"}), ("gpu-memory", "'0'", "from 1Mi", '"4Gi"')),
    "a negative size": (pod({"gpu-memory": "-4Gi"}), ("gpu-memory", "'-4Gi'", "from 1Mi")),
    "a size in GB": (pod({"gpu-memory": "4GB"}), ("gpu-memory", "'4GB'", "suffix such as Mi, Gi", '"4Gi"')),
    "a size in words": (pod({"gpu-memory": "four gigs"}), ("gpu-memory", "'four gigs'", '"4Gi"')),
    "an empty size": (pod({"gpu-memory": ""}), ("gpu-memory", "''", '"4Gi"')),
    "not a number": (pod({"gpu-memory": "NaN"}), ("gpu-memory", "'NaN'")),
    "an infinite size": (pod({"gpu-memory": "inf"}), ("gpu-memory", "'inf'")),
    "a size beyond any GPU": (pod({"gpu-memory": "8E"}), ("gpu-memory", "'8E'", "more than any GPU has", "16Ti")),
    "an exponent that would never end": (pod({"gpu-memory": "1e999999999"}), ("gpu-memory", "'1e999999999'")),
    "a very long size": (pod({"gpu-memory": "9" * 10_000}), ("gpu-memory", "999")),
    "digits of another script": (pod({"gpu-memory": "４Gi"}), ("gpu-memory", "'４Gi'")),
    # annotations: the fraction
    "a fraction between two seats": (
        pod({"gpu-fraction": "0.3"}),
        ("gpu-fraction", "'0.3'", "4 seats", "one of 0.25, 0.5, 0.75, 1", '"0.5"'),
    ),
    "a fraction of nothing": (pod({"gpu-fraction": "0"}), ("gpu-fraction", "'0'", "above 0", '"0.25"')),
    "more than one GPU by fraction": (pod({"gpu-fraction": "2"}), ("gpu-fraction", "'2'", "at most 1")),
    "a negative fraction": (pod({"gpu-fraction": "-0.5"}), ("gpu-fraction", "'-0.5'", "above 0")),
    "a percentage": (pod({"gpu-fraction": "25%"}), ("gpu-fraction", "'25%'", '"0.25"')),
    "memory and fraction together": (
        pod({"gpu-memory": "4Gi", "gpu-fraction": "0.5"}),
        ("gpu-memory", "'4Gi'", "gpu-fraction", "'0.5'", "keep one"),
    ),
    # annotations: the count
    "no GPUs": (pod({"gpu-memory": "4Gi", "gpu-count": "0"}), ("gpu-count", "'0'", "from 1 to 64", '"2"')),
    "65 GPUs": (pod({"gpu-memory": "4Gi", "gpu-count": "65"}), ("gpu-count", "'65'", "from 1 to 64")),
    "half a GPU by count": (pod({"gpu-memory": "4Gi", "gpu-count": "0.5"}), ("gpu-count", "'0.5'")),
    "a model without a size": (pod({"gpu-model": "A100"}), ("gpu-model", "'A100'", "how much", '"4Gi"')),
    "no model": (pod({"gpu-memory": "4Gi", "gpu-model": ","}), ("gpu-model", "','", "1 to 64 names", '"A100, H100-*"')),
    "fewer GPUs named than asked": (
        pod({"gpu-memory": "4Gi", "gpu-count": "2", "gpu-uuid": "GPU-1"}),
        ("gpu-uuid", "fewer GPUs", "name at least 2"),
    ),
    "a count without a size": (pod({"gpu-count": "2"}), ("gpu-count", "'2'", "how much", '"4Gi"')),
    "a count that does not divide the limit": (
        pod({"gpu-count": "3"}, container("main", {MEMORY: "8"})),
        ("'main'", "fracgpu.io/memory: 8", "3 GPUs", "multiple of 3"),
    ),
    # annotations: the container
    "an unknown container": (
        pod({"gpu-memory": "4Gi", "container": "mian"}, container("main"), container("logs")),
        ("fracgpu.io/container", "'mian'", "'main', 'logs'", '"main"'),
    ),
    "an empty container name": (pod({"gpu-memory": "4Gi", "container": ""}), ("fracgpu.io/container", "''", "'main'")),
    "an ordinary init container by name": (
        pod({"gpu-memory": "4Gi", "container": "warm"}, init=(container("warm"), container("proxy", restart="Always"))),
        ("fracgpu.io/container", "'warm'", "init container that ends", "'main', 'proxy'"),
    ),
    "a container without a size": (pod({"container": "main"}), ("fracgpu.io/container", "how much")),
    "a named container that has no limit": (
        pod({"gpu-count": "2", "container": "b"}, container("a", {MEMORY: "8"}), container("b")),
        ("fracgpu.io/container", "'b'", "asks for no GPU", "'a'"),
    ),
    "a pod without containers": (
        {"metadata": {"annotations": {"fracgpu.io/gpu-memory": "4Gi"}}, "spec": {}},
        ("no container",),
    ),
    # annotations: others
    "a misspelt annotation": (
        pod({"gpu-mem": "4Gi"}),
        ("'fracgpu.io/gpu-mem'", "the nearest is fracgpu.io/gpu-memory", '"4Gi"'),
    ),
    "an annotation of another age": (
        pod({"qqq": "4Gi"}),
        ("'fracgpu.io/qqq'", "fracgpu.io/exclude-gpu-uuid, for example"),
    ),
    "a forged plan": (pod({"gpu-memory": "4Gi", "allocation": "{}"}), ("fracgpu.io/allocation", "only fracgpu")),
    # resources
    "a limit that says something else": (
        pod({"gpu-memory": "4Gi"}, container("main", {MEMORY: "4"})),
        ("'main'", "fracgpu.io/memory: '4'", "gpu-memory '4Gi'", "8", "remove one"),
    ),
    "a limit that is no number": (
        pod({"gpu-memory": "4Gi"}, container("main", {MEMORY: "four"})),
        ("'main'", "fracgpu.io/memory: 'four'"),
    ),
    "a fraction, and a limit of seats that says something else": (
        pod({"gpu-fraction": "0.5"}, container("main", {REPLICA: "1"})),
        ("fracgpu.io/replica: '1'", "gpu-fraction '0.5'", "2"),
    ),
    "memory by annotation and seats by limit": (
        pod({"gpu-memory": "4Gi"}, container("main", {REPLICA: "1"})),
        ("both", "'main' fracgpu.io/memory", "'main' fracgpu.io/replica"),
    ),
    "units and seats in two containers": (
        pod(None, container("a", {MEMORY: "4"}), container("b", {REPLICA: "1"})),
        ("both", "'a' fracgpu.io/memory", "'b' fracgpu.io/replica"),
    ),
    "a broken limit": (pod(None, container("main", {MEMORY: "1.5"})), ("'main'", "fracgpu.io/memory: '1.5'", "whole")),
    "a negative limit": (pod(None, container("main", {MEMORY: "-1"})), ("'main'", "'-1'", "at least 0")),
    "a limit beyond the kubelet's counting": (
        pod(None, container("main", {MEMORY: "3e9"})),
        ("'main'", "'3e9'", "more than any node has"),
    ),
    "a limit written in bytes": (
        pod(None, container("main", {MEMORY: "4Gi"})),
        ("'main'", "fracgpu.io/memory: '4Gi'", "units or seats, not bytes"),
    ),
    "a small limit written in bytes": (
        pod(None, container("main", {MEMORY: "512Mi"})),
        ("'main'", "536870912 of fracgpu.io/memory", "units of 512 MiB, not bytes", '"4Gi"'),
    ),
    "more seats than any GPU has": (
        pod(None, container("main", {REPLICA: "1025"})),
        ("'main'", "1025 of fracgpu.io/replica", "at most 1024", '"1"'),
    ),
    "a request unlike the limit": (
        pod(None, container("main", {MEMORY: "8"}, requests={MEMORY: "4"})),
        ("'main'", "requests fracgpu.io/memory: '4'", "limit '8'", "write the limit only"),
    ),
    "a request that is no number": (
        pod(None, container("main", {MEMORY: "8"}, requests={MEMORY: "x"})),
        ("requests fracgpu.io/memory: 'x'",),
    ),
    "a request without a limit": (
        pod(None, container("main", requests={MEMORY: "4"})),
        ("'main'", "requests fracgpu.io/memory: '4'", "no limit"),
    ),
    "a request unlike the annotation": (
        pod({"gpu-memory": "4Gi"}, container("main", requests={MEMORY: "4"})),
        ("requests fracgpu.io/memory: '4'", "limit '8'"),
    ),
    "an ordinary init container with a limit": (
        pod(None, container("main", {MEMORY: "4"}), init=(container("warm", {MEMORY: "8"}),)),
        ("init container 'warm'", "fracgpu.io/memory", "sidecar (restartPolicy: Always)"),
    ),
    "an unknown resource": (
        pod(None, container("main", {"fracgpu.io/mem": "8"})),
        ("'main'", "'fracgpu.io/mem'", "the nearest is fracgpu.io/memory"),
    ),
    "an unknown resource requested only, by an init container": (
        pod(init=(container("warm", requests={"fracgpu.io/x": "8"}),)),
        ("'warm'", "'fracgpu.io/x'", "known are fracgpu.io/memory, fracgpu.io/replica, for example"),
    ),
}  # case -> pod, what the sentence has to contain


@pytest.mark.parametrize("case", ADMITTED.values(), ids=ADMITTED)
def test_pods_that_ask_for_a_gpu(case: Admitted) -> None:
    decision = mutate(typed(case.pod), policy=case.policy)

    assert decision.refusal == ""
    operations = [] if decision.limit is None else patch_for(decision.limit)
    after = typed(patched(case.pod, msgspec.to_builtins(operations)))
    request = request_of(after)
    assert request is not None
    assert request.containers == case.want
    assert mutate(after, policy=case.policy).limit is None, "not idempotent"


@pytest.mark.parametrize("manifest", UNTOUCHED.values(), ids=UNTOUCHED)
def test_pods_that_ask_for_nothing_stay_as_they_are(manifest: dict[str, Any]) -> None:
    decision = mutate(typed(manifest), policy=POLICY)

    assert (decision.refusal, decision.limit) == ("", None)


@pytest.mark.parametrize(("manifest", "want"), REFUSED.values(), ids=REFUSED)
def test_mistakes_are_refused_with_what_was_found_and_what_is_allowed(
    manifest: dict[str, Any], want: tuple[str, ...]
) -> None:
    decision = mutate(typed(manifest), policy=POLICY)

    assert decision.limit is None
    for fragment in want:
        assert fragment in decision.refusal
    assert "\n" not in decision.refusal
    assert len(decision.refusal) < 600


@pytest.mark.parametrize(
    "variable",
    [
        "NVIDIA_VISIBLE_DEVICES",
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_GPU_MEMORY_LIMIT",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT",
        "CUDA_MPS_PIPE_DIRECTORY",
    ],
)
@pytest.mark.parametrize("directly", [True, False])
def test_an_environment_that_would_override_the_plugin_is_refused(variable: str, directly: bool) -> None:
    holder = container("main", {MEMORY: "8"} if directly else None, env=("MODEL", variable))

    decision = mutate(typed(pod(None if directly else {"gpu-memory": "4Gi"}, holder)), policy=POLICY)

    assert f"container 'main' sets '{variable}' in env" in decision.refusal


def test_fractions_that_no_decimal_can_write_are_not_offered() -> None:
    decision = mutate(typed(pod({"gpu-fraction": "0.333"})), policy=THIRDS)

    assert "one of 1 (for other numbers of seats write the limit fracgpu.io/replica yourself)" in decision.refusal


def test_many_allowed_fractions_are_told_as_a_multiple() -> None:
    decision = mutate(typed(pod({"gpu-fraction": "0.333"})), policy=FINE)

    assert 'a multiple of 0.01, for example "0.34"' in decision.refusal


def test_a_later_container_with_the_annotated_limit_is_not_taken_for_a_second_request() -> None:
    """Another webhook, called after us, inserts its container first; then we are called again."""
    first = mutate(typed(pod({"gpu-memory": "4Gi"})), policy=POLICY)
    assert first.limit is not None
    injected = patched(pod({"gpu-memory": "4Gi"}), msgspec.to_builtins(patch_for(first.limit)))
    injected["spec"]["containers"].insert(0, container("mesh-proxy"))

    again = mutate(typed(injected), policy=POLICY)

    assert (again.refusal, again.limit) == ("", None)
