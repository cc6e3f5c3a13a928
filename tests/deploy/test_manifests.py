"""What deploy/ says agrees with the code; needs nothing but the files."""

from typing import Any

import pytest

from fracgpu.gpunodes import (
    written,
)
from fracgpu.names import (
    API_VERSION,
    DOMAIN,
    GPUNODE_KIND,
    GPUNODE_PLURAL,
    RESOURCE_MEMORY,
    RESOURCE_REPLICA,
)
from tests.deploy.conftest import documents
from tests.deploy.gpunodes import NODE
from webhook.dialects import gpu_manager, gpushare, hami, kai, kai_gpu_fractioning
from webhook.settings import WebhookSettings


@pytest.fixture(scope="module")
def crd() -> dict[str, Any]:
    (definition,) = documents("crds/gpunodes.fracgpu.io.yaml")
    spec: dict[str, Any] = definition["spec"]
    return spec


def test_the_crd_has_the_names_of_the_code(crd: dict[str, Any]) -> None:
    assert (crd["group"], crd["names"]["kind"], crd["names"]["plural"]) == (DOMAIN, GPUNODE_KIND, GPUNODE_PLURAL)
    assert [version["name"] for version in crd["versions"]] == [API_VERSION]


def test_the_crd_knows_every_field_and_no_other(crd: dict[str, Any]) -> None:
    schema = crd["versions"][0]["schema"]["openAPIV3Schema"]

    for part in ("spec", "status"):
        assert fields_of_schema(schema["properties"][part]) == fields_of(written(getattr(NODE, part)))


def test_the_scheduler_manages_our_resources_with_the_verbs_of_the_extender() -> None:
    (configuration,) = documents("scheduler/kube-scheduler-config.yaml")
    (extender,) = configuration["extenders"]

    assert [managed["name"] for managed in extender["managedResources"]] == [RESOURCE_MEMORY, RESOURCE_REPLICA]
    assert {key: value for key, value in extender.items() if key.endswith("Verb")} == {
        "filterVerb": "filter",
        "prioritizeVerb": "prioritize",
        "preemptVerb": "preempt",
        "bindVerb": "bind",
    }
    assert (extender["ignorable"], extender["nodeCacheCapable"]) == (False, True)


def test_the_webhook_is_where_the_registrations_call_it() -> None:
    (service,) = documents("webhook/service.yaml")
    (deployment,) = documents("webhook/deployment.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (port,) = service["spec"]["ports"]
    settings = WebhookSettings.load(container["args"][1:])

    for name in ("mutating", "validating"):
        (configuration,) = documents(f"webhook/{name}webhookconfiguration.yaml")
        for webhook in configuration["webhooks"]:
            called = webhook["clientConfig"]["service"]
            assert (called["name"], called["namespace"]) == (
                service["metadata"]["name"],
                service["metadata"]["namespace"],
            )
            assert called["port"] == port["port"]
            assert f"{called['name']}.{called['namespace']}.svc" in settings.tls_names
    assert port["targetPort"] == settings.port == container["ports"][0]["containerPort"]
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    (secret,) = documents("webhook/secret.yaml")
    assert settings.tls_secret == f"{secret['metadata']['namespace']}/{secret['metadata']['name']}"


@pytest.mark.parametrize("kind", ["mutating", "validating"])
def test_the_conditions_name_what_the_dialects_look_for(kind: str) -> None:
    """What kube-apiserver does not send is created as it is, and nobody hears of it."""
    (configuration,) = documents(f"webhook/{kind}webhookconfiguration.yaml")
    (webhook,) = configuration["webhooks"]
    (condition,) = webhook["matchConditions"]
    annotations, _, resources = condition["expression"].partition("initContainers")

    for annotation in (*hami.ANNOTATIONS, *kai.ANNOTATIONS):
        assert f"'{annotation}'" in annotations
    for resource in hami.OWN_RESOURCES:
        assert f"'{resource}'" in resources
    for resource in gpushare.FOREIGN | gpu_manager.FOREIGN:
        assert any(f"key.startsWith('{resource[:end]}')" in resources for end in range(len(resource)))
    assert kai_gpu_fractioning.PREFIX.replace(".", "[.]") in annotations


def fields_of(value: Any, path: str = "") -> set[str]:
    """The paths of all fields of an encoded object; lists and maps by name are transparent."""
    if isinstance(value, list | tuple):
        return {field for item in value for field in fields_of(item, path)}
    if not isinstance(value, dict):
        return {path}
    if "containers" in value:
        value = value | {"containers": list(value["containers"].values())}
    return {field for key, item in value.items() for field in fields_of(item, f"{path}.{key}")}


def fields_of_schema(schema: dict[str, Any], path: str = "") -> set[str]:
    """The same of a structural schema."""
    if "items" in schema or "additionalProperties" in schema:
        return fields_of_schema(schema.get("items") or schema["additionalProperties"], path)
    if "properties" not in schema:
        return {path}
    return {field for key, inner in schema["properties"].items() for field in fields_of_schema(inner, f"{path}.{key}")}
