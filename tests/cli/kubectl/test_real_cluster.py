"""`kubectl fracgpu` on a real kube-apiserver: the chart installed as Helm does it, and callers with few rights."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.kubectl.kubectl import binary, environment
from tests.deploy import chart
from tests.deploy.conftest import Api
from tests.realcluster import RealControlPlane, User, missing_binaries

pytestmark = pytest.mark.e2e

VIEWER = User("viewer", ("system:authenticated",))
TENANT = User("tenant", ("system:authenticated",))
NOBODY = User("nobody", ("system:authenticated",))
APPS = f"/apis/apps/v1/namespaces/{chart.NAMESPACE}"
PODS = "/api/v1/namespaces/team-a/pods"
GPUNODES = "/apis/fracgpu.io/v1alpha1/gpunodes"
MERGE = "application/merge-patch+json"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealControlPlane]:
    if reason := missing_binaries("etcd", "kube-apiserver"):
        pytest.skip(reason)
    binary()
    plane = RealControlPlane(
        tmp_path_factory.mktemp("plane"),
        users=(VIEWER, TENANT, NOBODY),
        apiserver_flags=("--allow-privileged",),
    )
    plane.start()
    try:
        yield plane
    finally:
        plane.stop()


@pytest.fixture(scope="module")
def api(plane: RealControlPlane) -> Iterator[Api]:
    """The chart, one GPU node, and a pod that runs there; nobody is there who would make pods of Deployments."""
    api = Api(plane)
    for name in (chart.NAMESPACE, "team-a"):
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    uid = _running_pod(api)  # before there are a webhook, which does not run, and policies
    release = chart.Release(plane.kubeconfig())
    release.install(chart.values_of("default"))
    api.wait_until(lambda: api.is_established("gpunodes"))
    try:
        _node(api, granted=uid)
        yield api
    finally:
        release.uninstall()
        release.close()


def _running_pod(api: Api) -> str:
    """A pod as the extender binds it; its UID."""
    resources = {"limits": {"fracgpu.io/memory": "16"}}
    container = {"name": "main", "image": "example.com/app:1", "resources": resources}
    status, made = api.call("POST", PODS, {"metadata": {"name": "chat"}, "spec": {"containers": [container]}})
    assert status == 201, made
    plan = '{"unitMiB":512,"containers":{"main":[{"gpu":"GPU-1","units":16,"seats":0}]}}'
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "chat", "namespace": "team-a", "annotations": {"fracgpu.io/allocation": plan}},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "node-1"},
    }
    status, answer = api.call("POST", f"{PODS}/chat/binding", binding)
    assert status == 201, answer
    _patch(api, f"{PODS}/chat/status", {"status": {"phase": "Running"}})
    return str(made["metadata"]["uid"])


def _node(api: Api, *, granted: str) -> None:
    """A node as its kubelet and its device plugin announce it."""
    labels = {"nvidia.com/gpu.present": "true"}
    api.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1", "labels": labels}})
    offered = {"fracgpu.io/memory": "80", "fracgpu.io/replica": "4", "cpu": "8", "memory": "32Gi", "pods": "100"}
    _patch(api, "/api/v1/nodes/node-1/status", {"status": {"allocatable": offered, "capacity": offered}})
    gpu = {"uuid": "GPU-1", "index": 0, "product": "NVIDIA A100", "memoryMiB": 40960, "units": 80, "replicas": 4}
    node = {
        "apiVersion": "fracgpu.io/v1alpha1",
        "kind": "GPUNode",
        "metadata": {"name": "node-1"},
        "spec": {"memoryUnitMiB": 512, "gpus": [gpu]},
    }
    api.wait_until(lambda: api.call("POST", GPUNODES, node)[0] in (201, 409))
    share = {"gpu": "GPU-1", "units": 16, "seats": 0}
    grant = {"podUID": granted, "namespace": "team-a", "name": "chat", "containers": {"main": [share]}}
    _patch(api, f"{GPUNODES}/node-1/status", {"status": {"observedPods": "1", "grants": [grant]}})


def _patch(api: Api, path: str, change: object) -> None:
    status, answer = api.call("PATCH", path, change, content_type=MERGE)
    assert status == 200, answer


def fracgpu(plane: RealControlPlane, user: User | None, *words: str) -> tuple[int, str, str]:
    kubeconfig = plane.kubeconfig(user) if user is not None else plane.kubeconfig()
    done = subprocess.run(
        [binary(), "fracgpu", *words], env=environment(kubeconfig), capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def findings(plane: RealControlPlane, user: User | None = None) -> dict[str, tuple[str, str]]:
    _, out, err = fracgpu(plane, user, "doctor", "-o", "json")
    assert err == ""
    return {each["check"]: (each["status"], each["found"]) for each in json.loads(out)["findings"]}


def test_what_helm_installs_is_found(plane: RealControlPlane, api: Api) -> None:
    found = findings(plane)

    for check in (
        *("custom resource gpunodes.fracgpu.io", "custom resource sharingpolicies.fracgpu.io", "admission policies"),
        *("webhook registration", "webhook registration for workloads"),
        *("certificate of the extender", "certificate of the scheduler", "certificate of the plugin"),
        *("scheduler and extender trust each other", "scheduler configuration", "scheduler of GPU pods"),
        *("GPU nodes", "offered by kubelets", "other device plugins", "memory unit", "seats", "pods"),
    ):
        assert found[check][0] == "ok", (check, found[check])


def test_what_does_not_run_is_found(plane: RealControlPlane, api: Api) -> None:
    """There is no controller, so no pod of a Deployment runs, and no webhook has made its certificate."""
    found = findings(plane)

    assert found["extender pods"] == ("fail", "none of 2 is ready: GPU pods wait")
    assert found["webhook pods"][0] == found["scheduler"][0] == "fail"
    assert found["plugin pods"][0] == "fail"
    assert found["certificate of the webhook"][0] == "fail"

    for part in ("extender", "webhook", "scheduler"):
        path = f"{APPS}/deployments/fracgpu-{part}"
        replicas = api.call("GET", path)[1]["spec"]["replicas"]
        _patch(api, f"{path}/status", {"status": {"replicas": replicas, "readyReplicas": replicas}})
    _patch(
        api,
        f"{APPS}/daemonsets/fracgpu-plugin/status",
        {
            "status": {
                "desiredNumberScheduled": 1,
                "numberReady": 1,
                "currentNumberScheduled": 1,
                "numberMisscheduled": 0,
            }
        },
    )
    found = findings(plane)
    assert {found[check][0] for check in ("extender pods", "webhook pods", "scheduler", "plugin pods")} == {"ok"}


def test_few_rights_make_lines_unknown_and_no_failure_of_the_command(plane: RealControlPlane, api: Api) -> None:
    found = findings(plane, NOBODY)

    assert found["certificate of the extender"] == (
        "unknown",
        f"needs get on secrets/fracgpu-extender-tls in {chart.NAMESPACE}",
    )
    assert found["GPU nodes"][0] == "unknown"
    assert {status for status, _ in found.values()} == {"unknown"}
    code, _, _ = fracgpu(plane, NOBODY, "doctor")
    assert code == 0


def test_who_may_see_no_gpunodes_is_told_which_role_to_ask_for(plane: RealControlPlane, api: Api) -> None:
    code, out, err = fracgpu(plane, NOBODY, "top")

    assert (code, out) == (1, "")
    assert "ask its administrator for the ClusterRole fracgpu-view" in err


def test_a_tenant_sees_gpus_and_the_own_pods(plane: RealControlPlane, api: Api) -> None:
    """GPUNodes by a ClusterRole, pods by a Role of one namespace: other pods are known by their grants."""
    rbac = "rbac.authorization.k8s.io"
    subject = {"kind": "User", "apiGroup": rbac, "name": TENANT.name}
    gpunodes = {
        "apiGroups": ["fracgpu.io"],
        "resources": ["gpunodes", "sharingpolicies"],
        "verbs": ["get", "list", "watch"],
    }
    pods = {"apiGroups": [""], "resources": ["pods", "events"], "verbs": ["get", "list", "watch"]}
    for kind, rules, where in (("ClusterRole", gpunodes, {}), ("Role", pods, {"namespace": "default"})):
        role: dict[str, Any] = {"apiVersion": f"{rbac}/v1", "kind": kind, "metadata": {"name": "tenant", **where}}
        api.apply(role | {"rules": [rules]})
        reference = {"apiGroup": rbac, "kind": kind, "name": "tenant"}
        api.apply(role | {"kind": f"{kind}Binding", "subjects": [subject], "roleRef": reference})
    api.wait_until(lambda: fracgpu(plane, TENANT, "top")[0] == 0)

    code, out, err = fracgpu(plane, TENANT, "top", "-o", "wide")
    assert code == 0
    assert "team-a/chat" in out
    assert err == (
        "warning: you may list pods in default only; those of other namespaces are known by their grants, and not "
        "those that wait\n"
    )
    code, out, err = fracgpu(plane, TENANT, "explain", "team-a/chat")
    assert (code, out) == (1, "")
    assert "403 Forbidden" in err
    code, _, err = fracgpu(plane, TENANT, "explain", "nobody")
    assert code == 1
    assert "there is no pod default/nobody" in err


def test_a_pod_is_explained_as_it_is(plane: RealControlPlane, api: Api) -> None:
    code, out, err = fracgpu(plane, None, "explain", "-n", "team-a", "chat")

    assert (code, err) == (0, "")
    assert out.startswith("team-a/chat is on node-1 with 8 GiB of GPU 0\n")
    assert "plan, limits and grant agree" in out


def test_a_cluster_without_fracgpu_is_told(tmp_path: Path) -> None:
    """Its API server knows no GPUNodes."""
    if reason := missing_binaries("etcd", "kube-apiserver"):
        pytest.skip(reason)
    plane = RealControlPlane(tmp_path / "plane")
    plane.start()
    try:
        code, out, err = fracgpu(plane, None, "top")
        assert (code, out) == (1, "")
        assert err == (
            "error: this cluster knows no GPUNodes (gpunodes.fracgpu.io), so fracgpu is not installed there\n"
        )
    finally:
        plane.stop()
