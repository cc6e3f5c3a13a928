"""What `doctor` says of the scheduler and its configuration."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from cli.kubectl.checks.scheduler import problems_of
from cli.kubectl.doctor import draw, examine
from cli.kubectl.facts import Read
from cli.kubectl.objects import ConfigMap, ProgramPod
from cli.kubectl.printing import plain
from fracgpu.pods import ObjectMeta
from tests.cli.kubectl.installation import (
    NOW,
    assert_told,
    config_map,
    healthy,
    scheduler_config,
    the_one_problem,
    workload,
)

CASES: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "the scheduler is down": (
        {"scheduler": Read(workload(ready=0))},
        ("fail", "scheduler", "none of 2 pods of fracgpu-scheduler is ready: GPU pods wait"),
    ),
    "the webhook sends pods elsewhere": (
        {"webhook": Read(workload("--memory-unit-mib=512"))},
        (
            "fail",
            "scheduler of GPU pods",
            "the webhook sends GPU pods to default-scheduler, and the scheduler with the extender is fracgpu-scheduler",
        ),
    ),
    "a configuration that is no YAML": (
        {"scheduler_config": Read(ConfigMap(ObjectMeta(name="s"), {"config.yaml": "a: ["}))},
        ("fail", "scheduler configuration", "config.yaml of the scheduler's ConfigMap is no YAML"),
    ),
    "a ConfigMap with something else": (
        {"scheduler_config": config_map({"kind": "Other"})},
        ("fail", "scheduler configuration", "the scheduler's ConfigMap holds no KubeSchedulerConfiguration"),
    ),
}


@pytest.mark.parametrize(("changes", "want"), CASES.values(), ids=CASES)
def test_each_problem_is_found_and_told(changes: dict[str, Any], want: tuple[str, str, str]) -> None:
    assert_told(changes, want)


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"urlPrefix": "http://x:8080"}, "urlPrefix is http://x:8080, in plain text"),
        ({"urlPrefix": "http://me:secret@x:8080"}, "urlPrefix is http://x:8080, in plain text"),
        ({"tlsConfig": None}, "tlsConfig has no client certificate, and urlPrefix no token: all verbs are refused"),
        ({"filterVerb": ""}, "filterVerb is not set: it would not know which nodes have a GPU with room"),
        ({"bindVerb": ""}, "bindVerb is not set: no GPU would be chosen or reserved"),
        ({"preemptVerb": None}, "preemptVerb is not set: the wrong pods would be evicted"),
        ({"ignorable": True}, "ignorable is true: without the extender pods would be bound with no GPU chosen"),
        ({"nodeCacheCapable": False}, "nodeCacheCapable is not true: whole Nodes are sent, 10 KB each"),
        (
            {"managedResources": [{"name": "fracgpu.io/memory"}]},
            "fracgpu.io/replica is not in managedResources: pods that ask for it bypass the extender",
        ),
        (
            {
                "managedResources": [
                    {"name": "fracgpu.io/memory", "ignoredByScheduler": True},
                    {"name": "fracgpu.io/replica"},
                ]
            },
            "fracgpu.io/memory is ignoredByScheduler: nodes without GPUs are candidates too",
        ),
        ({"managedResources": []}, "no extender manages fracgpu.io/memory"),
    ],
)
def test_a_scheduler_configuration_says_one_thing_wrong(change: dict[str, Any], want: str) -> None:
    (problem,) = problems_of(scheduler_config(**change))

    assert problem[0] == want
    assert problem[1]


def test_all_nodes_have_to_be_looked_at() -> None:
    config = scheduler_config() | {"percentageOfNodesToScore": 50}

    (problem,) = problems_of(config)

    assert problem[0].startswith("percentageOfNodesToScore is 50: kube-scheduler may stop looking before")


def test_a_token_in_the_url_is_good_and_never_shown() -> None:
    config = scheduler_config(urlPrefix="https://kube-scheduler:very-secret@fracgpu:8080", tlsConfig=None)
    facts = replace(healthy(), scheduler_config=config_map(config))

    text = plain(draw(examine(facts, now=NOW)))

    assert "asks https://fracgpu:8080 for both resources" in text
    assert "secret" not in text


def kube_scheduler(*command: str) -> ProgramPod:
    return msgspec.convert(
        {
            "metadata": {"name": "kube-scheduler-m1"},
            "spec": {"containers": [{"command": ["kube-scheduler", *command]}]},
        },
        ProgramPod,
    )


@pytest.mark.parametrize(
    ("pods", "want"),
    [
        ([], ("warn", "fracgpu-scheduler is not installed, and no pod of kube-scheduler can be seen in kube-system")),
        ([kube_scheduler()], ("fail", "kube-scheduler-m1 has no --config, so it does not ask the extender")),
        (
            [kube_scheduler("--config=/etc/kubernetes/fracgpu.yaml")],
            ("unknown", "kube-scheduler-m1 reads /etc/kubernetes/fracgpu.yaml on its machine"),
        ),
    ],
)
def test_without_the_charts_scheduler_that_of_the_cluster_is_looked_at(
    pods: list[ProgramPod], want: tuple[str, str]
) -> None:
    facts = replace(healthy(), scheduler=Read(), scheduler_config=Read(), kube_schedulers=Read(pods))

    status, check, found = the_one_problem(facts)

    assert (status, check, found[: len(want[1])]) == (want[0], "scheduler", want[1])
