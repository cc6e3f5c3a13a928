"""`doctor` as a whole: its lines, in their order, and what they send people to."""

import re
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cli.kubectl.checks.finding import Status
from cli.kubectl.doctor import draw, examine
from cli.kubectl.facts import CRDS, Facts, Read
from cli.kubectl.printing import plain
from tests.cli.kubectl.installation import NOW, findings, healthy, workload


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
        f"ok  certificate of Redis                        in force until {until}; Redis reads it when it starts: "
        "restart the StatefulSet after renewing\n"
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
        "ok  RuntimeClass                                nvidia, which the plugin's pods name, exists\n"
        "ok  GPU nodes                                   1 node with 1 GPU, and all say what is granted\n"
        "ok  offered by kubelets                         fracgpu.io/memory and fracgpu.io/replica on all nodes with "
        "GPUs\n"
        "ok  other device plugins                        no node with GPUs offers nvidia.com/gpu too\n"
        "ok  GPU health                                  all are healthy\n"
        "ok  memory unit                                 512 MiB everywhere\n"
        "ok  seats                                       fractions are of 4 seats\n"
        "ok  pods                                        1 pod with GPUs; plans, grants and use agree\n"
        "\n"
        "29 checks: 0 problems, 0 warnings.\n"
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
    assert lines[-1] == "29 checks: 1 problem, 0 warnings."


def test_a_cluster_without_fracgpu_says_so_line_by_line() -> None:
    found = findings(Facts(definitions={name: Read() for name in CRDS}, cluster=Read(unknown="no GPUNodes")))

    assert [each.check for each in found if each.status is Status.FAIL] == [
        *(f"custom resource {name}" for name in CRDS),
        *("webhook registration", "webhook pods", "extender pods", "plugin pods"),
    ]


def test_who_may_look_at_nothing_is_told_that_nothing_is_known() -> None:
    nothing: Read[Any] = Read(unknown="needs all rights")
    names = [each.name for each in fields(Facts) if each.name not in ("namespace", "prefix", "simulator")]
    maps = {"definitions": dict.fromkeys(CRDS, nothing), "secrets": {"extender": nothing}, "readiness": {}}
    facts = Facts(**{name: maps.get(name, nothing) for name in names})  # type: ignore[arg-type]

    report = examine(facts, now=NOW)

    assert not report.healthy
    assert plain(draw(report)).splitlines()[-1] == (
        f"{len(report.findings)} checks: 0 problems, 0 warnings, {len(report.findings)} unknown, so nothing could be "
        "looked at (what you need: docs/kubectl.md, Rights)."
    )
    one = examine(replace(facts, redis=Read(workload(ready=1, of=1))), now=NOW)
    assert one.healthy  # as much as could be seen


def test_a_simulated_cluster_is_one_in_which_nothing_is_installed() -> None:
    installed = healthy()
    facts = Facts(simulator="v1.36.2+playground", cluster=installed.cluster, hosts=installed.hosts)

    report = examine(facts, now=NOW)

    assert report.healthy
    assert plain(draw(report)).splitlines()[0] == (
        "ok  cluster               a simulated one (v1.36.2+playground), in which nothing is installed as pods: only "
        "nodes, units and pods are looked at"
    )
    assert [each.check for each in report.findings[1:]] == [
        *("GPU nodes", "offered by kubelets", "other device plugins", "GPU health", "memory unit", "pods")
    ]


def test_the_pages_and_chapters_that_it_sends_people_to_exist() -> None:
    root = Path(__file__).parents[3]
    sources = " ".join(file.read_text() for file in (root / "cli" / "kubectl").rglob("*.py"))

    found = re.findall(r"(docs/[a-z-]+\.md)(?:, ([A-Z0-9][^\"();]*))?", sources)

    assert len(found) > 5
    for page, chapter in found:
        assert not chapter or f"\n## {chapter}\n" in (root / page).read_text(), (page, chapter)
