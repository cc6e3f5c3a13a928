"""What the chart's objects say of one another: who is selected, called, mounted, let through, and by which name."""

import base64
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.deploy import chart
from tests.deploy.chart import Manifest
from tests.deploy.workloads import Workload, of_kind, workloads

NOT_OF_THE_CHART = {
    "existing": {
        "fracgpu-extender-tls",
        "fracgpu-scheduler-tls",
        "fracgpu-plugin-tls",
        "webhook-certificate",
        "redis-ca",
        "redis-for-fracgpu",
    }
}
"""Values file -> Secrets that the user brings."""


@pytest.fixture(params=chart.VALUES)
def release(request: pytest.FixtureRequest) -> tuple[str, list[Manifest]]:
    name: str = request.param
    return name, chart.manifests(chart.values_of(name))


def selects(selector: dict[str, str], workload: Workload) -> bool:
    return selector.items() <= workload.labels.items()


def test_every_service_leads_to_one_workload_and_its_ports(release: tuple[str, list[Manifest]]) -> None:
    _, manifests = release
    for name, service in of_kind(manifests, "Service").items():
        (workload,) = (found for found in workloads(manifests).values() if selects(service["spec"]["selector"], found))
        assert workload.manifest["metadata"]["name"] == name
        for port in service["spec"]["ports"]:
            assert port["targetPort"] == workload.ports[port["name"]]


def test_selectors_of_one_part_select_no_other(release: tuple[str, list[Manifest]]) -> None:
    _, manifests = release
    found = workloads(manifests)
    for workload in found.values():
        if workload.part == "test":
            continue
        selector = workload.manifest["spec"]["selector"]["matchLabels"]
        assert [other.part for other in found.values() if selects(selector, other)] == [workload.part]
    for name, budget in of_kind(manifests, "PodDisruptionBudget").items():
        (budgeted,) = (other for other in found.values() if selects(budget["spec"]["selector"]["matchLabels"], other))
        assert budgeted.manifest["metadata"]["name"] == name


def test_the_registrations_call_the_webhook(release: tuple[str, list[Manifest]]) -> None:
    _, manifests = release
    configurations = of_kind(manifests, "MutatingWebhookConfiguration")
    configurations |= of_kind(manifests, "ValidatingWebhookConfiguration")
    for configuration in (
        found
        for found in manifests
        if found["kind"] in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    ):
        (hook,) = configuration["webhooks"]
        called = hook["clientConfig"]["service"]
        service = of_kind(manifests, "Service")[called["name"]]
        assert called["namespace"] == service["metadata"]["namespace"]
        assert called["port"] in [port["port"] for port in service["spec"]["ports"]]
        assert called["path"] == {"Mutating": "/mutate", "Validating": "/validate"}[configuration["kind"][:-20]]
    assert set(configurations) == {"fracgpu"}, "the name that the webhook itself looks for"


def test_what_is_mounted_and_read_exists(release: tuple[str, list[Manifest]]) -> None:
    name, manifests = release
    secrets = set(of_kind(manifests, "Secret")) | NOT_OF_THE_CHART.get(name, set())
    secrets |= {found["spec"]["secretName"] for found in of_kind(manifests, "Certificate").values()}
    for workload in workloads(manifests).values():
        volumes = {volume["name"]: volume for volume in workload.spec.get("volumes", ())}
        volumes |= {
            claim["metadata"]["name"]: claim for claim in workload.manifest["spec"].get("volumeClaimTemplates", ())
        }
        assert {mount["name"] for mount in workload.container["volumeMounts"]} == set(volumes) if volumes else True
        for volume in volumes.values():
            if "secret" in volume:
                assert volume["secret"]["secretName"] in secrets
            if "configMap" in volume:
                assert volume["configMap"]["name"] in of_kind(manifests, "ConfigMap")
        for variable in workload.container.get("env", ()):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            assert reference is None or reference["name"] in secrets
        account = workload.spec.get("serviceAccountName")
        assert account is None or account in of_kind(manifests, "ServiceAccount")
    for monitor in of_kind(manifests, "ServiceMonitor").values():
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["tlsConfig"]["ca"]["secret"]["name"] in secrets
        assert selects_service(monitor, manifests)["metadata"]["name"] in endpoint["tlsConfig"]["serverName"]


def selects_service(monitor: Manifest, manifests: list[Manifest]) -> Manifest:
    """The one Service that a ServiceMonitor scrapes, which has the port that it names."""
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (service,) = (
        found for found in of_kind(manifests, "Service").values() if wanted <= found["metadata"]["labels"].items()
    )
    assert monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    return service


def test_network_policies_name_ports_that_are_listened_to_and_pods_that_exist(
    release: tuple[str, list[Manifest]],
) -> None:
    _, manifests = release
    found = workloads(manifests)
    policies = of_kind(manifests, "NetworkPolicy")
    (everything,) = (policy for policy in policies.values() if "ingress" not in policy["spec"])
    assert all(selects(everything["spec"]["podSelector"]["matchLabels"], workload) for workload in found.values())
    for policy in policies.values():
        for rule in policy["spec"].get("ingress", ()):
            (target,) = (w for w in found.values() if selects(policy["spec"]["podSelector"]["matchLabels"], w))
            assert {port["port"] for port in rule["ports"]} <= set(target.ports.values())
            for peer in rule.get("from", ()):
                if "podSelector" in peer:
                    assert any(selects(peer["podSelector"]["matchLabels"], workload) for workload in found.values())


def test_only_what_may_be_called_from_everywhere_is(release: tuple[str, list[Manifest]]) -> None:
    name, manifests = release
    open_ports = {
        port["port"]
        for policy in of_kind(manifests, "NetworkPolicy").values()
        for rule in policy["spec"].get("ingress", ())
        if "from" not in rule
        for port in rule["ports"]
    }

    assert open_ports == (set() if name == "existing" else {8443}), "kube-apiserver has no selector"


def test_the_kubelets_probes_ask_a_port_that_wants_no_certificate(release: tuple[str, list[Manifest]]) -> None:
    _, manifests = release
    for workload in workloads(manifests).values():
        for probe in ("readinessProbe", "livenessProbe"):
            asked = workload.container.get(probe, {}).get("httpGet")
            if asked is not None:
                assert asked["port"] in workload.ports.keys() - {"verbs"}
                assert asked["scheme"] == "HTTPS"


def test_what_monitoring_needs_is_in_the_chart() -> None:
    manifests = chart.manifests(chart.values_of("everything"))
    (rule,) = of_kind(manifests, "PrometheusRule").values()
    dashboard = json.loads(of_kind(manifests, "ConfigMap")["gpus-dashboard"]["data"]["fracgpu.json"])

    assert [group for group in rule["spec"]["groups"] if group["rules"]]
    assert dashboard["panels"]
    assert all(m["spec"]["endpoints"][0]["honorLabels"] for m in of_kind(manifests, "ServiceMonitor").values())


def test_the_policies_know_the_accounts(release: tuple[str, list[Manifest]]) -> None:
    _, manifests = release
    text = json.dumps([m for m in manifests if m["kind"] == "ValidatingAdmissionPolicy"])
    for part in ("extender", "plugin"):
        account = workloads(manifests)[part].spec["serviceAccountName"]
        assert f"'system:serviceaccount:{chart.NAMESPACE}:{account}'" in text


def test_no_pod_has_more_than_it_needs(release: tuple[str, list[Manifest]]) -> None:
    """Whatever the values are; what the plugin has beyond that is for it alone."""
    name, manifests = release
    for workload in workloads(manifests).values():
        security = workload.container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert workload.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        is_privileged = workload.part == "plugin" and name in ("everything", "gke")
        assert security.get("privileged", False) is is_privileged
        if not is_privileged:
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["allowPrivilegeEscalation"] is False
        if workload.part != "plugin":
            assert workload.spec["securityContext"]["runAsNonRoot"] is True
            assert not workload.spec.keys() & {"hostPID", "hostNetwork", "hostIPC"}
            assert not any("hostPath" in volume for volume in workload.spec.get("volumes", ()))
        if workload.part in ("redis", "test"):
            assert workload.spec["automountServiceAccountToken"] is False


def test_the_plugin_sees_of_the_host_what_its_settings_need() -> None:
    def host_paths(name: str) -> set[str]:
        spec = workloads(chart.manifests(chart.values_of(name)))["plugin"].spec
        return {volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume}

    always = {"/var/lib/kubelet/device-plugins", "/var/lib/kubelet/pod-resources", "/sys/fs/cgroup"}
    assert host_paths("default") == always
    assert host_paths("gpu-operator") == always | {"/", "/etc/cdi", "/var/run/cdi"}
    assert host_paths("everything") == always | {"/", "/etc/cdi", "/var/run/cdi", "/run/fracgpu/mps"}


def secret_files(manifests: list[Manifest], name: str) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in of_kind(manifests, "Secret")[name]["data"].items()}


def names_of(certificate: x509.Certificate) -> set[str]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(extension.value.get_values_for_type(x509.DNSName))


def common_name(certificate: x509.Certificate) -> Any:
    return certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


def test_helms_certificates_are_for_the_services_and_of_one_authority() -> None:
    manifests = chart.manifests(chart.values_of("default"))
    authorities = set()
    for part in ("extender", "plugin", "redis", "scheduler"):
        files = secret_files(manifests, f"fracgpu-{part}-tls")
        certificate = x509.load_pem_x509_certificate(files["tls.crt"])
        authority = x509.load_pem_x509_certificate(files["ca.crt"])
        certificate.verify_directly_issued_by(authority)
        authorities.add(authority)
        if part == "scheduler":
            assert common_name(certificate) == "fracgpu-scheduler"
            usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            assert ExtendedKeyUsageOID.CLIENT_AUTH in usage
        else:
            assert of_kind(manifests, "Service")[f"fracgpu-{part}"]
            assert f"fracgpu-{part}.{chart.NAMESPACE}.svc" in names_of(certificate)
            assert common_name(certificate) != "fracgpu-scheduler"
    assert len(authorities) == 1


def test_cert_managers_certificates_are_for_the_services() -> None:
    manifests = chart.manifests(chart.values_of("cert-manager"))
    certificates = of_kind(manifests, "Certificate")
    issuers = of_kind(manifests, "Issuer")

    for name, service in of_kind(manifests, "Service").items():
        assert f"{name}.{service['metadata']['namespace']}.svc" in certificates[name]["spec"]["dnsNames"]
    assert certificates["fracgpu-scheduler"]["spec"]["commonName"] == "fracgpu-scheduler"
    for certificate in certificates.values():
        assert certificate["spec"]["issuerRef"]["name"] in issuers
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        (configuration,) = of_kind(manifests, kind).values()
        injected = configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
        assert injected == f"{chart.NAMESPACE}/fracgpu-webhook"


def test_plain_gpu_requests_reach_the_webhook_only_where_it_reads_them() -> None:
    for name in chart.VALUES:
        for manifest in chart.manifests(chart.values_of(name)):
            if manifest["kind"] in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
                (condition,) = manifest["webhooks"][0]["matchConditions"]
                assert ("'nvidia.com/gpu'" in condition["expression"]) is (name == "everything")
