"""What `doctor` says of registrations and certificates."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cli.kubectl.checks.finding import Status
from cli.kubectl.facts import Read
from cli.kubectl.objects import Secret
from fracgpu.pods import ObjectMeta
from tests.cli.kubectl.installation import (
    HOOK_NAME,
    NOW,
    STRANGER,
    assert_told,
    findings,
    healthy,
    pem_secret,
    registration,
)


def with_secret(part: str, read: Read[Secret]) -> dict[str, Any]:
    return {"secrets": {**healthy().secrets, part: read}}


CASES: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
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
    "Redis' certificate has ended": (
        with_secret("redis", Read(pem_secret("s", "x", until=NOW - timedelta(hours=1)))),
        ("fail", "certificate of Redis", "it ended at "),
    ),
    "no right to see that of Redis": (
        with_secret("redis", Read(unknown="needs get on secrets/fracgpu-redis-tls")),
        ("unknown", "certificate of Redis", "needs get on secrets/fracgpu-redis-tls"),
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
}


@pytest.mark.parametrize(("changes", "want"), CASES.values(), ids=CASES)
def test_each_problem_is_found_and_told(changes: dict[str, Any], want: tuple[str, str, str]) -> None:
    assert_told(changes, want)


def test_certificates_that_end() -> None:
    facts = replace(healthy(), secrets={"plugin": Read(pem_secret("s", "x", until=NOW + timedelta(days=2)))})

    (soon,) = [found for found in findings(facts) if found.check == "certificate of the plugin"]
    late = NOW + timedelta(days=3)
    (ended,) = [found for found in findings(facts, now=late) if found.check == "certificate of the plugin"]

    assert (soon.status, ended.status) == (Status.WARN, Status.FAIL)
    assert soon.found.endswith("and should have been renewed")
    assert ended.found.startswith("it ended at ")


def test_redis_has_to_be_restarted_to_show_a_new_one() -> None:
    facts = replace(healthy(), **with_secret("redis", Read(pem_secret("s", "x", until=NOW + timedelta(days=2)))))

    (soon,) = [found for found in findings(facts) if found.check == "certificate of Redis"]

    assert soon.status is Status.WARN
    assert soon.mend.endswith(
        "then restart the StatefulSet: kubectl rollout restart statefulset -n fracgpu-system fracgpu-redis"
    )
    elsewhere = replace(facts, redis=Read())
    assert not [found for found in findings(elsewhere) if found.check == "certificate of Redis"]
