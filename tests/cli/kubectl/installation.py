"""An installation as the API server tells of it, of which tests change one thing; and what `doctor` says then."""

from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import trustme
import yaml

from cli.kubectl.checks.finding import Finding, Status
from cli.kubectl.cluster import Cluster
from cli.kubectl.doctor import examine
from cli.kubectl.facts import CRDS, Facts, Page, Read
from cli.kubectl.objects import (
    ConfigMap,
    Definition,
    Named,
    PolicyBinding,
    Registration,
    Secret,
    Workload,
)
from fracgpu.nodes import Node, NodeStatus
from fracgpu.pods import ObjectMeta
from tests.cli.kubectl.clusters import cluster, gpu, node, placed

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
    *args: str,
    ready: int = 2,
    of: int = 2,
    selector: dict[str, str] | None = None,
    runtime_class: str = "",
    **status: int,
) -> Workload:
    container = {"name": "main", "args": list(args)}
    spec = {"containers": [container], "nodeSelector": selector, "runtimeClassName": runtime_class}
    return msgspec.convert(
        {
            "metadata": {"name": "x"},
            "spec": {"replicas": of, "template": {"spec": spec}},
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
            workload(
                unit,
                desiredNumberScheduled=1,
                numberReady=1,
                selector={"nvidia.com/gpu.present": "true"},
                runtime_class="nvidia",
            )
        ),
        redis=Read(workload(ready=1, of=1)),
        scheduler_config=config_map(scheduler_config()),
        secrets={
            "webhook": Read(pem_secret("fracgpu-webhook-tls", HOOK_NAME)),
            "extender": Read(pem_secret("fracgpu-extender-tls", "fracgpu-extender.fracgpu-system.svc")),
            "scheduler": Read(pem_secret("fracgpu-scheduler-tls", "fracgpu-scheduler")),
            "plugin": Read(pem_secret("fracgpu-plugin-tls", "fracgpu-plugin.fracgpu-system.svc")),
            "redis": Read(pem_secret("fracgpu-redis-tls", "fracgpu-redis.fracgpu-system.svc")),
        },
        runtime_class=Read(Named(ObjectMeta(name="nvidia"))),
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


def assert_told(changes: dict[str, Any], want: tuple[str, str, str]) -> None:
    """That one thing changed is all that is wrong, and how what was found begins."""
    status, check, found = the_one_problem(replace(healthy(), **changes))
    assert (status, check, found[: len(want[2])]) == want
