"""Each check of `doctor`, on what the API server could say."""

import re
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
import yaml

from cli.kubectl.checks.finding import Finding, Status
from cli.kubectl.checks.installed import series
from cli.kubectl.checks.scheduler import problems_of
from cli.kubectl.cluster import Cluster
from cli.kubectl.doctor import draw, examine
from cli.kubectl.facts import CRDS, Facts, Page, Read
from cli.kubectl.objects import (
    ConfigMap,
    Definition,
    Named,
    PolicyBinding,
    Registration,
    SchedulerPod,
    Secret,
    Workload,
)
from cli.kubectl.printing import plain
from fracgpu.nodes import Node, NodeStatus
from fracgpu.pods import ObjectMeta
from tests.cli.kubectl.clusters import cluster, created, gpu, node, placed
from tests.extender.builders import pod

CRD_FILES = Path(__file__).parents[3] / "deploy" / "helm" / "fracgpu" / "files" / "crds"
NOW = datetime.now(UTC)
AUTHORITY = trustme.CA()
STRANGER = trustme.CA()
HOOK_NAME = "fracgpu-webhook.fracgpu-system.svc"


def pem_secret(name: str, *names: str, by: trustme.CA = AUTHORITY, until: datetime | None = None) -> Secret:
    issued = by.issue_cert(*names, not_after=until)
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    content = {"tls.crt": chain, "tls.key": issued.private_key_pem.bytes(), "ca.crt": by.cert_pem.bytes()}
    return Secret(ObjectMeta(name=name), {key: b64encode(value).decode() for key, value in content.items()})


def registration(name: str, *, policy: str = "Fail", by: trustme.CA | None = AUTHORITY, conditions: bool = True) -> Any:
    bundle = b64encode(by.cert_pem.bytes()).decode() if by is not None else None
    service = {"namespace": "fracgpu-system", "name": "fracgpu-webhook"}
    hook = {
        "name": name,
        "clientConfig": {"service": service, "caBundle": bundle},
        "failurePolicy": policy,
        "matchConditions": [{"name": "asks", "expression": "true"}] if conditions else None,
    }
    return msgspec.convert({"metadata": {"name": "fracgpu"}, "webhooks": [hook]}, Registration)


def workload(
    *args: str, ready: int = 2, of: int = 2, selector: dict[str, str] | None = None, **status: int
) -> Workload:
    container = {"name": "main", "args": list(args)}
    return msgspec.convert(
        {
            "metadata": {"name": "x"},
            "spec": {"replicas": of, "template": {"spec": {"containers": [container], "nodeSelector": selector}}},
            "status": {"readyReplicas": ready, **status},
        },
        Workload,
    )


def scheduler_config(**changes: Any) -> dict[str, Any]:
    extender = {
        "urlPrefix": "https://fracgpu-extender.fracgpu-system.svc:8080",
        "filterVerb": "filter",
        "prioritizeVerb": "prioritize",
        "preemptVerb": "preempt",
        "bindVerb": "bind",
        "ignorable": False,
        "nodeCacheCapable": True,
        "tlsConfig": {"certFile": "/etc/fracgpu/tls/tls.crt"},
        "managedResources": [
            {"name": "fracgpu.io/memory", "ignoredByScheduler": False},
            {"name": "fracgpu.io/replica", "ignoredByScheduler": False},
        ],
    }
    extender |= changes
    return {
        "kind": "KubeSchedulerConfiguration",
        "profiles": [{"schedulerName": "fracgpu-scheduler"}],
        "percentageOfNodesToScore": 100,
        "extenders": [extender],
    }


def config_map(config: object) -> Read[ConfigMap]:
    return Read(ConfigMap(ObjectMeta(name="fracgpu-scheduler"), {"config.yaml": yaml.safe_dump(config)}))


def host(name: str, *, labels: dict[str, str] | None = None, offers: dict[str, str] | None = None) -> Node:
    found = {"fracgpu.io/memory": "80", "fracgpu.io/replica": "4"} | (offers or {})
    labels = {"nvidia.com/gpu.present": "true"} if labels is None else labels
    return Node(ObjectMeta(name=name, labels=labels), NodeStatus(allocatable={**found}))


def one_node() -> Cluster:
    held = {"chat": ("GPU-1", 40)}
    return cluster(
        node("node-1", gpu("GPU-1"), held=held, used={"chat": 1024}), placed("chat", "node-1", "GPU-1", units=40)
    )


def definitions() -> dict[str, Read[Definition]]:
    return {
        name: Read(msgspec.convert(yaml.safe_load((CRD_FILES / f"{name}.yaml").read_text()), Definition))
        for name in CRDS
    }


POLICIES = [
    f"{name}.fracgpu.io" for name in ("gpunodes", "pod-annotations", "binding-annotations", "ephemeral-containers")
]


def bindings(*actions: str) -> Read[list[PolicyBinding]]:
    spec = {"validationActions": list(actions)}
    return Read(
        [
            msgspec.convert({"metadata": {"name": name}, "spec": spec | {"policyName": name}}, PolicyBinding)
            for name in POLICIES
        ]
    )


def healthy() -> Facts:
    """Everything as it should be."""
    metrics = 'fracgpu_extender_ledger_state{state="valid"} 1.0\nfracgpu_extender_ledger_state{state="lost"} 0.0\n'
    unit = "--memory-unit-mib=512"
    return Facts(
        definitions=definitions(),
        mutating=Read(registration("pods.fracgpu.io")),
        validating=Read(registration("workloads.fracgpu.io", policy="Ignore")),
        policies=Read([Named(ObjectMeta(name=name)) for name in POLICIES]),
        bindings=bindings("Deny"),
        webhook=Read(workload(unit, "--scheduler-name=fracgpu-scheduler", "--replicas=4")),
        extender=Read(workload(unit)),
        scheduler=Read(workload()),
        plugin=Read(
            workload(unit, desiredNumberScheduled=1, numberReady=1, selector={"nvidia.com/gpu.present": "true"})
        ),
        redis=Read(workload(ready=1, of=1)),
        scheduler_config=config_map(scheduler_config()),
        secrets={
            "webhook": Read(pem_secret("fracgpu-webhook-tls", HOOK_NAME)),
            "extender": Read(pem_secret("fracgpu-extender-tls", "fracgpu-extender.fracgpu-system.svc")),
            "scheduler": Read(pem_secret("fracgpu-scheduler-tls", "fracgpu-scheduler")),
            "plugin": Read(pem_secret("fracgpu-plugin-tls", "fracgpu-plugin.fracgpu-system.svc")),
        },
        readiness={"webhook": Read(Page("ok")), "extender": Read(Page("ok"))},
        metrics=Read(Page(metrics)),
        cluster=Read(one_node()),
        hosts=Read([host("node-1"), host("cpu-1", labels={})]),
    )


def findings(facts: Facts, *, now: datetime = NOW) -> list[Finding]:
    return examine(facts, now=now).findings


def the_one_problem(facts: Facts, *, now: datetime = NOW) -> tuple[str, str, str]:
    """Status, check and what was found of the only line that is not ok."""
    (found,) = [found for found in findings(facts, now=now) if found.status is not Status.OK]
    assert found.mend or found.status is Status.UNKNOWN
    return str(found.status), found.check, found.found


def test_a_healthy_installation_to_the_letter() -> None:
    until = f"{pem_end(healthy()):%Y-%m-%d %H:%M} UTC"

    assert plain(draw(examine(healthy(), now=NOW))) == (
        "ok  custom resource gpunodes.fracgpu.io         serves v1alpha1 with all fields of this version\n"
        "ok  custom resource sharingpolicies.fracgpu.io  serves v1alpha1 with all fields of this version\n"
        "ok  admission policies                          4 policies installed and bound\n"
        "ok  webhook registration                        pods.fracgpu.io, failurePolicy Fail, only GPU pods are sent\n"
        "ok  webhook registration for workloads          workloads.fracgpu.io, failurePolicy Ignore, only GPU pods are "
        "sent\n"
        f"ok  certificate of the webhook                  in force until {until}\n"
        f"ok  certificate of the extender                 in force until {until}\n"
        f"ok  certificate of the scheduler                in force until {until}\n"
        f"ok  certificate of the plugin                   in force until {until}\n"
        "ok  scheduler and extender trust each other     each one's CA verifies the other's certificate\n"
        "ok  webhook pods                                2 of 2 are ready\n"
        "ok  webhook readiness                           says ok\n"
        "ok  extender pods                               2 of 2 are ready\n"
        "ok  extender readiness                          says ok\n"
        "ok  redis pods                                  1 of 1 are ready\n"
        "ok  ledger in Redis                             valid\n"
        "ok  scheduler                                   fracgpu-scheduler, 2 of 2 pods are ready\n"
        "ok  scheduler configuration                     asks https://fracgpu-extender.fracgpu-system.svc:8080 for "
        "both resources, never ignorable, of all nodes\n"
        "ok  scheduler of GPU pods                       the webhook sends GPU pods to fracgpu-scheduler\n"
        "ok  plugin pods                                 1 of 1 are ready\n"
        "ok  GPU nodes                                   1 node with 1 GPU, and all say what is granted\n"
        "ok  offered by kubelets                         fracgpu.io/memory and fracgpu.io/replica on all nodes with "
        "GPUs\n"
        "ok  other device plugins                        no node with GPUs offers nvidia.com/gpu too\n"
        "ok  GPU health                                  all are healthy\n"
        "ok  memory unit                                 512 MiB everywhere\n"
        "ok  seats                                       fractions are of 4 seats\n"
        "ok  pods                                        1 pod with GPUs; plans, grants and use agree\n"
        "\n"
        "27 checks: 0 problems, 0 warnings.\n"
    )
    assert examine(healthy(), now=NOW).healthy


def pem_end(facts: Facts) -> datetime:
    from webhook.certificates.pairs import read_bundle

    secret = facts.secrets["webhook"].value
    assert secret is not None
    return read_bundle(secret.content("tls.crt"))[0].not_valid_after_utc


def test_what_is_wrong_comes_with_what_to_do() -> None:
    report = examine(replace(healthy(), redis=Read(workload(ready=0, of=1))), now=NOW)

    lines = plain(draw(report)).splitlines()

    assert not report.healthy
    assert next(line for line in lines if "redis" in line) == (
        "fail  redis pods                                  none of 1 is ready: GPU pods wait; to mend it: kubectl "
        "describe pods -n fracgpu-system -l app.kubernetes.io/name=fracgpu-redis"
    )
    assert lines[-1] == "27 checks: 1 problem, 0 warnings."


def without_field(name: str, *path: str) -> dict[str, Read[Definition]]:
    """The custom resources, one of which does not know a field."""
    found = definitions()
    crd = yaml.safe_load((CRD_FILES / f"{name}.yaml").read_text())
    place = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in path[:-1]:
        place = place["properties"][part]
    del place["properties"][path[-1]]
    return found | {name: Read(msgspec.convert(crd, Definition))}


def with_secret(part: str, read: Read[Secret]) -> dict[str, Any]:
    return {"secrets": {**healthy().secrets, part: read}}


CASES: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "no custom resource": (
        {"definitions": definitions() | {"gpunodes.fracgpu.io": Read()}},
        ("fail", "custom resource gpunodes.fracgpu.io", "is not installed"),
    ),
    "an older custom resource": (
        {"definitions": without_field("gpunodes.fracgpu.io", "status", "usage")},
        (
            "fail",
            "custom resource gpunodes.fracgpu.io",
            "is of another version: it does not know status.usage, which is lost",
        ),
    ),
    "no policy": (
        {"policies": Read([Named(ObjectMeta(name=name)) for name in POLICIES[1:]])},
        ("warn", "admission policies", "gpunodes.fracgpu.io is not installed"),
    ),
    "a policy that denies nothing": (
        {"bindings": bindings("Audit")},
        ("warn", "admission policies", "no binding makes gpunodes.fracgpu.io, pod-annotations"),
    ),
    "no right to see policies": (
        {"policies": Read(unknown="needs list on validatingadmissionpolicies")},
        ("unknown", "admission policies", "needs list on validatingadmissionpolicies"),
    ),
    "the webhook may be missed": (
        {"mutating": Read(registration("pods.fracgpu.io", policy="Ignore"))},
        (
            "warn",
            "webhook registration",
            "failurePolicy of pods.fracgpu.io is Ignore: GPU pods are let in unread while it is away",
        ),
    ),
    "all pods are sent": (
        {"mutating": Read(registration("pods.fracgpu.io", conditions=False))},
        ("warn", "webhook registration", "pods.fracgpu.io has no matchConditions: all pods depend on it"),
    ),
    "not registered": (
        {"mutating": Read()},
        ("fail", "webhook registration", "there is no MutatingWebhookConfiguration fracgpu: annotations are not read"),
    ),
    "no caBundle": (
        {"mutating": Read(registration("pods.fracgpu.io", by=None))},
        ("fail", "certificate of the webhook", "caBundle of pods.fracgpu.io is empty or unreadable"),
    ),
    "another's caBundle": (
        {"mutating": Read(registration("pods.fracgpu.io", by=STRANGER))},
        ("fail", "certificate of the webhook", "caBundle of pods.fracgpu.io does not verify it"),
    ),
    "a certificate for another name": (
        with_secret("webhook", Read(pem_secret("s", "other.svc"))),
        ("fail", "certificate of the webhook", f"it is for other.svc, and kube-apiserver calls {HOOK_NAME}"),
    ),
    "no certificate yet": (
        with_secret("webhook", Read(Secret(ObjectMeta(name="s")))),
        ("fail", "certificate of the webhook", "there is none yet"),
    ),
    "a key that is none": (
        with_secret("plugin", Read(Secret(ObjectMeta(name="s"), {"tls.crt": "", "tls.key": ""}))),
        ("fail", "certificate of the plugin", "the Secret s cannot be used: the certificate cannot be read"),
    ),
    "the extender does not trust the scheduler": (
        with_secret("scheduler", Read(pem_secret("s", "x", by=STRANGER))),
        (
            "fail",
            "scheduler and extender trust each other",
            "the extender's CA does not verify the scheduler's certificate: all verbs are refused",
        ),
    ),
    "no right to see a Secret": (
        with_secret("plugin", Read(unknown="needs get on secrets/fracgpu-plugin-tls")),
        ("unknown", "certificate of the plugin", "needs get on secrets/fracgpu-plugin-tls"),
    ),
    "one webhook of two": (
        {"webhook": Read(workload("--scheduler-name=fracgpu-scheduler", ready=1))},
        ("warn", "webhook pods", "1 of 2 are ready"),
    ),
    "the extender says why it is not ready": (
        {"readiness": {"extender": Read(Page(problem="the ledger is not readable or not complete yet"))}},
        ("fail", "extender readiness", "says: the ledger is not readable or not complete yet"),
    ),
    "a lost ledger": (
        {"metrics": Read(Page('fracgpu_extender_ledger_state{state="lost"} 1.0\n'))},
        ("fail", "ledger in Redis", "the extender says it is lost"),
    ),
    "overdrawn by the ledger": (
        {"metrics": Read(Page("fracgpu_extender_overdrawn_gpus 2.0\n"))},
        ("fail", "overdrawn GPUs", "more is taken of 2 GPUs than they have"),
    ),
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
    "the plugin runs nowhere": (
        {"plugin": Read(workload("--memory-unit-mib=512", selector={"gpu": "yes"}))},
        ("fail", "plugin pods", "no node has its labels (gpu=yes), so it runs nowhere"),
    ),
    "the plugin runs not where it should": (
        {"plugin": Read(workload("--memory-unit-mib=512", selector={"nvidia.com/gpu.present": "true"}))},
        ("fail", "plugin pods", "there is none, though node-1 has its labels"),
    ),
    "a plugin is down": (
        {
            "plugin": Read(
                workload(
                    "--memory-unit-mib=512",
                    desiredNumberScheduled=3,
                    numberReady=2,
                    selector={"nvidia.com/gpu.present": "true"},
                )
            )
        },
        ("fail", "plugin pods", "2 of 3 are ready: the other nodes offer nothing new"),
    ),
    "a GPU node without a GPUNode": (
        {"hosts": Read([host("node-1"), host("node-2")])},
        ("fail", "GPU nodes", "node-2 has the labels of GPU nodes (nvidia.com/gpu.present=true), and no GPUNode"),
    ),
    "a GPUNode without a Node": (
        {"hosts": Read([host("cpu-1", labels={})])},
        ("warn", "GPU nodes", "node-1 has a GPUNode, and no Node"),
    ),
    "a kubelet offers nothing": (
        {"hosts": Read([host("node-1", offers={"fracgpu.io/memory": "0"})])},
        ("fail", "offered by kubelets", "node-1 has GPUs, and its kubelet offers no fracgpu.io/memory"),
    ),
    "another device plugin": (
        {"hosts": Read([host("node-1", offers={"nvidia.com/gpu": "1"})])},
        ("fail", "other device plugins", "node-1 offers nvidia.com/gpu too: GPUs may be given twice"),
    ),
    "another unit": (
        {"extender": Read(workload("--memory-unit-mib", "256"))},
        (
            "fail",
            "memory unit",
            "not all count in the same: 256 MiB: the extender; 512 MiB: the webhook, the plugin and",
        ),
    ),
    "other seats": (
        {"webhook": Read(workload("--scheduler-name=fracgpu-scheduler", "--replicas=8"))},
        ("warn", "seats", "the webhook counts fractions in 8 seats, and the GPUs have 4: pods that ask for a fraction"),
    ),
    "pods that may not be listed": (
        {"cluster": Read(unknown="you may not list GPUNodes")},
        ("unknown", "GPU nodes", "you may not list GPUNodes"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_problem_is_found_and_told(name: str) -> None:
    changes, (status, check, found) = CASES[name]

    problems = [each for each in findings(replace(healthy(), **changes)) if each.status is not Status.OK]

    assert problems, "nothing was found"
    assert (problems[0].status, problems[0].check, problems[0].found[: len(found)]) == (status, check, found)
    assert problems[0].mend or status == "unknown"
    assert len(problems) == 1 or name == "pods that may not be listed"


def test_certificates_that_end() -> None:
    facts = replace(healthy(), secrets={"plugin": Read(pem_secret("s", "x", until=NOW + timedelta(days=2)))})

    (soon,) = [found for found in findings(facts) if found.check == "certificate of the plugin"]
    late = NOW + timedelta(days=3)
    (ended,) = [found for found in findings(facts, now=late) if found.check == "certificate of the plugin"]

    assert (soon.status, ended.status) == (Status.WARN, Status.FAIL)
    assert soon.found.endswith("and should have been renewed")
    assert ended.found.startswith("it ended at ")


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


def kube_scheduler(*command: str) -> SchedulerPod:
    return msgspec.convert(
        {
            "metadata": {"name": "kube-scheduler-m1"},
            "spec": {"containers": [{"command": ["kube-scheduler", *command]}]},
        },
        SchedulerPod,
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
    pods: list[SchedulerPod], want: tuple[str, str]
) -> None:
    facts = replace(healthy(), scheduler=Read(), scheduler_config=Read(), kube_schedulers=Read(pods))

    status, check, found = the_one_problem(facts)

    assert (status, check, found[: len(want[1])]) == (want[0], "scheduler", want[1])


def of_pods(*objects: Any) -> Facts:
    return replace(healthy(), cluster=Read(cluster(*objects)))


OFF_PLAN = (
    node("node-1", gpu("GPU-1"), gpu("GPU-2", index=1), held={"chat": ("GPU-2", 40)}),
    placed("chat", "node-1", "GPU-1", units=40),
)
UNREAD = created(pod("unread", annotations={"fracgpu.io/gpu-memory": "4Gi"}))


@pytest.mark.parametrize(
    ("objects", "want"),
    [
        (
            OFF_PLAN,
            (
                "fail",
                "plans and grants",
                "team-a/chat on node-1: it was to get 20 GiB of GPU 0, and the kubelet gave 20 GiB of GPU 1",
            ),
        ),
        (
            (node("node-1", gpu("GPU-1")), placed("chat", "node-1", "GPU-1", units=40)),
            ("fail", "plans and grants", "team-a/chat runs on node-1 without a grant"),
        ),
        (
            (node("node-1", gpu("GPU-1")), UNREAD),
            (
                "fail",
                "pods without limits",
                "team-a/unread asked by annotation, and the webhook was not asked: they have no GPU",
            ),
        ),
        (
            (
                node("node-1", gpu("GPU-1"), held={"chat": ("GPU-1", 4)}, used={"chat": 3000}),
                placed("chat", "node-1", "GPU-1", units=4),
            ),
            ("warn", "memory in use", "more than granted: team-a/chat on node-1 GPU 0: 2.93 GiB of 2 GiB"),
        ),
        (
            (
                node("node-1", gpu("GPU-1"), held={"a": ("GPU-1", 60), "b": ("GPU-1", 40)}),
                placed("a", "node-1", "GPU-1", units=60),
                placed("b", "node-1", "GPU-1", units=40),
            ),
            ("fail", "overdrawn GPUs", "more is given away than they have: node-1 GPU 0: 50 GiB of 40 GiB"),
        ),
        (
            (node("node-1", gpu("GPU-1", problem="Xid 79")),),
            ("warn", "GPU health", "not healthy: node-1 GPU 0 (Xid 79)"),
        ),
        (
            (node("node-1", gpu("GPU-1"), observed=""),),
            ("fail", "GPU nodes", "node-1 has not said yet what is granted there"),
        ),
    ],
)
def test_pods_and_nodes_that_are_not_as_they_should_be(objects: tuple[Any, ...], want: tuple[str, str, str]) -> None:
    assert the_one_problem(of_pods(*objects)) == want


def test_a_cluster_without_fracgpu_says_so_line_by_line() -> None:
    found = findings(Facts(definitions={name: Read() for name in CRDS}, cluster=Read(unknown="no GPUNodes")))

    assert [each.check for each in found if each.status is Status.FAIL] == [
        *(f"custom resource {name}" for name in CRDS),
        *("webhook registration", "webhook pods", "extender pods", "plugin pods"),
    ]


def test_metrics_are_read_with_and_without_labels() -> None:
    text = '# HELP a b\na{x="1",state="lost"} 1.0\na{state="valid",y="2"} 0.0\na_total 3\nb 2.5\n'

    assert list(series(text, "a", "state")) == [("lost", 1.0), ("valid", 0.0)]
    assert list(series(text, "b", "")) == [("", 2.5)]


def test_settings_are_read_from_flags_and_variables() -> None:
    found = msgspec.convert(
        {
            "metadata": {"name": "x"},
            "spec": {
                "template": {
                    "spec": {
                        "containers": [
                            {"args": ["extender", "--port", "8080", "--policy=spread"]},
                            {"env": [{"name": "FRACGPU_MEMORY_UNIT_MIB", "value": "256"}]},
                        ]
                    }
                }
            },
        },
        Workload,
    )

    assert [found.setting(flag) for flag in ("port", "policy", "memory-unit-mib", "replicas")] == [
        *("8080", "spread", "256"),
        None,
    ]


def test_a_secret_does_not_show_its_values() -> None:
    assert repr(pem_secret("s", "x")) == "Secret('s')"


def test_the_pages_and_chapters_that_it_sends_people_to_exist() -> None:
    root = Path(__file__).parents[3]
    sources = " ".join(file.read_text() for file in (root / "cli" / "kubectl").rglob("*.py"))

    found = re.findall(r"(docs/[a-z-]+\.md)(?:, ([A-Z][^\"();]*))?", sources)

    assert len(found) > 5
    for page, chapter in found:
        assert f"\n## {chapter}".rstrip() in (root / page).read_text(), (page, chapter)
