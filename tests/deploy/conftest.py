"""A real control plane with what deploy/ holds, for the tests of this folder."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.realcluster import ADMIN, READY_SECONDS, RealControlPlane, User, missing_binaries

DEPLOY = Path(__file__).parents[2] / "deploy"


def service_account(name: str) -> User:
    """The identity of one of our services, as the API server names service accounts."""
    return User(
        f"system:serviceaccount:fracgpu-system:{name}",
        ("system:serviceaccounts", "system:serviceaccounts:fracgpu-system", "system:authenticated"),
    )


EXTENDER, PLUGIN, WEBHOOK = (service_account(f"fracgpu-{name}") for name in ("extender", "plugin", "webhook"))


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
                return response.status, json.load(response)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, json.load(exc)

    def apply(self, manifest: dict[str, Any]) -> None:
        """Create or change an object, as ``kubectl apply --server-side`` does."""
        status, answer = self.call(
            "PATCH",
            f"{path_of(manifest)}?fieldManager=test&force=true",
            manifest,
            content_type="application/apply-patch+yaml",
        )
        assert status in (200, 201), answer

    def call_as_table(self, path: str) -> tuple[int, dict[str, Any]]:
        """Read an object as ``kubectl get`` shows it."""
        return self.call("GET", path, accept="application/json;as=Table;v=v1;g=meta.k8s.io")

    def is_established(self, plural: str) -> bool:
        """Whether one of our custom resources is served."""
        _, crd = self.call("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.fracgpu.io")
        return '"Established", "status": "True"' in json.dumps(crd)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Ask until something is so that kube-apiserver does in its own time."""
        deadline = time.monotonic() + READY_SECONDS
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def path_of(manifest: dict[str, Any]) -> str:
    """Where an object of one of the kinds in deploy/ lives."""
    api_version, kind, metadata = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
    base = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    namespace = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{base}{namespace}/{kind.lower()}s/{metadata['name']}"


def documents(name: str) -> list[dict[str, Any]]:
    """The manifests in a file of deploy/."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealControlPlane]:
    """etcd and kube-apiserver, without our objects."""
    if reason := missing_binaries("etcd", "kube-apiserver"):
        pytest.skip(reason)
    plane = RealControlPlane(tmp_path_factory.mktemp("plane"), users=(EXTENDER, PLUGIN, WEBHOOK))
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
