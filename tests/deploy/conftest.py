"""A real control plane with what deploy/ holds, for the tests of this folder."""

import base64
import contextlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from tests.realcluster import ADMIN, READY_SECONDS, RealControlPlane, User, missing_binaries
from tests.waiting import eventually

DEPLOY = Path(__file__).parents[2] / "deploy"
PODS = "/api/v1/namespaces/team-a/pods"


def service_account(name: str) -> User:
    """The identity of one of our services, as the API server names service accounts."""
    return User(
        f"system:serviceaccount:fracgpu-system:{name}",
        ("system:serviceaccounts", "system:serviceaccounts:fracgpu-system", "system:authenticated"),
    )


EXTENDER, PLUGIN, WEBHOOK = (service_account(f"fracgpu-{name}") for name in ("extender", "plugin", "webhook"))
SCHEDULER_ACCOUNT = service_account("fracgpu-scheduler")
"""That of the chart's second kube-scheduler."""
TENANT = User("tenant", ("system:authenticated",))
"""Somebody without rights, until a test gives some."""
KUBELET = User("system:node:node-1", ("system:nodes", "system:authenticated"))


class Api:
    """JSON requests to the API server as one user."""

    def __init__(self, plane: RealControlPlane, user: User = ADMIN) -> None:
        self._plane = plane
        self._user = user

    def as_user(self, user: User) -> "Api":
        return Api(self._plane, user)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> tuple[int, dict[str, Any]]:
        status, answer, _ = self._send(method, path, body, content_type=content_type, accept=accept)
        return status, answer

    def warnings_of(self, path: str, manifest: dict[str, Any]) -> tuple[int, list[str]]:
        """Create an object; the status, and the warnings that kubectl would print."""
        status, _, headers = self._send("POST", path, manifest)
        return status, warnings_in(headers)

    def tried(self, manifest: dict[str, Any]) -> tuple[int, Any, list[str]]:
        """What would come of applying an object, strictly, as ``kubectl apply --server-side --dry-run=server`` asks.

        Returns:
            The status, the message where it was refused, and the warnings.
        """
        path = f"{path_of(manifest)}?fieldManager=test&force=true&dryRun=All&fieldValidation=Strict"
        status, answer, headers = self._send("PATCH", path, manifest, content_type="application/apply-patch+yaml")
        return status, answer.get("message", ""), warnings_in(headers)

    def _send(
        self,
        method: str,
        path: str,
        body: object,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> tuple[int, dict[str, Any], Message]:
        request = urllib.request.Request(
            self._plane.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self._user.token}",
                "Content-Type": content_type,
                "Accept": accept,
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=self._plane.client_ssl()) as response:
                return response.status, json.load(response), response.headers
        except urllib.error.HTTPError as exc:
            with exc:
                text = exc.read().decode()
                is_status = text.startswith("{")  # a path that is not served has a plain answer
                return exc.code, json.loads(text) if is_status else {"message": text}, exc.headers

    def apply(self, manifest: dict[str, Any]) -> None:
        """Create or change an object, as ``kubectl apply --server-side`` does."""
        status, answer = self.call(
            "PATCH",
            f"{path_of(manifest)}?fieldManager=test&force=true",
            manifest,
            content_type="application/apply-patch+yaml",
        )
        assert status in (200, 201), answer

    def delete(self, manifest: dict[str, Any]) -> None:
        """Delete an object; one that is not there is as good."""
        status, answer = self.call("DELETE", path_of(manifest))
        assert status in (200, 202, 404), answer

    def allow(self, user: User, *verbs: str, resources: list[str]) -> None:
        """Give a user rights in the whole cluster that no role of deploy/ gives."""
        name = f"test-{user.name.rpartition(':')[2]}"
        rule = {"apiGroups": ["*"], "resources": resources, "verbs": verbs}
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}}
        self.apply(role | {"rules": [rule]})
        subject = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user.name}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        self.apply(role | {"kind": "ClusterRoleBinding", "subjects": [subject], "roleRef": reference})

    def token_of(self, user: User, *, pod: dict[str, Any] | None = None) -> User:
        """A service account with a token that the API server has made, bound to a pod where one is given."""
        _, _, namespace, name = user.name.split(":")
        bound = (
            {}
            if pod is None
            else {
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": pod["metadata"]["name"],
                    "uid": pod["metadata"]["uid"],
                }
            }
        )
        status, made = self.call(
            "POST",
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": bound},
        )
        assert status == 201, made
        return User(user.name, user.groups, made["status"]["token"])

    def call_as_table(self, path: str) -> tuple[int, dict[str, Any]]:
        """Read an object as ``kubectl get`` shows it."""
        return self.call("GET", path, accept="application/json;as=Table;v=v1;g=meta.k8s.io")

    def is_established(self, plural: str) -> bool:
        """Whether one of our custom resources is served."""
        _, crd = self.call("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.fracgpu.io")
        return '"Established", "status": "True"' in json.dumps(crd)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Ask until something is so that kube-apiserver does in its own time."""
        eventually(holds, seconds=READY_SECONDS)


def warnings_in(headers: Message) -> list[str]:
    """The warnings of an answer; RFC 7234 5.5: code, agent, and the text in quotes."""
    return [json.loads(line.split(" ", 2)[2]) for line in headers.get_all("Warning") or ()]


def path_of(manifest: dict[str, Any]) -> str:
    """Where an object of one of the kinds in deploy/ lives."""
    api_version, kind, metadata = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
    base = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    namespace = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    plural = f"{kind.lower()}s" if not kind.endswith("y") else f"{kind.lower()[:-1]}ies"
    return f"{base}{namespace}/{plural}/{metadata['name']}"


def documents(name: str) -> list[dict[str, Any]]:
    """The manifests in a file of deploy/kustomize; ``crds/...`` are the chart's, one in each file."""
    folder = DEPLOY / "helm/fracgpu/files" if name.startswith("crds/") else DEPLOY / "kustomize"
    return list(yaml.safe_load_all((folder / name).read_text()))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealControlPlane]:
    """etcd and kube-apiserver, without our objects."""
    if reason := missing_binaries("etcd", "kube-apiserver"):
        pytest.skip(reason)
    plane = RealControlPlane(
        tmp_path_factory.mktemp("plane"),
        users=(EXTENDER, PLUGIN, WEBHOOK, SCHEDULER_ACCOUNT, TENANT, KUBELET),
        apiserver_flags=("--allow-privileged",),  # as everywhere: the plugin may have to be, and kube-proxy is
    )
    plane.start()
    try:
        yield plane
    finally:
        plane.stop()


@pytest.fixture(scope="module")
def api(plane: RealControlPlane) -> Api:
    """The administrator's view of a cluster that has the CRD, the accounts and the namespaces of the examples."""
    api = Api(plane)
    for name in ("crds/gpunodes.fracgpu.io.yaml", "crds/sharingpolicies.fracgpu.io.yaml", "rbac.yaml"):
        for manifest in documents(name):
            api.apply(manifest)
    api.wait_until(lambda: api.is_established("gpunodes") and api.is_established("sharingpolicies"))
    for team in ("team-a", "team-b"):
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": team}})
    return api


def pod(name: str, annotations: dict[str, str] | None = None, **container: object) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"containers": [{"name": "main", "image": "example.com/app:1", **container}]},
    }


@pytest.fixture(scope="module")
def admission(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API with the webhook process in front; by URL, since a Service needs more of a cluster."""
    with webhook_process(tmp_path_factory.mktemp("webhook")) as (url, authority):
        configurations = [
            configuration
            for kind in ("mutating", "validating")
            for configuration in documents(f"webhook/{kind}webhookconfiguration.yaml")
        ]
        for configuration in configurations:
            (webhook,) = configuration["webhooks"]
            webhook["clientConfig"] = {
                "url": url + webhook["clientConfig"]["service"]["path"],
                "caBundle": base64.b64encode(authority.cert_pem.bytes()).decode(),
            }
            api.apply(configuration)
        api.wait_until(lambda: api.call("POST", f"{PODS}?dryRun=All", refused_pod())[0] == 403)
        yield api
        for configuration in configurations:
            api.call("DELETE", path_of(configuration))


@contextlib.contextmanager
def webhook_process(directory: Path, *flags: str) -> Iterator[tuple[str, trustme.CA]]:
    """The real process with a certificate for this machine: where it serves, and whom to trust."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    cert, key, ready_file = (directory / name for name in ("tls.crt", "tls.key", "ready.json"))
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    command = [sys.executable, "-m", "webhook", "--port=0", "--no-metrics", f"--tls-cert={cert}", f"--tls-key={key}"]
    with subprocess.Popen([*command, f"--ready-file={ready_file}", *flags], stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            while json.loads(process.stderr.readline())["event"] != "ready":
                pass
            yield json.loads(ready_file.read_text())["url"], authority
        finally:
            process.terminate()


def refused_pod(name: str = "refused") -> dict[str, Any]:
    """A pod that the webhook refuses, and kube-apiserver alone would not."""
    return pod(name, {"fracgpu.io/gpu-memory": "much"})
