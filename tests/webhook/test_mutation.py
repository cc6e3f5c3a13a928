"""What each pod is made of, and what each mistake is told."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import pytest

from fracgpu.quantities import Mib
from fracgpu.requests import ContainerRequest, request_of
from fracgpu.selectors import GpuSelector
from tests.webhook.builders import POLICY, container, decide, pod, typed
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
    "no GPU for a container without one": Admitted(
        pod({"gpu-memory": "4Gi"}, container("main"), container("logs", env={"NVIDIA_VISIBLE_DEVICES": "void"})),
        (units("main", 8),),
    ),
    "a preloaded library in a container without a GPU": Admitted(
        pod({"gpu-memory": "4Gi"}, container("main"), container("logs", env=("LD_PRELOAD",))), (units("main", 8),)
    ),
    "a size for each of two containers": Admitted(
        pod({"gpu-memory.a": "4Gi", "gpu-memory.b": "1Gi", "gpu-count.b": "2"}, container("a"), container("b")),
        (units("a", 8), units("b", 2, gpus=2)),
    ),
    "a size for the pod's container and one for another": Admitted(
        pod({"gpu-memory": "4Gi", "gpu-memory.b": "1Gi"}, container("a"), container("b")),
        (units("a", 8), units("b", 2)),
    ),
    "a size for a sidecar": Admitted(
        pod({"gpu-memory.proxy": "1Gi"}, init=(container("proxy", restart="Always"),)), (units("proxy", 2),)
    ),
    "fractions for each of two containers": Admitted(
        pod({"gpu-fraction.a": "0.5", "gpu-fraction.b": "0.25"}, container("a"), container("b")),
        (seats("a", 2), seats("b", 1)),
    ),
    "a count for the only container with a size": Admitted(
        pod({"gpu-memory.b": "4Gi", "gpu-count": "2"}, container("a"), container("b")), (units("b", 8, gpus=2),)
    ),
    "a count for the named one of two containers": Admitted(
        pod(
            {"gpu-memory.a": "4Gi", "gpu-memory.b": "2Gi", "gpu-count": "2", "container": "b"},
            container("a"),
            container("b"),
        ),
        (units("a", 8), units("b", 4, gpus=2)),
    ),
    "a selection for one container and one for all others": Admitted(
        pod(
            {"gpu-memory.a": "4Gi", "gpu-memory.b": "1Gi", "gpu-model": "T4", "gpu-model.b": "A100"},
            container("a"),
            container("b"),
        ),
        (
            replace(units("a", 8), selector=GpuSelector(("T4",))),
            replace(units("b", 2), selector=GpuSelector(("A100",))),
        ),
    ),
    "a card of some size": Admitted(
        pod({"gpu-memory": "4Gi", "min-gpu-memory": "40Gi"}),
        (replace(units("main", 8), selector=GpuSelector(min_memory=40960)),),
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
        ("'fracgpu.io/qqq'", "fracgpu.io/policy, for example"),
    ),
    "a forged plan": (pod({"gpu-memory": "4Gi", "allocation": "{}"}), ("fracgpu.io/allocation", "only fracgpu")),
    "an annotation with capitals in its domain": (
        pod({"FracGPU.io/gpu-memory": "4Gi"}),
        ("'FracGPU.io/gpu-memory'", "the nearest is fracgpu.io/gpu-memory"),
    ),
    "an unknown annotation for a container": (
        pod({"gpu-memroy.main": "4Gi"}),
        ("'fracgpu.io/gpu-memroy.main'", "the nearest is fracgpu.io/gpu-memory"),
    ),
    "an unknown container in an annotation's name": (
        pod({"gpu-memory.mian": "4Gi"}, container("main"), container("logs")),
        ("fracgpu.io/gpu-memory.mian", "'mian'", "no container of this pod", "'main', 'logs'"),
    ),
    "an ordinary init container in an annotation's name": (
        pod({"gpu-memory.warm": "4Gi"}, init=(container("warm"),)),
        ("fracgpu.io/gpu-memory.warm", "init container that ends", "'main'"),
    ),
    "no container in an annotation's name": (pod({"gpu-memory.": "4Gi"}), ("fracgpu.io/gpu-memory.", "'main'")),
    "a container in the name of the pod's policy": (
        pod({"gpu-memory": "4Gi", "policy.main": "spread"}),
        ("fracgpu.io/policy.main", "whole pod"),
    ),
    "two sizes for one container": (
        pod({"gpu-memory": "4Gi", "gpu-memory.main": "2Gi"}),
        ("fracgpu.io/gpu-memory ('4Gi')", "fracgpu.io/gpu-memory.main ('2Gi')", "'main'", "keep one"),
    ),
    "memory and fraction for one container": (
        pod({"gpu-memory.main": "4Gi", "gpu-fraction.main": "0.5"}),
        ("fracgpu.io/gpu-memory.main", "fracgpu.io/gpu-fraction.main", "keep one"),
    ),
    "memory for one container and a fraction for another": (
        pod({"gpu-memory.a": "4Gi", "gpu-fraction.b": "0.5"}, container("a"), container("b")),
        ("both", "'a' fracgpu.io/memory", "'b' fracgpu.io/replica"),
    ),
    "a count for a container without a size": (
        pod({"gpu-memory": "4Gi", "gpu-count.logs": "2"}, container("main"), container("logs")),
        ("fracgpu.io/gpu-count.logs", "'2'", "container 'logs'", 'fracgpu.io/gpu-memory.logs: "4Gi"'),
    ),
    "a count for one of two containers": (
        pod({"gpu-memory.a": "4Gi", "gpu-memory.b": "2Gi", "gpu-count": "2"}, container("a"), container("b")),
        ("fracgpu.io/gpu-count", "'2'", "2 containers ask for GPUs", 'fracgpu.io/gpu-count.a: "2"'),
    ),
    "a count for one of two limits": (
        pod({"gpu-count": "2"}, container("a", {MEMORY: "8"}), container("b", {MEMORY: "8"})),
        ("fracgpu.io/gpu-count", "say whose count", "fracgpu.io/gpu-count.a"),
    ),
    "a policy that is not there": (
        pod({"gpu-memory": "4Gi", "policy": "random"}),
        ("fracgpu.io/policy", "'random'", "binpack, spread"),
    ),
    "a policy without a size": (pod({"policy": "spread"}), ("fracgpu.io/policy", "how much", '"4Gi"')),
    "a card of no size": (
        pod({"gpu-memory": "4Gi", "min-gpu-memory": "80"}),
        ("fracgpu.io/min-gpu-memory", "'80'", "less than 1 MiB", '"80Mi"'),
    ),
    "a note that the system did not write": (
        pod({"gpu-memory": "4Gi", "understood": "everything"}),
        ("fracgpu.io/understood", "'everything'", "only fracgpu writes it"),
    ),
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
        ("'main' requests fracgpu.io/memory: '4'", "gpu-memory '4Gi' makes it 8", "the request"),
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
    decided = decide(case.pod, policy=case.policy)

    assert (decided.refusal, decided.warnings) == ("", ())
    request = request_of(typed(decided.manifest))
    assert request is not None
    assert request.containers == case.want


@pytest.mark.parametrize("manifest", UNTOUCHED.values(), ids=UNTOUCHED)
def test_pods_that_ask_for_nothing_stay_as_they_are(manifest: dict[str, Any]) -> None:
    decided = decide(manifest)

    assert (decided.refusal, decided.warnings, decided.operations) == ("", (), [])


@pytest.mark.parametrize(("manifest", "want"), REFUSED.values(), ids=REFUSED)
def test_mistakes_are_refused_with_what_was_found_and_what_is_allowed(
    manifest: dict[str, Any], want: tuple[str, ...]
) -> None:
    refusal = decide(manifest).refusal

    for fragment in want:
        assert fragment in refusal
    assert "\n" not in refusal
    assert len(refusal) < 700


def test_fractions_that_no_decimal_can_write_are_not_offered() -> None:
    refusal = decide(pod({"gpu-fraction": "0.333"}), policy=THIRDS).refusal

    assert "one of 1 (for other numbers of seats write the limit fracgpu.io/replica yourself)" in refusal


def test_many_allowed_fractions_are_told_as_a_multiple() -> None:
    assert 'a multiple of 0.01, for example "0.34"' in decide(pod({"gpu-fraction": "0.333"}), policy=FINE).refusal


@pytest.mark.parametrize(
    ("annotations", "containers", "want"),
    [
        ({"gpu-memory.b": "4Gi", "gpu-count": "2"}, [("a", {MEMORY: "0"}), ("b", None)], {"b": (2, 8)}),
        ({"gpu-fraction": "0.5"}, [("a", None), ("b", {MEMORY: "0"})], {"a": (1, 2)}),
        (
            {"gpu-fraction.a": "1", "gpu-fraction": "1"},
            [("a", None), ("b", {REPLICA: "4"})],
            {"a": (1, 4), "b": (1, 4)},
        ),
        (
            {"gpu-memory.a": "4Gi", "gpu-memory": "4Gi", "gpu-count": "2"},
            [("a", None), ("c", {MEMORY: "16"})],
            {"a": (1, 8), "c": (2, 8)},
        ),
        ({"gpu-memory.b": "1Gi", "gpu-memory": "4Gi"}, [("a", None), ("b", {MEMORY: "2"})], {"a": (1, 8), "b": (1, 2)}),
    ],
)
def test_what_has_no_name_is_for_the_same_container_whenever_it_is_read(
    annotations: dict[str, str], containers: list[tuple[str, dict[str, Any] | None]], want: dict[str, tuple[int, int]]
) -> None:
    """When limits are made, when they are looked at again, and when they are read as a request."""
    decided = decide(pod(annotations, *(container(name, limits) for name, limits in containers)))

    assert decided.refusal == ""
    assert decide(decided.manifest).operations == []
    request = request_of(typed(decided.manifest))
    assert request is not None
    assert {share.container: (share.gpus, share.units or share.seats) for share in request.containers} == want


def test_a_later_container_with_the_annotated_limit_is_not_taken_for_a_second_request() -> None:
    """Another webhook, called after us, inserts its container first; then we are called again."""
    injected = copy.deepcopy(decide(pod({"gpu-memory": "4Gi"})).manifest)
    injected["spec"]["containers"].insert(0, container("mesh-proxy"))

    again = decide(injected)

    assert (again.refusal, again.operations) == ("", [])
