"""The chart by itself: Helm takes it, Kubernetes' schemas take what it renders, and mistaken values are refused."""

import itertools
import json
import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy import chart

FOREIGN = {"cert-manager.io/v1", "monitoring.coreos.com/v1"}
"""Custom resources of others, for which no schema is at hand."""
IMAGE: dict[str, Any] = {"scheduler": {"image": "kube-scheduler:v1.36.2"}}


def merged(**values: Any) -> dict[str, Any]:
    """Values with what every rendering without a cluster needs."""
    return {**IMAGE, **values, "scheduler": IMAGE["scheduler"] | values.get("scheduler", {})}


@pytest.mark.parametrize("name", chart.VALUES)
def test_helm_finds_nothing_to_complain_of(name: str) -> None:
    assert chart.complaints(chart.values_of(name)) == []


@pytest.mark.parametrize("version", ["1.34", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", chart.VALUES)
def test_kubernetes_knows_every_field(name: str, version: str) -> None:
    """The oldest version that the chart takes, and the newest whose schemas are at hand."""
    for manifest in chart.manifests(chart.values_of(name)):
        if manifest["apiVersion"] in FOREIGN:
            continue
        if manifest["kind"].startswith("MutatingAdmissionPolicy") and version == "1.34":
            continue  # admission.voidVisibleDevices is said to need 1.36
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_oldest_version_is_the_one_that_the_chart_names() -> None:
    metadata = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())

    assert metadata["kubeVersion"] == ">=1.34.0-0"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a key that does not exist": ({"webhok": {}}, "additional properties 'webhok' not allowed"),
    "one further down": ({"redis": {"persistance": {}}}, "additional properties 'persistance' not allowed"),
    "no replica": ({"extender": {"replicas": 0}}, "/extender/replicas"),
    "a policy that does not exist": ({"extender": {"policy": "best"}}, "/extender/policy"),
    "a number as text": ({"memoryUnitMiB": "512"}, "/memoryUnitMiB"),
    "no strategy": ({"plugin": {"deviceListStrategy": []}}, "/plugin/deviceListStrategy"),
    "an image without a tag": ({"scheduler": {"image": "kube-scheduler"}}, "/scheduler/image"),
    "an effect that does not exist": ({"webhook": {"podTolerations": ["a:NoSched"]}}, "/webhook/podTolerations/0"),
    "a second argument": ({"image": {"repository": "a\n            - --insecure"}}, "/image/repository"),
    "a comment": ({"plugin": {"kubeletRoot": "/var/lib #"}}, "/plugin/kubeletRoot"),
    "a name that YAML takes for something else": ({"nameOverride": "true"}, "/nameOverride"),
    "a relative path": ({"plugin": {"mpsRoot": "run/mps"}}, "/plugin/mpsRoot"),
    "a URL of something else": ({"redis": {"external": {"url": "http://redis"}}}, "/redis/external/url"),
    "an address that is no CIDR": ({"networkPolicies": {"apiServerCIDRs": ["10.0.0.1"]}}, "apiServerCIDRs/0"),
    "the name of the scheduler that exists": ({"scheduler": {"name": "default-scheduler"}}, "/scheduler/name"),
    "a mode that does not exist": ({"certificates": {"mode": "letsencrypt"}}, "/certificates/mode"),
    "no Redis at all": ({"redis": {"enabled": False}}, "neither redis.external.url nor redis.external.existingSecret"),
    "no image of kube-scheduler": ({"scheduler": {"image": ""}}, "no image for the second kube-scheduler"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_mistaken_values_are_refused(case: str) -> None:
    values, want = REFUSED[case]

    with pytest.raises(chart.ChartError) as refusal:
        chart.manifests(merged(**values))

    assert want in str(refusal.value)


def test_without_monitoring_nobody_reads_metrics() -> None:
    """An empty list of peers is everybody to Kubernetes."""
    manifests = chart.manifests(merged(networkPolicies={"monitoring": []}))
    rules = [
        rule
        for manifest in manifests
        if manifest["kind"] == "NetworkPolicy"
        for rule in manifest["spec"].get("ingress") or ()
    ]
    assert all(rule.get("from", ["everybody"]) for rule in rules)
    assert not {8082, 8083} & {port["port"] for rule in rules for port in rule["ports"]}


@pytest.mark.parametrize("name", ["123", "true"])
def test_names_that_look_like_numbers_stay_names(name: str) -> None:
    manifests = chart.manifests(
        merged(scheduler=IMAGE["scheduler"] | {"name": name}, plugin={"priorityClassName": name})
    )
    (daemonset,) = (found for found in manifests if found["kind"] == "DaemonSet")
    assert daemonset["spec"]["template"]["spec"]["priorityClassName"] == name
    texts = [text for found in manifests if found["kind"] == "ConfigMap" for text in found["data"].values()]
    (configuration,) = (
        found for text in texts if "KubeSchedulerConfiguration" in text for found in [yaml.safe_load(text)]
    )
    assert configuration["profiles"][0]["schedulerName"] == name


def test_the_schema_knows_the_values_and_no_others() -> None:
    schema = json.loads((chart.CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((chart.CHART / "values.yaml").read_text())

    assert differences(schema, defaults) == ["+global"], "which Helm gives to every chart"


def differences(schema: dict[str, Any], values: Any, path: str = "") -> list[str]:
    """Where one of them has a key that the other lacks; what is free in the schema is not looked into."""
    if "properties" not in schema or not isinstance(values, dict):
        return []
    known, written = schema["properties"].keys(), values.keys()
    found = [f"+{path}{key}" for key in sorted(known - written)] + [f"-{path}{key}" for key in sorted(written - known)]
    if path.endswith("issuerRef."):
        return []  # empty for none
    for key in known & written:
        found += differences(schema["properties"][key], values[key], f"{path}{key}.")
    return found


def test_every_value_has_a_comment() -> None:
    """In the lines right above it, or of the group of one that it is the only key of."""
    lines = (chart.CHART / "values.yaml").read_text().splitlines()
    lacking = []
    for before, line in itertools.pairwise(lines):
        key = re.match(r"( *)([A-Za-z]+):(.*)", line)
        if key is None or before.lstrip().startswith("#"):
            continue
        is_group = not key[3].strip()
        inside_value = re.match(r" *(requests|limits|matchLabels|nvidia\.com)", line)
        if not is_group and not inside_value:
            lacking.append(line)

    assert lacking == []


def test_rendering_twice_makes_other_keys_and_nothing_else() -> None:
    """Without a cluster to keep them in; with cert-manager and a Secret for Redis there is nothing by chance."""
    fixed = merged(certificates={"mode": "cert-manager"}, redis={"existingSecret": "redis"})

    assert chart.rendered(fixed) == chart.rendered(fixed)
    one, other = (chart.rendered(merged()) for _ in range(2))
    assert {path for path in one if one[path] != other[path]} == {
        "certificates/helm.yaml",
        "redis/secret.yaml",
        # which are started again with new certificates
        "extender/deployment.yaml",
        "redis/statefulset.yaml",
        "scheduler/deployment.yaml",
    }


def test_the_notes_tell_how_to_change_a_scheduler_that_exists() -> None:
    text = chart.notes(chart.values_of("existing"))
    _, _, snippet = text.partition("to those):")
    configuration = yaml.safe_load(snippet.partition("Before you delete")[0])

    (extender,) = configuration["extenders"]
    assert extender["urlPrefix"] == "https://CLUSTER-IP:8080"
    assert extender["tlsConfig"]["serverName"] == "fracgpu-extender.fracgpu-system.svc"
    assert "No scheduler was installed" not in chart.notes(IMAGE)


def test_no_image_names_a_registry() -> None:
    for name in chart.VALUES:
        for image in re.findall(r"image: (\S+)", json.dumps(chart.rendered(chart.values_of(name)))):
            assert "." not in image.split("/")[0].split(":")[0], image
