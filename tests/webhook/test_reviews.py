"""AdmissionReviews in and out: shapes kept, and every malformed one told apart from a malformed pod."""

from typing import Any

import msgspec
import pytest

from fracgpu.quantities import Mib
from tests.webhook.builders import NO_GPUS, POLICY, container, operations_of, pod, review
from webhook.cards import Card, cluster_of
from webhook.reviews import ReviewError, answer_pod, answer_workload

UID = "186e27b2-329a-4841-b7f4-af82ab6cfc1a"
DEEP = b"[" * 20_000 + b"]" * 20_000


def respond(body: dict[str, Any]) -> dict[str, Any]:
    reply = msgspec.json.decode(answer_pod(msgspec.json.encode(body), policy=POLICY, cluster=NO_GPUS))
    assert set(reply) == {"apiVersion", "kind", "response"}
    assert (reply["apiVersion"], reply["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: dict[str, Any] = reply["response"]
    return response


def test_an_annotated_pod_is_allowed_with_a_patch() -> None:
    response = respond(review(pod({"gpu-memory": "4Gi"})))

    assert operations_of(response) == [
        {
            "op": "add",
            "path": "/spec/containers/0/resources",
            "value": {"limits": {"fracgpu.io/memory": "8"}, "requests": {"fracgpu.io/memory": "8"}},
        }
    ]
    assert set(response) == {"uid", "allowed", "patchType", "patch"}
    assert (response["uid"], response["allowed"]) == (UID, True)


def test_a_pod_that_asks_for_nothing_gets_the_shortest_answer() -> None:
    assert respond(review(pod())) == {"uid": UID, "allowed": True}


def test_a_refused_pod_gets_a_status_that_users_can_read() -> None:
    response = respond(review(pod({"gpu-memory": "lots"})))

    assert set(response) == {"uid", "allowed", "status"}
    assert response["allowed"] is False
    assert response["status"].pop("message").startswith("annotation fracgpu.io/gpu-memory is 'lots'")
    assert response["status"] == {"status": "Failure", "reason": "Forbidden", "code": 403}


@pytest.mark.parametrize("operation", ["UPDATE", "DELETE", "CONNECT"])
def test_only_creation_is_judged(operation: str) -> None:
    manifest = pod({"allocation": "{}", "gpu-memory": "lots"}, container(env=("NVIDIA_VISIBLE_DEVICES",)))

    assert respond(review(manifest, operation=operation)) == {"uid": UID, "allowed": True}


@pytest.mark.parametrize(
    "manifest",
    [
        None,
        [],
        "pod",
        {"metadata": None, "spec": {}},
        {"spec": {"containers": {}}},
        {"spec": {"containers": [None]}},
        {"spec": {"containers": [{"resources": {"limits": {"fracgpu.io/memory": True}}}]}},
        {"spec": {"containers": [{"env": ["A=B"]}]}},
        {"metadata": {"annotations": {"fracgpu.io/gpu-memory": 4}}},
    ],
)
def test_a_pod_of_the_wrong_shape_is_refused(manifest: object) -> None:
    response = respond(review(manifest))

    assert response["allowed"] is False
    assert response["status"]["message"].startswith("the pod cannot be read: ")


MALFORMED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "cannot be read"),
    "no JSON": (b"uid=1", "cannot be read"),
    "no UTF-8": (b'{"kind":"\xff"}', "cannot be read"),
    "a list": (b"[]", "cannot be read"),
    "nested beyond reason": (DEEP, "cannot be read"),
    "an empty object": (b"{}", "reads admission.k8s.io/v1 AdmissionReview"),
    "an old version": (
        msgspec.json.encode(review(pod()) | {"apiVersion": "admission.k8s.io/v1beta1"}),
        "'admission.k8s.io/v1beta1' 'AdmissionReview'",
    ),
    "another kind": (msgspec.json.encode(review(pod()) | {"kind": "ConversionReview"}), "'ConversionReview'"),
    "no request": (msgspec.json.encode(review(pod()) | {"request": None}), "has no request"),
    "a request without uid": (
        msgspec.json.encode(review(pod()) | {"request": {"kind": {}, "operation": "CREATE"}}),
        "missing required field `uid`",
    ),
    "an unknown operation": (msgspec.json.encode(review(pod(), operation="create")), "Invalid enum value 'create'"),
    "another object": (
        msgspec.json.encode(
            review(pod())
            | {
                "request": {
                    "uid": "1",
                    "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
                    "operation": "CREATE",
                }
            }
        ),
        "'apps' 'v1' 'Deployment'; here it is read of v1 Pod only",
    ),
}  # case -> body, what the sentence has to contain


@pytest.mark.parametrize(("body", "want"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_review_of_a_pod_is_an_error(body: bytes, want: str) -> None:
    with pytest.raises(ReviewError) as caught:
        answer_pod(body, policy=POLICY, cluster=NO_GPUS)

    assert want in str(caught.value)


def test_a_pod_nested_beyond_reason_is_a_clean_error() -> None:
    body = msgspec.json.encode(review({"spec": {"containers": [{"x": "HERE"}]}})).replace(b'"HERE"', DEEP)

    with pytest.raises(ReviewError, match="cannot be read"):
        answer_pod(body, policy=POLICY, cluster=NO_GPUS)


# --- workloads


def warnings_about(kind: str, manifest: object, *, operation: str = "CREATE") -> list[str]:
    """The warnings of a workload, which is never refused."""
    group = "batch" if kind in ("Job", "CronJob") else "apps"
    body = msgspec.json.encode(review(manifest, operation=operation, kind=(group, "v1", kind)))
    response = msgspec.json.decode(answer_workload(body, policy=POLICY, cluster=NO_GPUS))["response"]
    assert response["allowed"] is True
    assert set(response) <= {"uid", "allowed", "warnings"}
    warnings: list[str] = response.get("warnings", [])
    assert all(len(warning) <= 256 for warning in warnings)
    return warnings


def of(template: dict[str, Any], *, kind: str = "Deployment", annotations: object = None) -> dict[str, Any]:
    spec = {"template": {"metadata": template["metadata"], "spec": template["spec"]}}
    if kind == "CronJob":
        spec = {"jobTemplate": {"spec": spec}}
    return {"metadata": {"annotations": annotations}, "spec": spec}


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"])
@pytest.mark.parametrize("operation", ["CREATE", "UPDATE"])
def test_a_mistake_in_a_template_is_told(kind: str, operation: str) -> None:
    warnings = warnings_about(kind, of(pod({"gpu-memory": "4GB"}), kind=kind), operation=operation)

    told = " ".join(warnings)
    assert told.startswith(f"the pods of this {kind} will be refused: annotation fracgpu.io/gpu-memory is '4GB'")
    assert told.endswith('for example "4Gi"')


def test_a_long_warning_comes_in_pieces() -> None:
    """kube-apiserver cuts what is longer than 256 characters."""
    warnings = warnings_about("Deployment", of(pod({"gpu-mem": "4Gi"})))

    assert len(warnings) > 1
    assert " ".join(warnings).endswith('for example fracgpu.io/gpu-memory: "4Gi"')


def test_a_template_is_judged_by_the_rules_of_its_namespace() -> None:
    assert warnings_about("Job", of(pod({"gpu-memory": "4Gi"}), kind="Job")) == []
    assert warnings_about("Job", of(pod({"gpu-memory": "lots"})), operation="DELETE") == []


def test_annotations_of_the_workload_itself_are_told() -> None:
    manifest = of(pod(), annotations={"fracgpu.io/gpu-memory": "4Gi"})
    assert "stands on the Deployment itself" in " ".join(warnings_about("Deployment", manifest))
    both = of(pod({"gpu-memory": "4Gi"}), annotations={"fracgpu.io/gpu-memory": "4Gi"})
    assert warnings_about("Deployment", both) == []


@pytest.mark.parametrize("manifest", [None, [], {"spec": {"template": None}}, {"spec": {"template": {"spec": 1}}}])
def test_a_template_of_the_wrong_shape_is_told(manifest: object) -> None:
    assert "cannot be read by fracgpu" in " ".join(warnings_about("Deployment", manifest))


@pytest.mark.parametrize("kind", [("", "v1", "Pod"), ("apps", "v1", "ReplicaSet"), ("apps", "v1beta1", "Deployment")])
def test_other_kinds_are_an_error(kind: tuple[str, str, str]) -> None:
    with pytest.raises(ReviewError, match="apps/v1 Deployment, apps/v1 StatefulSet"):
        answer_workload(msgspec.json.encode(review({}, kind=kind)), policy=POLICY, cluster=NO_GPUS)


def test_a_warning_about_a_pod_comes_with_its_patch() -> None:
    cluster = cluster_of([(Card("Tesla T4", Mib(15360), 30, 4),)])
    body = msgspec.json.encode(review(pod({"gpu-memory": "16Gi"})))

    response = msgspec.json.decode(answer_pod(body, policy=POLICY, cluster=cluster))["response"]

    assert response["allowed"] is True
    assert "patch" in response
    assert "the largest GPU of the cluster has 15 GiB" in " ".join(response["warnings"])
