"""The chart on a real kube-apiserver: every object is taken, and a release comes, changes and goes without a trace."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deploy import chart
from tests.deploy.conftest import Api
from tests.deploy.test_chart import FOREIGN
from tests.deploy.workloads import of_kind, workloads
from tests.realcluster import RealControlPlane

pytestmark = pytest.mark.e2e

NAMESPACE = f"/api/v1/namespaces/{chart.NAMESPACE}"
SECRETS = f"{NAMESPACE}/secrets"
CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/fracgpu"
MADE_BY_HELM = (
    "fracgpu-extender-tls",
    "fracgpu-plugin-tls",
    "fracgpu-scheduler-tls",
    "fracgpu-redis-tls",
    "fracgpu-redis",
)
BY_THE_CLUSTER = {"events", "leases", "apiservices", "endpoints", "endpointslices", "ipaddresses", "servicecidrs"}
"""What kube-apiserver and others make and forget in their own time."""


@pytest.fixture(scope="module")
def cluster(plane: RealControlPlane) -> Api:
    """A cluster with the namespace, and nothing else of ours."""
    api = Api(plane)
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": chart.NAMESPACE}})
    return api


@pytest.fixture
def release(plane: RealControlPlane, cluster: Api) -> Iterator[chart.Release]:
    release = chart.Release(plane.kubeconfig())
    yield release
    release.uninstall()
    release.close()


@pytest.mark.parametrize("name", chart.VALUES)
def test_kube_apiserver_takes_every_object_without_a_word(cluster: Api, name: str) -> None:
    """Strictly: no unknown field, no warning. CRDs and policies are really there when the rest is tried."""
    manifests = [found for found in chart.manifests(chart.values_of(name)) if found["apiVersion"] not in FOREIGN]
    lasting = [m for m in manifests if m["kind"] == "CustomResourceDefinition" or "AdmissionPolicy" in m["kind"]]
    for manifest in lasting:
        cluster.apply(manifest)
    cluster.wait_until(lambda: cluster.is_established("gpunodes") and cluster.is_established("sharingpolicies"))
    try:
        for manifest in manifests:
            status, message, warnings = cluster.tried(manifest)
            assert (status in (200, 201), warnings) == (True, []), (manifest["metadata"]["name"], message)
    finally:
        for manifest in lasting:
            cluster.delete(manifest)
        cluster.wait_until(lambda: not any(kind.endswith("fracgpu.io") for kind, _, _ in everything(cluster)))


def test_all_but_the_plugin_are_pods_of_the_restricted_kind(cluster: Api) -> None:
    """As Pod Security has it; the plugin's are let into a namespace for privileged ones only."""
    for level in ("restricted", "privileged"):
        labels = {"pod-security.kubernetes.io/enforce": level}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": level, "labels": labels}})
    values = chart.values_of("default") | {
        "redis": {"persistence": {"enabled": False}}
    }  # the claim would have to be there
    for part, workload in workloads(chart.manifests(values)).items():
        left_out = ("serviceAccountName", "runtimeClassName")  # likewise
        spec = {key: value for key, value in workload.spec.items() if key not in left_out}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": part}, "spec": spec}
        statuses = {
            level: cluster.call("POST", f"/api/v1/namespaces/{level}/pods?dryRun=All", pod)[0]
            for level in ("restricted", "privileged")
        }
        assert statuses == {"restricted": 403 if part == "plugin" else 201, "privileged": 201}, part


def everything(api: Api) -> set[tuple[str, str, str]]:
    """Resource, namespace and name of all objects that are there."""
    found = set()
    _, groups = api.call("GET", "/apis")
    bases = ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups["groups"])]
    for base in bases:
        _, served = api.call("GET", base)
        for resource in served.get("resources", ()):  # none of a group that has just gone
            if "list" not in resource["verbs"] or "/" in resource["name"] or resource["name"] in BY_THE_CLUSTER:
                continue
            _, listed = api.call("GET", f"{base}/{resource['name']}")
            kind = f"{resource['name']}.{base.split('/')[2]}"
            for item in listed.get("items", ()):
                found.add((kind, item["metadata"].get("namespace", ""), item["metadata"]["name"]))
    return found


def secrets(api: Api) -> dict[str, dict[str, str]]:
    """Name -> data of the Secrets that Helm makes."""
    return {name: api.call("GET", f"{SECRETS}/{name}")[1]["data"] for name in MADE_BY_HELM}


def kube_scheduler_pod() -> dict[str, Any]:
    """As kubeadm's is seen through the API."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "kube-scheduler-m1",
            "namespace": "kube-system",
            "labels": {"component": "kube-scheduler"},
        },
        "spec": {"containers": [{"name": "kube-scheduler", "image": "example.com/kube-scheduler:v1.36.2"}]},
    }


def deployment(api: Api, part: str) -> dict[str, Any]:
    _, found = api.call("GET", f"/apis/apps/v1/namespaces/{chart.NAMESPACE}/deployments/fracgpu-{part}")
    return found


def test_a_release_that_was_deleted_has_left_nothing(cluster: Api, release: chart.Release) -> None:
    before = everything(cluster)
    release.install(chart.values_of("default"))
    assert len(everything(cluster) - before) > 50
    gpunode = {"apiVersion": "fracgpu.io/v1alpha1", "kind": "GPUNode", "metadata": {"name": "n"}, "spec": {}}
    cluster.wait_until(lambda: cluster.is_established("gpunodes"))
    cluster.wait_until(lambda: cluster.call("POST", "/apis/fracgpu.io/v1alpha1/gpunodes", gpunode)[0] != 404)

    release.uninstall()

    cluster.wait_until(lambda: everything(cluster) == before)


def test_crds_stay_where_that_is_asked(cluster: Api, release: chart.Release) -> None:
    release.install(chart.values_of("default") | {"crds": {"keep": True}})
    release.uninstall()

    assert cluster.is_established("sharingpolicies")
    for crd in of_kind(chart.manifests(chart.values_of("default")), "CustomResourceDefinition").values():
        cluster.delete(crd)
    cluster.wait_until(lambda: not cluster.is_established("sharingpolicies"))


def test_an_upgrade_keeps_keys_and_what_the_webhook_wrote(cluster: Api, release: chart.Release) -> None:
    values = chart.values_of("default")
    release.install(values)
    made = secrets(cluster)
    checksums = deployment(cluster, "extender")["spec"]["template"]["metadata"]["annotations"]
    written = base64.b64encode(b"written by the webhook").decode()
    for path, body in (
        (f"{SECRETS}/fracgpu-webhook-tls", {"data": {"tls.key": written}}),
        (CONFIGURATION, {"webhooks": [{"name": "pods.fracgpu.io", "clientConfig": {"caBundle": CA_BUNDLE}}]}),
    ):
        status, answer = cluster.call("PATCH", path, body, content_type="application/strategic-merge-patch+json")
        assert status == 200, answer

    release.upgrade(values | {"extender": {"replicas": 3}})

    upgraded = deployment(cluster, "extender")
    assert upgraded["spec"]["replicas"] == 3
    assert upgraded["spec"]["template"]["metadata"]["annotations"] == checksums, "no pod is started again for nothing"
    assert secrets(cluster) == made
    assert cluster.call("GET", f"{SECRETS}/fracgpu-webhook-tls")[1]["data"] == {"tls.key": written}
    _, configuration = cluster.call("GET", CONFIGURATION)
    assert configuration["webhooks"][0]["clientConfig"]["caBundle"] == CA_BUNDLE


def test_certificates_are_made_anew_together_when_one_is_missing_or_old(cluster: Api, release: chart.Release) -> None:
    values = chart.values_of("default")
    release.install(values)
    made = secrets(cluster)

    cluster.call("DELETE", f"{SECRETS}/fracgpu-plugin-tls")
    release.upgrade(values)
    second = secrets(cluster)
    make_old(cluster, "fracgpu-redis-tls")
    release.upgrade(values)
    third = secrets(cluster)

    for name in MADE_BY_HELM:
        is_certificate = name.endswith("-tls")
        assert (made[name] != second[name], second[name] != third[name]) == (is_certificate, is_certificate), name
    assert len({third[name]["ca.crt"] for name in MADE_BY_HELM if name.endswith("-tls")}) == 1


def make_old(api: Api, name: str) -> None:
    """Let a Secret of Helm's say that it should have been renewed long ago; as Helm, which else finds a conflict."""
    path = f"{SECRETS}/{name}"
    _, found = api.call("GET", path)
    metadata = {key: found["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    metadata["annotations"]["fracgpu.io/renewed-from"] = "1"
    (manager,) = {entry["manager"] for entry in found["metadata"]["managedFields"]}
    status, answer = api.call(
        "PATCH",
        f"{path}?fieldManager={manager}&force=true",
        {"apiVersion": "v1", "kind": "Secret", "type": found["type"], "data": found["data"], "metadata": metadata},
        content_type="application/apply-patch+yaml",
    )
    assert status == 200, answer


def test_the_image_of_the_scheduler_that_runs_is_taken(cluster: Api, release: chart.Release) -> None:
    cluster.apply(kube_scheduler_pod())
    release.install({})

    (container,) = deployment(cluster, "scheduler")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "example.com/kube-scheduler:v1.36.2"
    cluster.delete(kube_scheduler_pod())


def test_modes_of_certificates_can_be_changed(cluster: Api, release: chart.Release) -> None:
    """From Helm's to Secrets of one's own, under the same names: Helm lets go of its own."""
    values = chart.values_of("default")
    release.install(values)
    release.upgrade(values | {"certificates": {"mode": "existing"}, "scheduler": {"enabled": False}})

    assert cluster.call("GET", f"{SECRETS}/fracgpu-extender-tls")[0] == 404
    assert deployment(cluster, "scheduler").get("code") == 404
    assert "scheduler" in workloads(chart.manifests(values))


CA_BUNDLE: str = of_kind(chart.manifests(chart.values_of("default")), "Secret")["fracgpu-extender-tls"]["data"][
    "ca.crt"
]
"""Some CA; kube-apiserver takes no bundle that is none."""
