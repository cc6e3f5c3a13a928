"""The custom resource SharingPolicy: its schema agrees with the code, and a real kube-apiserver enforces it."""

from typing import Any

import msgspec
import pytest

from fracgpu.kube.resources import SHARINGPOLICIES
from fracgpu.names import API_VERSION, DOMAIN, SHARINGPOLICY_KIND, SHARINGPOLICY_PLURAL
from fracgpu.pods import ObjectMeta
from fracgpu.quantities import Mib
from fracgpu.sharing import (
    Condition,
    GpuRule,
    LabelRequirement,
    LabelSelector,
    SharingPolicy,
    SharingPolicyStatus,
    SharingSpec,
)
from tests.deploy.conftest import Api, documents
from tests.deploy.test_manifests import fields_of, fields_of_schema

PATH = SHARINGPOLICIES.collection_path
SPEC: dict[str, Any] = {
    "nodeSelector": {
        "matchLabels": {"pool": "a"},
        "matchExpressions": [
            {"key": "zone", "operator": "In", "values": ["z1", "z2"]},
            {"key": "spot", "operator": "DoesNotExist"},
        ],
    },
    "replicas": 8,
    "reservedMiB": 512,
    "isolation": "mps",
    "memoryUnitMiB": 512,
    "gpus": [{"model": "A100-SXM4-*", "replicas": 4, "reservedMiB": 1024}, {"uuid": "GPU-a", "excluded": True}],
}
"""With every field set."""
DECODED = SharingSpec(
    node_selector=LabelSelector(
        {"pool": "a"}, (LabelRequirement("zone", "In", ("z1", "z2")), LabelRequirement("spot", "DoesNotExist"))
    ),
    replicas=8,
    reserved=Mib(512),
    isolation="mps",
    memory_unit=Mib(512),
    gpus=(GpuRule(model="A100-SXM4-*", replicas=4, reserved=Mib(1024)), GpuRule(uuid="GPU-a", excluded=True)),
)
STATUS = SharingPolicyStatus(
    1,
    (Condition("Accepted", "True", "NoFault", "no node finds fault with it", 1, "2026-01-01T00:00:00Z"),),
    2,
    ("node-1", "node-2"),
)


def policy(name: str, **spec: object) -> dict[str, Any]:
    return {
        "apiVersion": f"{DOMAIN}/{API_VERSION}",
        "kind": SHARINGPOLICY_KIND,
        "metadata": {"name": name},
        "spec": spec,
    }


def test_the_crd_knows_every_field_and_no_other() -> None:
    (definition,) = documents("crds/sharingpolicies.fracgpu.io.yaml")
    crd = definition["spec"]
    schema = crd["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    complete = SharingPolicy(ObjectMeta(), DECODED, STATUS)

    assert (crd["group"], crd["names"]["kind"], crd["names"]["plural"]) == (
        DOMAIN,
        SHARINGPOLICY_KIND,
        SHARINGPOLICY_PLURAL,
    )
    assert [version["name"] for version in crd["versions"]] == [API_VERSION]
    selector = schema["spec"]["properties"]["nodeSelector"]["properties"]
    del selector["matchLabels"]["additionalProperties"]  # of labels any
    known = msgspec.to_builtins(complete)
    known["spec"]["nodeSelector"]["matchLabels"] = None
    assert fields_of_schema(schema["spec"]) == fields_of(known["spec"])
    assert fields_of_schema(schema["status"]) == fields_of(known["status"])


@pytest.mark.e2e
def test_a_policy_comes_back_as_it_was_written_and_decodes(api: Api) -> None:
    created, answer = api.call("POST", PATH, policy("complete", **SPEC))
    written = msgspec.json.decode(msgspec.json.encode(STATUS))
    patched, told = api.call(
        "PATCH", f"{PATH}/complete/status", {"status": written}, content_type="application/merge-patch+json"
    )

    assert (created, patched) == (201, 200), (answer, told)
    _, stored = api.call("GET", f"{PATH}/complete")
    assert (stored["spec"], stored["status"]) == (SPEC, written)
    decoded = msgspec.convert(stored, SharingPolicy)
    assert (decoded.spec, decoded.status) == (DECODED, STATUS)
    assert (decoded.metadata.name, decoded.metadata.generation) == ("complete", 1), "the status is not the spec"
    assert decoded.metadata.creation_timestamp


@pytest.mark.e2e
def test_an_empty_policy_is_allowed(api: Api) -> None:
    _, stored = api.call("POST", PATH, policy("empty"))

    assert msgspec.convert(stored, SharingPolicy).spec == SharingSpec()


IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "no seat": ({"replicas": 0}, "spec.replicas in body should be greater than or equal to 1"),
    "too many seats": ({"replicas": 1025}, "spec.replicas in body should be less than or equal to 1024"),
    "less than nothing reserved": ({"reservedMiB": -1}, "should be greater than or equal to 0"),
    "no unit": ({"memoryUnitMiB": 0}, "should be greater than or equal to 1"),
    "an isolation that nobody knows": (
        {"isolation": "strong"},
        'Unsupported value: "strong": supported values: "auto", "driver-limit", "mps", "preload", "none"',
    ),
    "model and UUID": (
        {"gpus": [{"model": "A100", "uuid": "GPU-a", "replicas": 2}]},
        "a rule names its GPUs by model or by uuid, by exactly one of the two",
    ),
    "neither": ({"gpus": [{"replicas": 2}]}, "by exactly one of the two"),
    "a rule without effect": (
        {"gpus": [{"model": "A100"}]},
        "a rule sets at least one of replicas, reservedMiB and excluded",
    ),
    "an index for a UUID": ({"gpus": [{"uuid": "0", "replicas": 2}]}, "a uuid begins with GPU- or MIG-"),
    "seats of one model": ({"gpus": [{"model": "A100", "replicas": 0}]}, "spec.gpus[0].replicas"),
    "In without values": (
        {"nodeSelector": {"matchExpressions": [{"key": "pool", "operator": "In"}]}},
        "the operators In and NotIn need values, Exists and DoesNotExist take none",
    ),
    "Exists with values": (
        {"nodeSelector": {"matchExpressions": [{"key": "pool", "operator": "Exists", "values": ["a"]}]}},
        "Exists and DoesNotExist take none",
    ),
    "an operator that nobody knows": (
        {"nodeSelector": {"matchExpressions": [{"key": "pool", "operator": "Gt", "values": ["1"]}]}},
        'Unsupported value: "Gt"',
    ),
    "too many rules": (
        {"gpus": [{"uuid": f"GPU-{place}", "replicas": 2} for place in range(65)]},
        "must have at most 64 items",
    ),
}


@pytest.mark.e2e
@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_a_policy_that_cannot_be_is_refused_with_a_sentence(api: Api, case: str) -> None:
    spec, want = IMPOSSIBLE[case]

    status, answer = api.call("POST", PATH, policy("impossible", **spec))

    assert status == 422, answer
    assert want in answer["message"]


@pytest.mark.e2e
def test_a_misspelled_field_is_refused_where_the_client_asks_for_strictness(api: Api) -> None:
    """As kubectl does by default."""
    status, answer = api.call("POST", f"{PATH}?fieldValidation=Strict", policy("misspelled", replica=2))

    assert status == 400
    assert 'unknown field "spec.replica"' in answer["message"]


@pytest.mark.e2e
def test_kubectl_get_shows_what_is_declared_and_whether_it_is_followed(api: Api) -> None:
    api.call("POST", PATH, policy("shown", **SPEC))
    api.call(
        "PATCH",
        f"{PATH}/shown/status",
        {"status": msgspec.to_builtins(STATUS)},
        content_type="application/merge-patch+json",
    )

    status, table = api.call_as_table(f"{PATH}/shown")

    assert status == 200
    shown = dict(zip((column["name"] for column in table["columnDefinitions"]), table["rows"][0]["cells"], strict=True))
    assert '"matchLabels":{"pool":"a"}' in shown.pop("Selector")
    shown.pop("Age")
    assert shown == {
        "Name": "shown",
        "Replicas": 8,
        "Reserved": 512,
        "Isolation": "mps",
        "Nodes": 2,
        "Accepted": "True",
    }
