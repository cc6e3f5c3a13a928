"""What deploy/kustomize/admission/ says agrees with the code and the rest of deploy/; needs nothing but the files."""

import json
from typing import Any

import pytest

from fracgpu.names import ANNOTATION_ALLOCATION, DOMAIN, GPUNODE_PLURAL
from tests.deploy.conftest import DEPLOY, EXTENDER, PLUGIN, documents

FILES = sorted(f"admission/{path.name}" for path in (DEPLOY / "kustomize" / "admission").iterdir())


def kinds(suffix: str) -> list[dict[str, Any]]:
    return [manifest for name in FILES for manifest in documents(name) if manifest["kind"].endswith(suffix)]


def test_every_policy_is_bound_and_holds_when_in_doubt() -> None:
    policies = {(policy["kind"], policy["metadata"]["name"]): policy for policy in kinds("Policy")}
    bound = [(binding["kind"].removesuffix("Binding"), binding["spec"]["policyName"]) for binding in kinds("Binding")]

    assert sorted(bound) == sorted(policies)
    assert {policy["spec"]["failurePolicy"] for policy in policies.values()} == {"Fail"}
    for binding in kinds("PolicyBinding"):
        if binding["kind"].startswith("Validating"):
            assert binding["spec"]["validationActions"] == ["Deny"]


@pytest.mark.parametrize("user", [EXTENDER, PLUGIN], ids=lambda user: user.name.rpartition(":")[2])
def test_the_system_is_known_by_the_accounts_of_rbac(user: Any) -> None:
    accounts = {
        f"system:serviceaccount:{manifest['metadata']['namespace']}:{manifest['metadata']['name']}"
        for manifest in documents("rbac.yaml")
        if manifest["kind"] == "ServiceAccount"
    }

    assert user.name in accounts
    assert f"'{user.name}'" in json.dumps(kinds("Policy"))


def test_the_names_are_those_of_the_code() -> None:
    text = json.dumps(kinds("Policy"))

    assert f"'{ANNOTATION_ALLOCATION}'" in text
    assert f"startsWith('{DOMAIN}/')" in text
    assert f'["{GPUNODE_PLURAL}", "{GPUNODE_PLURAL}/status"]' in text


def test_the_opt_in_is_the_same_for_both_policies() -> None:
    selected = [binding["spec"]["matchResources"] for binding in kinds("Binding") if "void" in json.dumps(binding)]

    assert selected == [{"namespaceSelector": {"matchLabels": {f"{DOMAIN}/void-visible-devices": "enabled"}}}] * 2
