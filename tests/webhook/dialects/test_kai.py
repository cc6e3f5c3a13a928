"""KAI scheduler's manifests: annotations without a domain, for one container."""

from typing import Any

import pytest

from fracgpu.quantities import Mib
from tests.webhook.builders import container, decide
from tests.webhook.dialects.cases import MEMORY, REPLICA, WITHOUT, Becomes, Refused, Untouched, check, note_of, several
from webhook.policy import Policy

COUNT = "gpu-fraction-num-devices"
NAME = "gpu-fraction-container-name"
FOUR = {"main": {MEMORY: "4"}}
HALF = {"main": {REPLICA: "2"}}
BY_MEMORY = {"gpu-memory": "2000Mi"}
BY_FRACTION = {"gpu-fraction": "0.5"}


def kai(notes: dict[str, str], *containers: dict[str, Any], scheduler: str | None = None) -> dict[str, Any]:
    return several(list(containers) or [container()], notes, scheduler=scheduler)


TWO = (container("a"), container("b"))
CASES: dict[str, Becomes | Refused | Untouched] = {
    "MiB become memory": Becomes(kai({"gpu-memory": "2000"}), BY_MEMORY, FOUR),
    "memory on each of two GPUs": Becomes(
        kai({"gpu-memory": "2000", COUNT: "2"}), {**BY_MEMORY, "gpu-count": "2"}, {"main": {MEMORY: "8"}}
    ),
    "a fraction": Becomes(kai({"gpu-fraction": "0.5"}), BY_FRACTION, HALF),
    "a fraction with an exponent": Becomes(kai({"gpu-fraction": "5e-1"}), BY_FRACTION, HALF),
    "a fraction on each of two GPUs": Becomes(
        kai({"gpu-fraction": "0.5", COUNT: "2"}), {**BY_FRACTION, "gpu-count": "2"}, {"main": {REPLICA: "4"}}
    ),
    "a whole GPU": Becomes(kai({"gpu-fraction": "1"}), {"gpu-fraction": "1"}, {"main": {REPLICA: "4"}}),
    "the first container": Becomes(kai({"gpu-memory": "2000"}, *TWO), BY_MEMORY, {"a": {MEMORY: "4"}}),
    "another container": Becomes(
        kai({"gpu-memory": "2000", NAME: "b"}, *TWO), {**BY_MEMORY, "container": "b"}, {"b": {MEMORY: "4"}}
    ),
    "a sidecar": Becomes(
        several([container()], {"gpu-memory": "2000", NAME: "side"}, init=(container("side", restart="Always"),)),
        {**BY_MEMORY, "container": "side"},
        {"side": {MEMORY: "4"}},
    ),
    "KAI's scheduler": Becomes(
        kai({"gpu-memory": "2000"}, scheduler="kai-scheduler"), BY_MEMORY, FOUR, scheduler="default-scheduler"
    ),
    "run:ai's scheduler, where another is set": Becomes(
        kai({"gpu-memory": "2000"}, scheduler="runai-scheduler"),
        BY_MEMORY,
        FOUR,
        scheduler="ours",
        policy=Policy(unit=Mib(512), replicas=4, scheduler_name="ours"),
    ),
    "a limit that equals the memory": Becomes(
        kai({"gpu-memory": "2000", "gpu-memory.limit": "2000Mi"}), BY_MEMORY, FOUR
    ),
    "a limit that equals the fraction": Becomes(
        kai({"gpu-fraction": "0.5", "gpu-fraction.limit": "0.50"}), BY_FRACTION, HALF
    ),
    "taking turns": Becomes(
        kai({"gpu-memory": "2000", "kai.scheduler/gpu-compute-sharing-mode": "time-slicing"}), BY_MEMORY, FOUR
    ),
    "mps that is not wanted": Becomes(kai({"gpu-memory": "2000", "mps": "false"}), BY_MEMORY, FOUR),
    "three tenths, where a GPU has 10 seats": Becomes(
        kai({"gpu-fraction": "0.3"}),
        {"gpu-fraction": "0.3"},
        {"main": {REPLICA: "3"}},
        policy=Policy(unit=Mib(512), replicas=10),
    ),
    "mps alone": Untouched(kai({"mps": "true"})),
    "switched off": Untouched(kai({"gpu-memory": "2000", COUNT: "2"}, scheduler="kai-scheduler"), WITHOUT),
    "memory and fraction": Refused(
        kai({"gpu-memory": "2000", "gpu-fraction": "0.5"}), ("gpu-memory is '2000' and", "gpu-fraction is '0.5'")
    ),
    "memory of 0": Refused(kai({"gpu-memory": "0"}), ("gpu-memory is '0', which is nothing", '"2000"')),
    "negative memory": Refused(kai({"gpu-memory": "-1"}), ("gpu-memory is '-1'", "above 0")),
    "memory with a suffix": Refused(kai({"gpu-memory": "4Gi"}), ("gpu-memory is '4Gi'", "in MiB", '"2000"')),
    "memory with a blank": Refused(kai({"gpu-memory": " 2000"}), ("gpu-memory is ' 2000'",)),
    "no memory": Refused(kai({"gpu-memory": ""}), ("gpu-memory is ''",)),
    "memory in another script": Refused(kai({"gpu-memory": "２０００"}), ("gpu-memory is",)),
    "memory of more than any GPU": Refused(kai({"gpu-memory": "16777217"}), ("more than any GPU has",)),
    "memory without end": Refused(kai({"gpu-memory": "9" * 5000}), ("gpu-memory is '999",)),
    "a fraction of 0": Refused(kai({"gpu-fraction": "0"}), ("gpu-fraction is '0'", "above 0 and at most 1")),
    "a negative fraction": Refused(kai({"gpu-fraction": "-0.5"}), ("gpu-fraction is '-0.5'",)),
    "more than a GPU": Refused(kai({"gpu-fraction": "1.5"}), ("gpu-fraction is '1.5'",)),
    "a fraction with a suffix": Refused(kai({"gpu-fraction": "500m"}), ("gpu-fraction is '500m'",)),
    "no number": Refused(kai({"gpu-fraction": "NaN"}), ("gpu-fraction is 'NaN'",)),
    "a fraction that is no whole number of seats": Refused(
        kai({"gpu-fraction": "0.3"}), ("gpu-fraction is '0.3'", "0.25, 0.5, 0.75, 1", '"0.5"')
    ),
    "0 GPUs": Refused(kai({"gpu-memory": "2000", COUNT: "0"}), (f"{COUNT} is '0'", "from 1 to 64")),
    "too many GPUs": Refused(kai({"gpu-memory": "2000", COUNT: "65"}), (f"{COUNT} is '65'", "from 1 to 64")),
    "a number of GPUs that is none": Refused(kai({"gpu-memory": "2000", COUNT: "two"}), (f"{COUNT} is 'two'", '"2"')),
    "a number of GPUs alone": Refused(kai({COUNT: "2"}), (f"{COUNT} is set", "add gpu-memory")),
    "a container alone": Refused(kai({NAME: "main"}), (f"{NAME} is set", "nothing says how much")),
    "a limit alone": Refused(kai({"gpu-memory.limit": "2Gi"}), ("gpu-memory.limit is set", "add gpu-memory")),
    "an unknown container": Refused(
        kai({"gpu-memory": "2000", NAME: "c"}, *TWO), (f"{NAME} is 'c'", "'a', 'b'", '"a"')
    ),
    "an ordinary init container": Refused(
        several([container()], {"gpu-memory": "2000", NAME: "warm"}, init=(container("warm"),)),
        ("init container 'warm' asks for a GPU (kai)",),
    ),
    "no container": Refused(several([], {"gpu-memory": "2000"}), ("no container", "spec.containers")),
    "a limit above the memory": Refused(
        kai({"gpu-memory": "2000", "gpu-memory.limit": "4Gi"}), ("gpu-memory.limit is '4Gi' and differs", "remove it")
    ),
    "a limit above the fraction": Refused(
        kai({"gpu-fraction": "0.5", "gpu-fraction.limit": "0.9"}), ("gpu-fraction.limit is '0.9' and differs",)
    ),
    "the limit of the other kind": Refused(
        kai({"gpu-memory": "2000", "gpu-fraction.limit": "0.5"}), ("gpu-fraction.limit is '0.5' and differs",)
    ),
    "a container's ceiling": Refused(
        kai({"gpu-fraction": "0.5", "kai.scheduler/container.main.gpu-memory.portion.limit": "0.9"}),
        ("kai.scheduler/container.main.gpu-memory.portion.limit is '0.9'",),
    ),
    "mps": Refused(kai({"gpu-memory": "2000", "mps": "true"}), ("annotation mps is 'true'", "for the node")),
    "computing side by side": Refused(
        kai({"gpu-memory": "2000", "kai.scheduler/gpu-compute-sharing-mode": "sm-sharing"}), ("'sm-sharing'", "turns")
    ),
    "whole GPUs beside": Refused(
        kai({"gpu-memory": "2000"}, container("main", {"nvidia.com/gpu": 1})),
        ("in several languages: gpu-memory (kai), nvidia.com/gpu (nvidia)", "keep gpu-memory"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_kai(name: str) -> None:
    check(CASES[name], dialect="kai")


def test_a_note_says_what_was_understood_and_which_scheduler_the_pod_named() -> None:
    decided = decide(kai({"gpu-memory": "2000"}, scheduler="kai-scheduler"))

    assert note_of(decided) == {
        "dialect": "kai",
        "means": {"fracgpu.io/gpu-memory": "2000Mi"},
        "schedulerName": "kai-scheduler",
    }
