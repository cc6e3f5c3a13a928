"""deploy/kustomize/admission/ on a real kube-apiserver: who may write what of pods, Bindings and GPUNodes."""

from typing import Any

import pytest

from fracgpu.names import ANNOTATION_ALLOCATION, ANNOTATION_GPU_MEMORY, RESOURCE_MEMORY
from tests.deploy.conftest import EXTENDER, KUBELET, PLUGIN, TENANT, Api, documents

pytestmark = pytest.mark.e2e

PODS = "/api/v1/namespaces/team-a/pods"
GPUNODES = "/apis/fracgpu.io/v1alpha1/gpunodes"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
DRY = "?dryRun=All"
AS_THE_PLUGIN = "?fieldManager=fracgpu-device-plugin&force=true"

Answer = tuple[int, dict[str, Any]]


@pytest.fixture(scope="module")
def cluster(api: Api) -> Api:
    """The administrator's view of a cluster in which the policies are in force."""
    everything = ["pods", "pods/status", "pods/ephemeralcontainers", "pods/resize", "pods/binding", "bindings"]
    api.allow(TENANT, "*", resources=everything)
    api.allow(PLUGIN, "*", resources=["gpunodes", "gpunodes/status"])
    api.apply(pod("probe", annotations={}))
    for name in ("admission/pods.yaml", "admission/gpunodes.yaml"):
        for manifest in documents(name):
            api.apply(manifest)
    forged, tenant = {ANNOTATION_ALLOCATION: "{}"}, api.as_user(TENANT)
    api.wait_until(lambda: tenant.call("POST", PODS + DRY, pod("forged", annotations=forged))[0] == 403)
    api.wait_until(lambda: bind(tenant, "probe", forged, query=DRY)[0] == 403)
    api.wait_until(lambda: debug(tenant, "probe", env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}])[0] == 403)
    api.wait_until(lambda: api.as_user(PLUGIN).call("POST", GPUNODES + DRY, gpunode("any"))[0] == 403)
    return api


@pytest.fixture
def tenant(cluster: Api) -> Api:
    return cluster.as_user(TENANT)


def pod(name: str, *, annotations: dict[str, str] | None = None, **spec: object) -> dict[str, Any]:
    """A pod; with None it has no annotations at all."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "team-a"}
        | ({} if annotations is None else {"annotations": annotations}),
        "spec": {"containers": [{"name": "main", "image": "example.com/app:1"}]} | spec,
    }


def asking(name: str, **spec: object) -> dict[str, Any]:
    """A pod as the webhook leaves it."""
    resources = {"limits": {RESOURCE_MEMORY: "8"}}
    main = {"name": "main", "image": "example.com/app:1", "resources": resources}
    return pod(name, annotations={ANNOTATION_GPU_MEMORY: "4Gi"}, **({"containers": [main]} | spec))


def made(api: Api, manifest: dict[str, Any]) -> str:
    """Create a pod and return its path."""
    status, answer = api.call("POST", PODS, manifest)
    assert status == 201, answer
    return f"{PODS}/{manifest['metadata']['name']}"


def bind(api: Api, name: str, annotations: dict[str, str] | None, *, query: str = "", old_way: bool = False) -> Answer:
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "namespace": "team-a"}
        | ({} if annotations is None else {"annotations": annotations}),
        "target": {"apiVersion": "v1", "kind": "Node", "name": "node-1"},
    }
    path = "/api/v1/namespaces/team-a/bindings" if old_way else f"{PODS}/{name}/binding"
    return api.call("POST", path + query, binding)


def debug(api: Api, name: str, **container: object) -> Answer:
    """Try to add an ephemeral container, as ``kubectl debug`` does."""
    added = {"name": "debugger", "image": "example.com/tools:1", **container}
    path = f"{PODS}/{name}/ephemeralcontainers{DRY}"
    return api.call("PATCH", path, {"spec": {"ephemeralContainers": [added]}}, content_type=STRATEGIC)


def annotations_of(api: Api, path: str) -> dict[str, str] | None:
    found: dict[str, str] | None = api.call("GET", path)[1]["metadata"].get("annotations")
    return found


# --- annotations of pods


def test_nobody_creates_a_pod_with_an_allocation(cluster: Api) -> None:
    cluster.allow(EXTENDER, "create", "patch", resources=["pods", "pods/status"])
    for user in (cluster, cluster.as_user(TENANT), cluster.as_user(EXTENDER)):
        status, answer = user.call("POST", PODS, pod("forged", annotations={ANNOTATION_ALLOCATION: "{}"}))

        assert status == 403
        assert (
            "denied request: annotation fracgpu.io/allocation is set, and only fracgpu writes it" in answer["message"]
        )


@pytest.mark.parametrize("annotations", [None, {}, {"example.com/a": "b"}, {ANNOTATION_GPU_MEMORY: "4Gi"}])
def test_other_pods_are_created(tenant: Api, annotations: dict[str, str] | None) -> None:
    assert tenant.call("POST", PODS + DRY, pod("fine", annotations=annotations))[0] == 201
    applied = tenant.call("PATCH", f"{PODS}/fine{DRY}&fieldManager=kubectl", pod("fine"), content_type=APPLY)
    assert applied[0] == 201


@pytest.mark.parametrize(
    ("name", "change", "want"),
    [
        ("adds", {ANNOTATION_ALLOCATION: "{}"}, "annotation fracgpu.io/allocation of pod {} is added, "),
        ("changes", {ANNOTATION_GPU_MEMORY: "1Gi"}, "annotation fracgpu.io/gpu-memory of pod {} is changed, "),
        ("removes", {ANNOTATION_GPU_MEMORY: None}, "annotation fracgpu.io/gpu-memory of pod {} is removed, "),
        ("clears", None, "annotation fracgpu.io/gpu-memory of pod {} is removed, "),
    ],
)
def test_a_tenant_cannot_change_what_a_pod_was_created_with(tenant: Api, name: str, change: Any, want: str) -> None:
    path = made(tenant, asking(name))
    patch = {"metadata": {"annotations": change}}

    for subresource in ("", "/status"):
        status, answer = tenant.call("PATCH", path + subresource, patch, content_type=MERGE)
        assert status == 403
        assert want.format(name) in answer["message"]
    for subresource in ("/ephemeralcontainers", "/resize"):  # these leave metadata alone, in some versions or all
        tenant.call("PATCH", path + subresource, patch, content_type=MERGE)
    _, stored = tenant.call("GET", path)
    for subresource in ("", "/status", "/ephemeralcontainers", "/resize"):
        stored["metadata"]["annotations"] = {ANNOTATION_GPU_MEMORY: "1Gi", ANNOTATION_ALLOCATION: "{}"}
        tenant.call("PUT", path + subresource, stored)

    assert annotations_of(tenant, path) == {ANNOTATION_GPU_MEMORY: "4Gi"}


def test_an_annotation_is_not_applied_by_another_field_manager(cluster: Api, tenant: Api) -> None:
    path = made(tenant, pod("applied"))
    forged = {"apiVersion": "v1", "kind": "Pod", "metadata": {"annotations": {ANNOTATION_ALLOCATION: "{}"}}}

    for user in (tenant, cluster):
        assert user.call("PATCH", f"{path}?fieldManager=a&force=true", forged, content_type=APPLY)[0] == 403
        assert user.call("PATCH", f"{path}/status?fieldManager=a&force=true", forged, content_type=APPLY)[0] == 403


def test_the_extender_may(cluster: Api) -> None:
    cluster.allow(EXTENDER, "create", "patch", resources=["pods", "pods/status"])
    path = made(cluster, asking("corrected"))
    patch = {"metadata": {"annotations": {ANNOTATION_ALLOCATION: "{}"}}}

    status, answer = cluster.as_user(EXTENDER).call("PATCH", path, patch, content_type=MERGE)

    assert status == 200, answer


@pytest.mark.parametrize("asks", [True, False])
def test_what_is_not_ours_goes_on(cluster: Api, tenant: Api, asks: bool) -> None:
    """A kubelet's status, annotations of others, labels, finalizers, other ephemeral containers, and the end."""
    name = f"living-{asks}".lower()
    spec: dict[str, Any] = {"nodeName": "node-1"}
    path = made(cluster, asking(name, **spec) if asks else pod(name, **spec))
    uid = cluster.call("GET", path)[1]["metadata"]["uid"]
    conditions = [{"type": "Ready", "status": "True"}]
    seen = {"metadata": {"uid": uid}, "status": {"phase": "Running", "conditions": conditions}}

    answers = [
        cluster.as_user(KUBELET).call("PATCH", f"{path}/status", seen, content_type=STRATEGIC),
        tenant.call("PATCH", path, {"metadata": {"annotations": {"example.com/a": "b"}}}, content_type=MERGE),
        tenant.call("PATCH", path, {"metadata": {"labels": {"fracgpu.io/team": "a"}}}, content_type=MERGE),
        tenant.call("PATCH", path, {"metadata": {"finalizers": ["example.com/f"]}}, content_type=MERGE),
        debug(tenant, name),
        tenant.call("DELETE", path),
        cluster.as_user(KUBELET).call("PATCH", f"{path}/status", seen, content_type=STRATEGIC),
        tenant.call("PATCH", path, {"metadata": {"finalizers": None}}, content_type=MERGE),
    ]

    assert [status for status, _ in answers] == [200] * len(answers), answers


def test_every_way_to_change_a_pod_is_covered(cluster: Api) -> None:
    """A later Kubernetes may have more of them: subresources of pods whose updates send a whole Pod."""
    _, discovered = cluster.call("GET", "/api/v1")
    ways = {
        resource["name"]
        for resource in discovered["resources"]
        if resource["name"].split("/")[0] == "pods" and resource["kind"] == "Pod" and "update" in resource["verbs"]
    }
    policy = next(manifest for manifest in documents("admission/pods.yaml") if "pod-" in manifest["metadata"]["name"])
    rules = policy["spec"]["matchConstraints"]["resourceRules"]

    assert ways == {name for rule in rules if "UPDATE" in rule["operations"] for name in rule["resources"]}


# --- Bindings


@pytest.mark.parametrize("old_way", [False, True])
def test_a_binding_with_our_annotations_is_the_extenders(cluster: Api, tenant: Api, old_way: bool) -> None:
    name = f"bound-{old_way}".lower()
    path = made(tenant, asking(name))

    for user in (tenant, cluster):
        status, answer = bind(user, name, {"example.com/a": "b", ANNOTATION_ALLOCATION: "{}"}, old_way=old_way)
        assert status == 403
        assert f"the Binding of pod {name} has the annotation fracgpu.io/allocation, and only" in answer["message"]
    cluster.allow(EXTENDER, "create", "patch", resources=["pods", "pods/status", "bindings"])
    status, answer = bind(cluster.as_user(EXTENDER), name, {ANNOTATION_ALLOCATION: "{}"}, old_way=old_way)

    assert status == 201, answer
    assert annotations_of(tenant, path) == {ANNOTATION_GPU_MEMORY: "4Gi", ANNOTATION_ALLOCATION: "{}"}


@pytest.mark.parametrize("annotations", [None, {}, {"example.com/a": "b"}])
def test_other_bindings_pass(tenant: Api, annotations: dict[str, str] | None) -> None:
    made(tenant, pod(f"scheduled-{annotations is None}-{bool(annotations)}".lower()))

    status, answer = bind(tenant, f"scheduled-{annotations is None}-{bool(annotations)}".lower(), annotations)

    assert status == 201, answer


# --- ephemeral containers


def of_config(prefix: str | None = None) -> dict[str, Any]:
    return {"configMapRef": {"name": "c"}} | ({} if prefix is None else {"prefix": prefix})


def variable(name: str, value: str = "x") -> dict[str, Any]:
    return {"name": name, "value": value}


SEES_ALL = variable("NVIDIA_VISIBLE_DEVICES", "all")
SEES_NONE = variable("NVIDIA_VISIBLE_DEVICES", "void")
FROM_ELSEWHERE = {"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}


@pytest.mark.parametrize("asks", [True, False], ids=["GPU", "no GPU"])
@pytest.mark.parametrize(
    ("container", "with_gpu", "without"),
    [
        ({}, 200, 200),
        ({"env": [variable("DEBUG"), variable("NVIDIA_VISIBLE_DEVICES_X")]}, 200, 200),
        ({"env": [SEES_NONE]}, 200, 200),
        ({"env": [variable("NVIDIA_VISIBLE_DEVICES", "none")]}, 200, 200),
        ({"env": [variable("DEBUG"), SEES_ALL]}, 403, 403),
        ({"env": [variable("NVIDIA_VISIBLE_DEVICES", "")]}, 403, 403),
        ({"env": [SEES_ALL, SEES_NONE]}, 403, 403),
        ({"env": [FROM_ELSEWHERE]}, 403, 403),
        *(
            ({"env": [variable(name)]}, 403, 200)
            for name in (
                "CUDA_VISIBLE_DEVICES",
                "CUDA_DEVICE_ORDER",
                "NVIDIA_GPU_MEMORY_LIMIT",
                "CUDA_MPS_PIPE_DIRECTORY",
                "CUDA_DEVICE_MEMORY_LIMIT",
                "CUDA_DEVICE_MEMORY_LIMIT_0",
                "CUDA_DEVICE_SM_LIMIT",
                "CUDA_DISABLE_CONTROL",
                "LD_PRELOAD",
                "LD_AUDIT",
            )
        ),
        ({"envFrom": [of_config()]}, 403, 403),
        ({"envFrom": [of_config(), of_config("DEBUG_")], "env": [SEES_NONE]}, 403, 200),
        ({"envFrom": [of_config("DEBUG_")]}, 200, 200),
        ({"envFrom": [of_config("NVIDIA_VISIBLE_DEVICES")]}, 200, 200),
        ({"envFrom": [of_config("DEBUG_"), of_config("NVIDIA_V")]}, 403, 403),
        ({"envFrom": [of_config("CUDA_MPS_PIPE_")]}, 403, 200),
        ({"envFrom": [of_config("CUDA_M")]}, 403, 200),
        ({"envFrom": [of_config("LD_")]}, 403, 200),
    ],
)
def test_an_ephemeral_container_takes_no_gpu(
    tenant: Api, asks: bool, container: dict[str, Any], with_gpu: int, without: int
) -> None:
    name = "gpu" if asks else "no-gpu"
    tenant.call("POST", PODS, asking(name) if asks else pod(name))

    status, answer = debug(tenant, name, **container)

    assert status == (with_gpu if asks else without), answer
    if status == 403:
        assert "denied request: ephemeral container debugger " in answer["message"]


def test_the_refusal_of_an_ephemeral_container_says_what_to_do(tenant: Api) -> None:
    tenant.call("POST", PODS, asking("said"))

    _, by_env = debug(tenant, "said", env=[variable("LD_PRELOAD")])
    _, by_source = debug(tenant, "said", envFrom=[of_config()])

    assert "sets LD_PRELOAD in env, which chooses GPUs or takes away their limits" in by_env["message"]
    assert "remove the variable" in by_env["message"]
    assert "CUDA_MPS_*, CUDA_DEVICE_MEMORY_LIMIT*, CUDA_DEVICE_SM_LIMIT*" in by_source["message"]
    assert 'give envFrom a prefix such as "DEBUG_"' in by_source["message"]


def test_a_gpu_of_a_sidecar_counts(tenant: Api) -> None:
    limits = {"limits": {RESOURCE_MEMORY: "1"}}
    sidecar = {"name": "side", "image": "s", "restartPolicy": "Always", "resources": limits}
    tenant.call("POST", PODS, pod("with-sidecar", initContainers=[sidecar]))

    assert debug(tenant, "with-sidecar", env=[variable("LD_PRELOAD")])[0] == 403


def test_only_what_is_added_is_judged(cluster: Api, tenant: Api) -> None:
    """One that was there before the policy cannot be taken away, and must not be in the way of others."""
    path = made(tenant, pod("debugged"))
    exempt = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/ephemeral-containers.fracgpu.io"
    (bound,) = (
        manifest
        for manifest in documents("admission/pods.yaml")
        if manifest["kind"].endswith("Binding") and "ephemeral" in manifest["metadata"]["name"]
    )
    cluster.call("DELETE", exempt)
    before = {"spec": {"ephemeralContainers": [{"name": "before", "image": "b", "env": [SEES_ALL]}]}}
    cluster.wait_until(
        lambda: tenant.call("PATCH", f"{path}/ephemeralcontainers", before, content_type=STRATEGIC)[0] == 200
    )
    cluster.apply(bound)
    cluster.wait_until(lambda: debug(tenant, "debugged", env=[SEES_ALL])[0] == 403)

    assert debug(tenant, "debugged")[0] == 200


# --- GPUNodes


def gpunode(name: str, **metadata: object) -> dict[str, Any]:
    return {
        "apiVersion": "fracgpu.io/v1alpha1",
        "kind": "GPUNode",
        "metadata": {"name": name, **metadata},
        "spec": {"memoryUnitMiB": 512, "gpus": []},
    }


def owner(name: str = "node-1", **more: object) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "name": name, "uid": "8a5b2e4e-0000-4000-8000-000000000001", **more}


def observed(name: str) -> dict[str, Any]:
    head = gpunode(name)
    del head["spec"]
    return head | {"status": {"observedPods": "1", "grants": []}}


@pytest.fixture(scope="module")
def plugin(cluster: Api) -> Api:
    """The device plugin of node-1, with a token as its kubelet gets it."""
    for name in ("node-1", "node-2"):
        cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    manifest = pod("device-plugin", serviceAccountName="fracgpu-plugin", nodeName="node-1")
    manifest["metadata"]["namespace"] = "fracgpu-system"
    status, running = cluster.call("POST", "/api/v1/namespaces/fracgpu-system/pods", manifest)
    assert status == 201, running
    return cluster.as_user(cluster.token_of(PLUGIN, pod=running))


def test_the_plugin_writes_the_gpunode_of_its_node(plugin: Api) -> None:
    """As it does: server-side apply of the spec, with the Node as owner, and of the status; later again."""
    own = f"{GPUNODES}/node-1"
    mine = gpunode("node-1", ownerReferences=[owner()], labels={"example.com/a": "b"}, finalizers=["example.com/f"])

    answers = [
        plugin.call("PATCH", own + AS_THE_PLUGIN, mine, content_type=APPLY),
        plugin.call("PATCH", f"{own}/status{AS_THE_PLUGIN}", observed("node-1"), content_type=APPLY),
        plugin.call("PATCH", own + AS_THE_PLUGIN, gpunode("node-1", ownerReferences=[owner()]), content_type=APPLY),
        plugin.call("DELETE", own),
        plugin.call("POST", GPUNODES, gpunode("node-1")),
    ]

    assert [status for status, _ in answers] == [201, 200, 200, 200, 201], answers


def test_and_no_other(cluster: Api, plugin: Api) -> None:
    other = f"{GPUNODES}/node-2"
    first = plugin.call("PATCH", other + AS_THE_PLUGIN, gpunode("node-2"), content_type=APPLY)
    cluster.call("POST", GPUNODES, gpunode("node-2"))
    _, stored = cluster.call("GET", other)

    answers = [
        first,
        plugin.call("POST", GPUNODES, gpunode("node-3")),
        plugin.call("PATCH", other + AS_THE_PLUGIN, gpunode("node-2"), content_type=APPLY),
        plugin.call("PATCH", f"{other}/status{AS_THE_PLUGIN}", observed("node-2"), content_type=APPLY),
        plugin.call("PATCH", f"{other}/status", observed("node-2"), content_type=MERGE),
        plugin.call("PUT", other, stored),
        plugin.call("DELETE", other),
        plugin.call("DELETE", GPUNODES + "?fieldSelector=metadata.name%3Dnode-2"),
    ]

    assert [status for status, _ in answers] == [403] * len(answers), answers
    assert "the device plugin of node node-1 may write the GPUNode node-1 only, not node-2; " in first[1]["message"]
    assert cluster.call("GET", other)[1] == stored


def test_a_generated_name_is_refused(plugin: Api) -> None:
    manifest = gpunode("")
    manifest["metadata"] = {"generateName": "node-1"}

    assert plugin.call("POST", GPUNODES, manifest)[0] == 403


@pytest.mark.parametrize("is_service_account_token", [True, False], ids=["of no pod", "of another kind"])
def test_a_token_that_names_no_node_is_refused(cluster: Api, plugin: Api, is_service_account_token: bool) -> None:
    unbound = cluster.as_user(cluster.token_of(PLUGIN) if is_service_account_token else PLUGIN)

    status, answer = unbound.call("PATCH", f"{GPUNODES}/node-1{AS_THE_PLUGIN}", gpunode("node-1"), content_type=APPLY)

    assert status == 403
    assert "the token of service account fracgpu-plugin names no node" in answer["message"]


@pytest.mark.parametrize(
    ("reference", "want"),
    [
        (owner(), 200),
        (owner("node-2"), 403),
        (owner() | {"kind": "Namespace"}, 403),
        (owner(blockOwnerDeletion=False), 200),
        (owner(blockOwnerDeletion=True), 403),
    ],
)
def test_a_gpunode_is_owned_by_its_node_and_holds_up_nobody(
    cluster: Api, plugin: Api, reference: dict[str, Any], want: int
) -> None:
    cluster.call("POST", GPUNODES, gpunode("node-1"))
    patch = {"metadata": {"ownerReferences": [reference]}}

    status, answer = plugin.call("PATCH", f"{GPUNODES}/node-1{DRY}", patch, content_type=MERGE)

    assert status == want, answer


def test_administrators_are_not_concerned(cluster: Api) -> None:
    answers = [
        cluster.call("POST", GPUNODES, gpunode("by-hand", ownerReferences=[owner(blockOwnerDeletion=True)])),
        cluster.call("PATCH", f"{GPUNODES}/by-hand/status", observed("by-hand"), content_type=MERGE),
        cluster.call("DELETE", f"{GPUNODES}/by-hand"),
    ]

    assert [status for status, _ in answers] == [201, 200, 200], answers
