"""What deploy/ says agrees with the code; needs nothing but the files."""

from typing import Any

import pytest
import yaml

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
from tests.deploy import chart
from tests.deploy.conftest import DEPLOY, documents
from tests.deploy.gpunodes import NODE
from tests.deploy.workloads import of_kind
from webhook.dialects import gpu_manager, gpushare, hami, kai, kai_gpu_fractioning


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


@pytest.mark.parametrize("path", ["kustomize/scheduler/kube-scheduler-config.yaml", "chart"])
def test_the_scheduler_manages_our_resources_with_the_verbs_of_the_extender(path: str) -> None:
    extender = scheduler_extender(path)

    assert [managed["name"] for managed in extender["managedResources"]] == [RESOURCE_MEMORY, RESOURCE_REPLICA]
    assert {key: value for key, value in extender.items() if key.endswith("Verb")} == {
        "filterVerb": "filter",
        "prioritizeVerb": "prioritize",
        "preemptVerb": "preempt",
        "bindVerb": "bind",
    }
    assert (extender["ignorable"], extender["nodeCacheCapable"], extender["enableHTTPS"]) == (False, True, True)


def scheduler_extender(path: str) -> dict[str, Any]:
    """The extender in a configuration of kube-scheduler; that of the chart's own is in a ConfigMap."""
    if path == "chart":
        manifests = chart.manifests(chart.values_of("default"))
        text = of_kind(manifests, "ConfigMap")["fracgpu-scheduler"]["data"]["kube-scheduler-config.yaml"]
    else:
        text = (DEPLOY / path).read_text()
    configuration = yaml.safe_load(text)
    assert configuration["percentageOfNodesToScore"] == 100
    (extender,) = configuration["extenders"]
    found: dict[str, Any] = extender
    return found


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
