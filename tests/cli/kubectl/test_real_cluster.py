"""`kubectl fracgpu` on a real kube-apiserver: the chart installed as Helm does it, and callers with few rights."""

import contextlib
import json
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread, Timer
from typing import Any

import pytest
import trustme

from tests.cli.kubectl.kubectl import binary, environment
from tests.deploy import chart
from tests.deploy.conftest import Api
from tests.realcluster import RealControlPlane, User, missing_binaries

pytestmark = pytest.mark.e2e

TENANT = User("tenant", ("system:authenticated",))
NOBODY = User("nobody", ("system:authenticated",))
ONLOOKER = User("onlooker", ("system:authenticated",))
HELPER = User("helper", ("system:authenticated",))
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
        users=(TENANT, NOBODY, ONLOOKER, HELPER),
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
        "certificate of Redis",
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


def test_a_runtime_class_that_nobody_made_is_missed(plane: RealControlPlane, api: Api) -> None:
    assert findings(plane)["RuntimeClass"][0] == "fail"

    made = {"metadata": {"name": "nvidia"}, "handler": "nvidia"}
    status, answer = api.call("POST", "/apis/node.k8s.io/v1/runtimeclasses", made)
    assert status == 201, answer

    assert findings(plane)["RuntimeClass"] == ("ok", "nvidia, which the plugin's pods name, exists")


@pytest.fixture
def not_ready(api: Api, tmp_path: Path) -> Iterator[None]:
    """A pod of the extender that is not ready, which says why, behind a Service of which no pod is."""
    address = _own_address()
    pods = f"/api/v1/namespaces/{chart.NAMESPACE}/pods"
    endpoints = f"/api/v1/namespaces/{chart.NAMESPACE}/endpoints"
    metadata = {"name": "extender-1", "labels": {"app.kubernetes.io/name": "fracgpu-extender"}}
    with _extender_without_redis(address, tmp_path) as port:
        container = {"name": "extender", "image": "a", "ports": [{"name": "pages", "containerPort": port}]}
        spec = {"nodeName": "node-1", "automountServiceAccountToken": False, "containers": [container]}
        status, answer = api.call("POST", pods, {"metadata": metadata, "spec": spec})
        assert status == 201, answer
        running = {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}
        _patch(api, f"{pods}/extender-1/status", running)
        ports = [{"name": "verbs", "port": 8080}, {"name": "pages", "port": port}]
        subset = {"notReadyAddresses": [{"ip": address}], "ports": ports}
        status, answer = api.call("POST", endpoints, {"metadata": {"name": "fracgpu-extender"}, "subsets": [subset]})
        assert status == 201, answer
        try:
            yield
        finally:
            api.call("DELETE", f"{endpoints}/fracgpu-extender")
            api.call("DELETE", f"{pods}/extender-1?gracePeriodSeconds=0")


def _own_address() -> str:
    """An address of this machine that is not loopback, to which kube-apiserver passes nothing on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked, contextlib.suppress(OSError):
        asked.connect(("192.0.2.1", 9))  # sends nothing
        address = str(asked.getsockname()[0])
        if not address.startswith("127."):
            return address
    pytest.skip("this machine has no address but loopback's")


@contextlib.contextmanager
def _extender_without_redis(address: str, directory: Path) -> Iterator[int]:
    """Pages as an extender serves them that waits for Redis; their port."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_ready = self.path != "/readyz"
            text = 'fracgpu_extender_ledger_state{state="lost"} 1.0\n' if is_ready else "Redis does not answer"
            self.send_response(200 if is_ready else 503)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    chain = directory / "pages.pem"
    trustme.CA().issue_cert(address).private_key_and_cert_chain_pem.write_to_path(chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    with ThreadingHTTPServer((address, 0), Pages) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        serving = Thread(target=server.serve_forever)
        serving.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            serving.join()


def test_an_extender_that_is_not_ready_says_itself_why(plane: RealControlPlane, api: Api, not_ready: None) -> None:
    """The Service leads to ready pods alone, so a pod is asked."""
    found = findings(plane)

    assert found["extender readiness"] == ("fail", "says: Redis does not answer")
    assert found["ledger in Redis"] == ("fail", "the extender says it is lost")


def test_who_may_not_ask_the_pod_is_told_how_to_see_its_log(plane: RealControlPlane, api: Api, not_ready: None) -> None:
    rbac = "rbac.authorization.k8s.io"
    rules = [
        {"apiGroups": [""], "resources": ["services/proxy"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]},
    ]
    role: dict[str, Any] = {"apiVersion": f"{rbac}/v1", "metadata": {"name": "helper", "namespace": chart.NAMESPACE}}
    api.apply(role | {"kind": "Role", "rules": rules})
    subject = {"kind": "User", "apiGroup": rbac, "name": HELPER.name}
    reference = {"apiGroup": rbac, "kind": "Role", "name": "helper"}
    api.apply(role | {"kind": "RoleBinding", "subjects": [subject], "roleRef": reference})
    api.wait_until(lambda: findings(plane, HELPER)["extender pods"][0] != "unknown")

    found = findings(plane, HELPER)

    for check in ("extender readiness", "ledger in Redis"):
        status, why = found[check]
        assert status == "unknown"
        assert why.startswith("needs get on pods/proxy (https:extender-1:")
    _, out, _ = fracgpu(plane, HELPER, "doctor")
    seeing = f"kubectl logs -n {chart.NAMESPACE} -l app.kubernetes.io/name=fracgpu-extender --tail=20"
    assert out.count(f"instead see: {seeing}") == 2


def test_who_may_see_nothing_is_told_so(plane: RealControlPlane, api: Api) -> None:
    found = findings(plane, NOBODY)

    assert found["certificate of the extender"] == (
        "unknown",
        f"needs get on secrets/fracgpu-extender-tls in {chart.NAMESPACE}",
    )
    assert found["GPU nodes"][0] == "unknown"
    assert {status for status, _ in found.values()} == {"unknown"}
    code, out, _ = fracgpu(plane, NOBODY, "doctor")
    assert code == 1
    assert "so nothing could be looked at" in out.splitlines()[-1]


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


def test_who_may_list_no_pods_watches_what_is_granted(plane: RealControlPlane, api: Api) -> None:
    rbac = "rbac.authorization.k8s.io"
    reference = {"apiGroup": rbac, "kind": "ClusterRole", "name": "onlooker"}
    role: dict[str, Any] = {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": "onlooker"}}
    api.apply(role | {"rules": [{"apiGroups": ["fracgpu.io"], "resources": ["gpunodes"], "verbs": ["list", "watch"]}]})
    subject = {"kind": "User", "apiGroup": rbac, "name": ONLOOKER.name}
    api.apply(role | {"kind": "ClusterRoleBinding", "subjects": [subject], "roleRef": reference})
    api.wait_until(lambda: fracgpu(plane, ONLOOKER, "top")[0] == 0)

    process = subprocess.Popen(
        [binary(), "fracgpu", "top", "-w", "-o", "wide"],
        env=environment(plane.kubeconfig(ONLOOKER)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    killing = Timer(60, process.kill)  # where it says nothing, reading ends with it
    killing.start()
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any("team-a/chat" in line for line in lines)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    finally:
        killing.cancel()
        process.kill()
        process.wait()
    assert err == "warning: you may not list pods, so only those that hold GPU memory are known, by their grants\n"


def test_pages_that_are_closed_are_no_defect(plane: RealControlPlane, api: Api) -> None:
    """As the chart does it with extender.pages.enabled: false: the Service has no port for them."""
    service = f"/api/v1/namespaces/{chart.NAMESPACE}/services/fracgpu-extender"
    extender = f"{APPS}/deployments/fracgpu-extender"
    ports = api.call("GET", service)[1]["spec"]["ports"]
    args = api.call("GET", extender)[1]["spec"]["template"]["spec"]["containers"][0]["args"]
    change = "application/json-patch+json"
    place = "/spec/template/spec/containers/0/args"
    for path, patch in (
        (service, [{"op": "replace", "path": "/spec/ports", "value": [p for p in ports if p["name"] != "pages"]}]),
        (extender, [{"op": "replace", "path": place, "value": [*args, "--no-pages"]}]),
    ):
        status, answer = api.call("PATCH", path, patch, content_type=change)
        assert status == 200, answer
    endpoints = f"/api/v1/namespaces/{chart.NAMESPACE}/endpoints"
    verbs = {"addresses": [{"ip": "10.0.0.9"}], "ports": [{"name": "verbs", "port": 8080}]}
    status, answer = api.call("POST", endpoints, {"metadata": {"name": "fracgpu-extender"}, "subsets": [verbs]})
    assert status == 201, answer
    status, answer = api.call("GET", service.replace("/fracgpu-extender", "/https:fracgpu-extender:pages/proxy/readyz"))
    assert status == 503, answer  # as it would answer where no extender is ready
    try:
        found = findings(plane)
    finally:
        api.call("DELETE", f"{endpoints}/fracgpu-extender")
        for path, patch in (
            (service, [{"op": "replace", "path": "/spec/ports", "value": ports}]),
            (extender, [{"op": "replace", "path": place, "value": args}]),
        ):
            api.call("PATCH", path, patch, content_type=change)

    told = ("unknown", "the extender's pages are closed (--no-pages), so it cannot be asked")
    assert (found["extender readiness"], found["ledger in Redis"]) == (told, told)


def test_a_pod_is_explained_as_it_is(plane: RealControlPlane, api: Api) -> None:
    code, out, err = fracgpu(plane, None, "explain", "-n", "team-a", "chat")

    assert (code, err) == (0, "")
    assert out.startswith("team-a/chat has 8 GiB on GPU 0 (NVIDIA A100) of node-1\n")
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
