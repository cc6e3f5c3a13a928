"""The flags, variables and files that the chart gives to our services are read by the services' own settings."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from extender.settings import ExtenderSettings
from fracgpu.process.settings import ServiceSettings
from plugin.sharing.file import load_settings as load_plugin_settings
from tests.deploy import chart
from tests.deploy.chart import Manifest
from tests.deploy.workloads import of_kind, workloads
from webhook.file import load_settings as load_webhook_settings

CONFIG = "--config-file=/etc/fracgpu/config/config.yaml"


@pytest.fixture(params=chart.VALUES)
def release(request: pytest.FixtureRequest) -> list[Manifest]:
    return chart.manifests(chart.values_of(request.param))


def settings_of(
    part: str, manifests: list[Manifest], *, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> ServiceSettings:
    """What one of our services makes of its container."""
    workload = workloads(manifests)[part]
    service, *arguments = workload.container["args"]
    assert service == part
    if CONFIG in arguments:
        content = of_kind(manifests, "ConfigMap")[workload.manifest["metadata"]["name"]]["data"]["config.yaml"]
        (folder / "config.yaml").write_text(content)
        arguments[arguments.index(CONFIG)] = f"--config-file={folder / 'config.yaml'}"
    for variable in workload.container.get("env", ()):
        monkeypatch.setenv(variable["name"], variable.get("value", "from-elsewhere"))
    if part == "extender":
        return ExtenderSettings.load(arguments)
    if part == "webhook":
        return load_webhook_settings(arguments)[0]
    return load_plugin_settings(arguments)[0]


@pytest.mark.parametrize("part", ["extender", "plugin", "webhook"])
def test_the_service_reads_what_its_container_is_given(
    part: str, release: list[Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: Any = settings_of(part, release, folder=tmp_path, monkeypatch=monkeypatch)
    ports = workloads(release)[part].ports

    assert settings.host == "0.0.0.0"
    match part:
        case "extender":
            assert (settings.port, settings.pages_port) == (ports["verbs"], ports["pages"])
            assert settings.redis_url
        case "webhook":
            assert (settings.port, settings.metrics_port) == (ports["https"], ports["metrics"])
        case "plugin":
            assert settings.port == ports["metrics"]
            assert settings.node_name == "from-elsewhere"


def test_all_three_count_in_the_same_unit(
    release: list[Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = [
        settings_of(part, release, folder=tmp_path, monkeypatch=monkeypatch)
        for part in ("extender", "plugin", "webhook")
    ]

    assert len({settings.memory_unit_mib for settings in found}) == 1


def test_what_files_say_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = chart.manifests(chart.values_of("everything"))
    webhook: Any = settings_of("webhook", manifests, folder=tmp_path, monkeypatch=monkeypatch)
    plugin: Any = settings_of("plugin", manifests, folder=tmp_path, monkeypatch=monkeypatch)

    assert (webhook.nvidia_gpu, webhook.scheduler_name) == ("whole", "gpus")
    assert (plugin.usage_seconds, plugin.replicas, plugin.evict_overuse) == (5, None, True)


def test_the_webhook_sends_gpu_pods_to_the_scheduler_that_runs() -> None:
    manifests = chart.manifests(chart.values_of("default"))
    config = yaml.safe_load(of_kind(manifests, "ConfigMap")["fracgpu-scheduler"]["data"]["kube-scheduler-config.yaml"])
    (profile,) = config["profiles"]

    assert f"--scheduler-name={profile['schedulerName']}" in workloads(manifests)["webhook"].container["args"]
    existing = workloads(chart.manifests(chart.values_of("existing")))["webhook"].container["args"]
    assert not any(argument.startswith("--scheduler-name") for argument in existing)


def test_the_scheduler_shows_the_certificate_that_the_extender_lets_in() -> None:
    manifests = chart.manifests(chart.values_of("default"))
    found = workloads(manifests)
    config = yaml.safe_load(of_kind(manifests, "ConfigMap")["fracgpu-scheduler"]["data"]["kube-scheduler-config.yaml"])
    (extender,) = config["extenders"]
    service = of_kind(manifests, "Service")["fracgpu-extender"]
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"

    assert extender["urlPrefix"] == f"https://{host}:8080"
    assert extender["tlsConfig"]["serverName"] == host
    folder = next(
        mount["mountPath"] for mount in found["scheduler"].container["volumeMounts"] if mount["name"] == "tls"
    )
    assert {Path(extender["tlsConfig"][key]).parent for key in ("caFile", "certFile", "keyFile")} == {Path(folder)}
    assert "--tls-client-names=fracgpu-scheduler" in found["extender"].container["args"]
    lease = config["leaderElection"]
    assert lease["resourceName"] in of_kind(manifests, "Lease")
    assert lease["resourceNamespace"] == chart.NAMESPACE
