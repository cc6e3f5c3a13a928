"""deploy/ on a real kube-apiserver and kube-scheduler."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
import yaml

from fracgpu.errors import QuantityError
from fracgpu.gpunodes import GpuNode
from fracgpu.quantities import parse_quantity
from tests.deploy.conftest import DEPLOY, EXTENDER, PLUGIN, PODS, WEBHOOK, Api, documents, path_of, pod, refused_pod
from tests.deploy.gpunodes import NODE, gpunode
from tests.realcluster import RealControlPlane, User, missing_binaries
from tests.vocabulary.quantity_cases import INVALID, STRICTER, VALID

pytestmark = pytest.mark.e2e

GPUNODES = "/apis/fracgpu.io/v1alpha1/gpunodes"
MEMORY = "fracgpu.io/memory"
EXAMPLES = DEPLOY.parent / "examples"
APPLY = "application/apply-patch+yaml"


# --- the custom resource


def test_the_crd_is_established(api: Api) -> None:
    status, crd = api.call("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gpunodes.fracgpu.io")

    conditions = {condition["type"]: condition["status"] for condition in crd["status"]["conditions"]}
    assert status == 200
    assert conditions["Established"] == "True"
    assert "NonStructuralSchema" not in conditions


def test_a_gpunode_comes_back_as_the_plugin_wrote_it(api: Api) -> None:
    """Written by server-side apply under the plugin's own rights, and by the type that everybody reads it with."""
    plugin = api.as_user(PLUGIN)
    written = gpunode("node-1")
    head = {key: written[key] for key in ("apiVersion", "kind", "metadata")}
    query = "?fieldManager=fracgpu-plugin&force=true"

    created, _ = plugin.call("PATCH", f"{GPUNODES}/node-1{query}", head | {"spec": written["spec"]}, content_type=APPLY)
    patched, answer = plugin.call(
        "PATCH", f"{GPUNODES}/node-1/status{query}", head | {"status": written["status"]}, content_type=APPLY
    )

    assert (created, patched) == (201, 200), answer
    status, stored = api.as_user(EXTENDER).call("GET", f"{GPUNODES}/node-1")
    assert status == 200
    assert (stored["spec"], stored["status"]) == (written["spec"], written["status"])
    node = msgspec.convert(stored, GpuNode)
    assert (node.spec, node.status) == (NODE.spec, NODE.status)


def test_defaults_and_null_are_kept_apart(api: Api) -> None:
    written = gpunode("node-2")
    gpu = written["spec"]["gpus"][0]
    del gpu["healthy"]
    gpu["numaNode"] = None
    written["spec"]["gpus"] = [gpu]

    _, stored = api.call("POST", GPUNODES, written)

    assert stored["spec"]["gpus"] == [gpu | {"healthy": True}]
    assert "status" not in stored, "the status is written by itself only"


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"units": -1}, "spec.gpus[0].units"),
        ({"units": 31}, "a GPU offers more units than its memory holds"),
        ({"replicas": 0}, "spec.gpus[0].replicas"),
        ({"uuid": ""}, "spec.gpus[0].uuid"),
        ({"memoryMiB": "15360"}, "spec.gpus[0].memoryMiB"),
    ],
)
def test_a_gpunode_that_cannot_be_is_refused(api: Api, change: dict[str, Any], want: str) -> None:
    written = gpunode("node-3")
    written["spec"]["gpus"][0] |= change

    status, answer = api.call("POST", GPUNODES, written)

    assert status == 422
    assert want in answer["message"]


def test_kubectl_get_shows_the_first_gpu(api: Api) -> None:
    api.call("POST", GPUNODES, gpunode("node-4"))

    status, table = api.call_as_table(f"{GPUNODES}/node-4")

    assert status == 200
    shown = dict(zip((column["name"] for column in table["columnDefinitions"]), table["rows"][0]["cells"], strict=True))
    shown.pop("Age")
    assert shown == {
        "Name": "node-4",
        "Product": "Tesla T4",
        "MiB": 15360,
        "Units": 30,
        "Unit-MiB": 512,
        "Seats": 4,
        "Isolation": None,
        "Enforced": None,
        "Observed": None,
    }


# --- rights

RESOURCES = {
    "": [
        ("pods", ""),
        ("pods", "binding"),
        ("pods", "status"),
        ("pods", "eviction"),
        ("bindings", ""),
        ("nodes", ""),
        ("nodes", "status"),
        ("secrets", ""),
        ("configmaps", ""),
        ("events", ""),
    ],
    "fracgpu.io": [("gpunodes", ""), ("gpunodes", "status"), ("sharingpolicies", ""), ("sharingpolicies", "status")],
    "coordination.k8s.io": [("leases", "")],
    "policy": [("poddisruptionbudgets", ""), ("poddisruptionbudgets", "status")],
}
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
ALLOWED: dict[User, set[str]] = {
    WEBHOOK: {"list gpunodes", "watch gpunodes"},  # without a name; by name see NAMED_RIGHTS
    EXTENDER: {
        "list sharingpolicies",
        "watch sharingpolicies",
        "patch sharingpolicies/status",
        "get pods",
        "list pods",
        "watch pods",
        "list nodes",
        "watch nodes",
        "create pods/binding",
        "get gpunodes",
        "list gpunodes",
        "watch gpunodes",
        "list poddisruptionbudgets",
        "watch poddisruptionbudgets",
        "create events",
        "patch events",
    },
    PLUGIN: {
        "get pods",
        "list pods",
        "watch pods",
        "get nodes",
        "list nodes",
        "watch nodes",
        "list sharingpolicies",
        "watch sharingpolicies",
        "get gpunodes",
        "list gpunodes",
        "watch gpunodes",
        "create gpunodes",
        "patch gpunodes",
        "patch gpunodes/status",
        "create events",
        "patch events",
    },
}  # who -> all that is allowed


@pytest.mark.parametrize("user", ALLOWED, ids=lambda user: user.name.rpartition(":")[2])
def test_each_service_may_do_exactly_this(api: Api, user: User) -> None:
    allowed = set()
    for group, resources in RESOURCES.items():
        for resource, subresource in resources:
            for verb in VERBS:
                attributes = {"group": group, "resource": resource, "subresource": subresource, "verb": verb}
                _, review = api.call(
                    "POST",
                    "/apis/authorization.k8s.io/v1/subjectaccessreviews",
                    {
                        "apiVersion": "authorization.k8s.io/v1",
                        "kind": "SubjectAccessReview",
                        "spec": {
                            "user": user.name,
                            "groups": list(user.groups),
                            "resourceAttributes": attributes | {"namespace": "team-a"},
                        },
                    },
                )
                if review["status"]["allowed"]:
                    allowed.add(f"{verb} {resource}{'/' if subresource else ''}{subresource}")

    assert allowed == ALLOWED[user]


NAMED_RIGHTS: dict[str, tuple[dict[str, str], set[str]]] = {
    "its Secret": (
        {"resource": "secrets", "namespace": "fracgpu-system", "name": "fracgpu-webhook-tls"},
        {"list", "watch", "patch"},
    ),
    "another Secret": ({"resource": "secrets", "namespace": "fracgpu-system", "name": "other"}, set()),
    "all Secrets": ({"resource": "secrets", "namespace": "fracgpu-system"}, set()),
    "such a Secret elsewhere": ({"resource": "secrets", "namespace": "team-a", "name": "fracgpu-webhook-tls"}, set()),
    **{
        f"{name or 'all'} {plural}": (
            {"group": "admissionregistration.k8s.io", "resource": plural} | ({"name": name} if name else {}),
            {"list", "watch", "patch"} if name == "fracgpu" else set(),
        )
        for plural in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
        for name in ("fracgpu", "other", "")
    },
}  # case -> what the webhook asks for, the verbs that it is allowed


@pytest.mark.parametrize(("attributes", "want"), NAMED_RIGHTS.values(), ids=NAMED_RIGHTS)
def test_the_webhook_has_rights_by_name_only(api: Api, attributes: dict[str, str], want: set[str]) -> None:
    allowed = set()
    for verb in VERBS:
        _, review = api.call(
            "POST",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {
                    "user": WEBHOOK.name,
                    "groups": list(WEBHOOK.groups),
                    "resourceAttributes": attributes | {"verb": verb},
                },
            },
        )
        if review["status"]["allowed"]:
            allowed.add(verb)

    assert allowed == want


def test_the_extender_binds_with_the_plan_and_the_uid(api: Api) -> None:
    """The right to create pods/binding is enough for a Binding that annotates the pod."""
    extender = api.as_user(EXTENDER)
    _, made = api.call("POST", PODS, pod("to-bind"))
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {
            "name": "to-bind",
            "namespace": "team-a",
            "uid": made["metadata"]["uid"],
            "annotations": {"fracgpu.io/allocation": "{}"},
        },
        "target": {"apiVersion": "v1", "kind": "Node", "name": "node-1"},
    }
    stranger = binding | {"metadata": {"name": "to-bind", "namespace": "team-a", "uid": "another"}}

    assert extender.call("POST", f"{PODS}/to-bind/binding", stranger)[0] == 409
    assert extender.call("POST", f"{PODS}/to-bind/binding", binding)[0] == 201

    _, bound = extender.call("GET", f"{PODS}/to-bind")
    assert bound["spec"]["nodeName"] == "node-1"
    assert bound["metadata"]["annotations"] == {"fracgpu.io/allocation": "{}"}


# --- the webhook


@pytest.mark.parametrize(
    ("name", "container", "want"),
    [
        ("plain", {}, {"limits": {MEMORY: "8"}, "requests": {MEMORY: "8"}}),
        ("nulls", {"resources": None}, {"limits": {MEMORY: "8"}, "requests": {MEMORY: "8"}}),
        (
            "beside",
            {"resources": {"limits": {"cpu": "1"}, "requests": {"memory": "1Gi"}}},
            {"limits": {"cpu": "1", MEMORY: "8"}, "requests": {"cpu": "1", "memory": "1Gi", MEMORY: "8"}},
        ),
    ],
)
def test_an_annotated_pod_is_stored_with_its_limits(
    admission: Api, name: str, container: dict[str, Any], want: dict[str, Any]
) -> None:
    status, stored = admission.call("POST", PODS, pod(name, {"fracgpu.io/gpu-memory": "4Gi"}, **container))

    assert status == 201, stored
    assert stored["spec"]["containers"][0]["resources"] == want


def test_kube_apiserver_defaults_requests_before_the_webhook_looks(admission: Api) -> None:
    """Limits only, written directly: what the webhook sees has equal requests, so comparing the two refuses nothing."""
    status, stored = admission.call("POST", PODS, pod("direct", resources={"limits": {MEMORY: "6"}}))

    assert status == 201, stored
    assert stored["spec"]["containers"][0]["resources"] == {"limits": {MEMORY: "6"}, "requests": {MEMORY: "6"}}


def test_a_mistake_is_refused_with_the_sentence(admission: Api) -> None:
    status, answer = admission.call("POST", PODS, refused_pod())

    assert (status, answer["reason"]) == (403, "Forbidden")
    assert answer["message"].startswith(
        "admission webhook \"pods.fracgpu.io\" denied the request: annotation fracgpu.io/gpu-memory is 'much'; "
    )


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on this machine")
def test_kubectl_shows_the_file_and_the_sentence(admission: Api, plane: RealControlPlane, tmp_path: Path) -> None:
    manifest = tmp_path / "mistake.json"
    manifest.write_text(json.dumps(refused_pod()))

    done = subprocess.run(
        ["kubectl", f"--kubeconfig={plane.kubeconfig()}", "create", "--namespace=team-a", "-f", manifest],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert done.stderr.startswith(
        f'Error from server (Forbidden): error when creating "{manifest}": '
        'admission webhook "pods.fracgpu.io" denied the request: annotation fracgpu.io/gpu-memory'
    )


def test_a_running_pod_may_be_annotated_as_far_as_the_webhook_is_concerned(admission: Api) -> None:
    """Who may write our annotations is held by deploy/kustomize/admission, also while the webhook is down."""
    admission.call("POST", PODS, pod("running", {"fracgpu.io/gpu-memory": "4Gi"}))

    status, patched = admission.call(
        "PATCH",
        f"{PODS}/running",
        {"metadata": {"annotations": {"fracgpu.io/allocation": "{}"}}},
        content_type="application/merge-patch+json",
    )

    assert status == 200, patched


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir()))
def test_an_example_is_admitted_or_refused(admission: Api, name: str) -> None:
    manifest = yaml.safe_load((EXAMPLES / name).read_text())
    namespace = manifest["metadata"]["namespace"]
    if manifest["kind"] == "Deployment":
        status, answer = admission.call("POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", manifest)
    else:
        status, answer = admission.call("POST", f"/api/v1/namespaces/{namespace}/pods", manifest)

    assert status == (403 if "mistyped" in name else 201), answer


def test_without_the_webhook_only_pods_that_ask_for_a_gpu_have_to_wait(api: Api) -> None:
    """The conditions of the configuration, with nobody listening."""
    (configuration,) = documents("webhook/mutatingwebhookconfiguration.yaml")
    configuration["webhooks"][0]["clientConfig"] = {"url": "https://127.0.0.1:1/mutate"}
    configuration["webhooks"][0]["name"] = "absent.fracgpu.io"
    configuration["metadata"]["name"] = "absent"
    api.apply(configuration)
    try:
        asking = {
            "by annotation": pod("p", {"fracgpu.io/gpu-memory": "4Gi"}),
            "by annotation in capitals": pod("p", {"FracGPU.io/gpu-memory": "4Gi"}),
            "more annotations than are looked through": pod("p", {f"example.com/a{n}": "" for n in range(1001)}),
            "by limit": pod("p", resources={"limits": {MEMORY: "4"}}),
            "by request": pod("p", resources={"limits": {"cpu": "1"}, "requests": {"fracgpu.io/x": "4"}}),
            "in an init container": with_init(pod("p"), {"limits": {MEMORY: "4"}}),
            "gpushare": pod("p", resources={"limits": {"aliyun.com/gpu-mem": "4"}}),
            "HAMi": pod("p", resources={"limits": {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "3000"}}),
            "HAMi by annotation": pod("p", {"nvidia.com/use-gputype": "A100"}),
            "KAI": pod("p", {"gpu-fraction": "0.5"}),
            "kai-gpu-fractioning": pod("p", {"nvidia.com/container.main.gpu-memory.request": "4Gi"}),
            "gpu-manager": pod("p", resources={"limits": {"tencent.com/vcuda-core": "100"}}),
        }
        others = {
            "nothing": pod("p"),
            "annotations of others": pod("p", {"example.com/fracgpu.io": "x"}),
            "many of them": pod("p", {f"example.com/a{n}": "" for n in range(1000)}),
            "other resources": pod("p", resources={"limits": {"nvidia.com/gpu": "1"}}),
            "an init container": with_init(pod("p"), {}),
        }
        api.wait_until(lambda: api.call("POST", f"{PODS}?dryRun=All", asking["by annotation"])[0] == 500)

        for case, manifest in asking.items():
            assert api.call("POST", f"{PODS}?dryRun=All", manifest)[0] == 500, case
        for case, manifest in others.items():
            assert api.call("POST", f"{PODS}?dryRun=All", manifest)[0] == 201, case
    finally:
        api.call("DELETE", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/absent")


def with_init(manifest: dict[str, Any], resources: dict[str, Any]) -> dict[str, Any]:
    manifest["spec"]["initContainers"] = [{"name": "warm", "image": "w", "resources": resources}]
    return manifest


# --- kube-scheduler


@pytest.mark.parametrize("file", ["service", "deployment"])
def test_the_webhooks_manifests_are_taken_without_a_word(api: Api, file: str) -> None:
    """Strictly: no field that kube-apiserver does not know, and no warning."""
    (manifest,) = documents(f"webhook/{file}.yaml")
    collection, _, _ = path_of(manifest).rpartition("/")
    status, warnings = api.warnings_of(f"{collection}?dryRun=All&fieldValidation=Strict", manifest)
    assert (status, warnings) == (201, [])


def test_kube_scheduler_takes_the_configuration(plane: RealControlPlane, api: Api, tmp_path: Path) -> None:
    if reason := missing_binaries("kube-scheduler"):
        pytest.skip(reason)

    configuration = yaml.safe_load((DEPLOY / "kustomize" / "scheduler" / "kube-scheduler-config.yaml").read_text())
    (extender,) = configuration["extenders"]
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    issued = authority.issue_cert("scheduler.example")
    issued.private_key_pem.write_to_path(tmp_path / "tls.key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    for key, file in (("caFile", "ca.crt"), ("certFile", "tls.crt"), ("keyFile", "tls.key")):
        extender["tlsConfig"][key] = str(tmp_path / file)
    path = tmp_path / "kube-scheduler-config.yaml"
    path.write_text(yaml.safe_dump(configuration))
    plane.start_scheduler(path)


# --- quantities


def test_quantities_are_read_as_kube_apiserver_reads_them(api: Api) -> None:
    """Each spelling is sent as a limit of an extended resource; a refusal to parse it is a 400.

    Not those with spaces around, or empty: JSON decoding forgives them, ParseQuantity itself does not.
    """
    for text in (*VALID, *(text for text in INVALID if text and text == text.strip()), *STRICTER):
        manifest = pod("quantity", resources={"limits": {"example.com/x": text}})
        status, answer = api.call("POST", f"{PODS}?dryRun=All", manifest)
        is_quantity = not (status == 400 and "quantit" in answer["message"])

        assert is_quantity is (text not in INVALID), (text, answer)
        if status == 201:
            stored = answer["spec"]["containers"][0]["resources"]["limits"]["example.com/x"]
            if text in VALID:
                assert parse_quantity(stored) == parse_quantity(text)
            else:
                with pytest.raises(QuantityError):
                    parse_quantity(text)
