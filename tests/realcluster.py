"""A real control plane on loopback: etcd, kube-apiserver and, where asked, kube-scheduler.

For the end-to-end run and for the conformance tests that keep the playground honest. The binaries come from
``$KUBEBUILDER_ASSETS`` (default /usr/local/kubebuilder/bin, the convention of setup-envtest). Everything lives in one
directory that the caller owns, on free ports, and ends with ``stop``. Left out: controllers (no ReplicaSets,
no garbage collection, no namespace deletion) and the kubelet, which needs more than a directory.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
import yaml

READY_SECONDS = 90.0
"""A cold kube-apiserver takes 5 to 10 s on two cores; the rest is for a busy machine."""

STOP_SECONDS = 10.0


def assets_dir() -> Path:
    """Where the control plane's binaries are looked for."""
    return Path(os.environ.get("KUBEBUILDER_ASSETS", "/usr/local/kubebuilder/bin"))


def missing_binaries(*names: str) -> str:
    """Say, as a reason for skipping, which of these binaries are absent; empty if none is."""
    absent = [name for name in names if not os.access(assets_dir() / name, os.X_OK)]
    if not absent:
        return ""
    return f"no {', '.join(absent)} in {assets_dir()}: install them with setup-envtest, or set KUBEBUILDER_ASSETS"


@dataclass(frozen=True)
class User:
    """Somebody who may log in with a bearer token; RBAC decides what they may do."""

    name: str
    groups: tuple[str, ...] = ()
    token: str = field(default_factory=lambda: secrets.token_hex(16))


ADMIN = User("admin", ("system:masters",))
SCHEDULER = User("system:kube-scheduler")


class RealControlPlane:
    """etcd and kube-apiserver as child processes; ``start`` returns when the API server is ready.

    Args:
        directory: for data, certificates, kubeconfigs and logs (one log per process, kept after ``stop``).
        users: who may log in besides ``ADMIN`` and ``SCHEDULER``, such as a service under test or a node's kubelet
            (``User("system:node:n1", ("system:nodes",))``).
        apiserver_flags: more kube-apiserver flags; kube-apiserver lets a later flag win.
    """

    def __init__(self, directory: Path, *, users: Sequence[User] = (), apiserver_flags: Sequence[str] = ()) -> None:
        self.directory = directory
        self.url = ""
        self.etcd_url = ""
        self.ca_file = directory / "ca.pem"
        self._users = (ADMIN, SCHEDULER, *users)
        self._apiserver_flags = tuple(apiserver_flags)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}  # name -> running child, in starting order

    @property
    def token(self) -> str:
        """The administrator's bearer token."""
        return ADMIN.token

    def start(self) -> None:
        """Start etcd and kube-apiserver and wait until both are ready.

        Raises:
            RuntimeError: one of them ended or did not become ready; the message ends with its log.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._start_etcd()
            self._start_apiserver()
        except BaseException:
            self.stop()
            raise

    def start_scheduler(self, config: Path, *, name: str = "kube-scheduler") -> None:
        """Start kube-scheduler with a KubeSchedulerConfiguration, whose kubeconfig path is filled in.

        Args:
            config: the configuration.
            name: of its files, where there is more than one.

        Raises:
            RuntimeError: it ended or did not become healthy.
        """
        settings = yaml.safe_load(config.read_text())
        settings.setdefault("clientConnection", {})["kubeconfig"] = str(self.kubeconfig(SCHEDULER))
        settings["leaderElection"] = {"leaderElect": False}
        resolved = self.directory / f"{name}.yaml"
        resolved.write_text(yaml.safe_dump(settings))
        port = _free_port()
        self._spawn(
            name,
            f"--config={resolved}",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={self.directory / f'{name}-certs'}",
            binary="kube-scheduler",
        )
        # Its certificate is self-signed at start, so there is nothing to verify it against.
        unverified = ssl._create_unverified_context()
        self._wait_ready(name, lambda: _answers(f"https://127.0.0.1:{port}/healthz", unverified))

    @contextmanager
    def scheduler(self, config: Path, *, name: str) -> Iterator[None]:
        """One more kube-scheduler, by a name of its own, for as long as this lasts (see `start_scheduler`)."""
        try:
            self.start_scheduler(config, name=name)
            yield
        finally:
            self._end(name)

    def stop(self) -> None:
        """End every process, the last started first; repeating it is harmless."""
        for name in reversed(list(self._processes)):
            self._end(name)

    def _end(self, name: str) -> None:
        process = self._processes.pop(name)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kubeconfig(self, user: User = ADMIN) -> Path:
        """Write a kubeconfig for ``user`` and return its path."""
        path = self.directory / f"{user.name.replace(':', '-')}.kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "real",
                    "clusters": [
                        {
                            "name": "real",
                            "cluster": {"server": self.url, "certificate-authority": str(self.ca_file)},
                        }
                    ],
                    "users": [{"name": "user", "user": {"token": user.token}}],
                    "contexts": [{"name": "real", "context": {"cluster": "real", "user": "user"}}],
                }
            )
        )
        return path

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send one request as administrator; return the HTTP status and the decoded answer."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.client_ssl()) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as exc:
            text = exc.read()
            return exc.code, json.loads(text) if text.startswith(b"{") else text.decode()

    def define(self, crd: dict[str, Any]) -> None:
        """Create a CustomResourceDefinition and wait until its first version is served.

        Raises:
            RuntimeError: it was refused, or is not served in time.
        """
        code, answer = self.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        if code not in (201, 409):
            raise RuntimeError(f"the definition was refused: {answer}")
        spec = crd["spec"]
        path = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
        deadline = time.monotonic() + READY_SECONDS
        while self.request("GET", path)[0] != 200:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{path} is not served")
            time.sleep(0.1)

    def client_ssl(self) -> ssl.SSLContext:
        """The TLS settings for talking to ``url``."""
        return ssl.create_default_context(cafile=str(self.ca_file))

    def _start_etcd(self) -> None:
        self.etcd_url = f"http://127.0.0.1:{_free_port()}"
        peer_url = f"http://127.0.0.1:{_free_port()}"
        self._spawn(
            "etcd",
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={self.etcd_url}",
            f"--advertise-client-urls={self.etcd_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            "--unsafe-no-fsync",  # nothing here outlives a power loss
        )
        self._wait_ready("etcd", lambda: _answers(f"{self.etcd_url}/health", None))

    def _start_apiserver(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        serving = authority.issue_cert("127.0.0.1", "localhost")
        cert, key = self.directory / "apiserver.pem", self.directory / "apiserver.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in serving.cert_chain_pems))
        serving.private_key_pem.write_to_path(key)
        tokens = self.directory / "tokens.csv"
        tokens.write_text(
            "".join(f'{user.token},{user.name},{user.name},"{",".join(user.groups)}"\n' for user in self._users)
        )
        port = _free_port()
        self.url = f"https://127.0.0.1:{port}"
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers={self.etcd_url}",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={self.directory / 'apiserver-certs'}",
            f"--tls-cert-file={cert}",
            f"--tls-private-key-file={key}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=Node,RBAC",
            # No controller makes service accounts here, and pods need none.
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://localhost",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            *self._apiserver_flags,
        )
        context = self.client_ssl()
        self._wait_ready("kube-apiserver", lambda: _answers(f"{self.url}/readyz", context, self.token))

    def _spawn(self, name: str, *flags: str, binary: str = "") -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [str(assets_dir() / (binary or name)), *flags], stdout=log, stderr=subprocess.STDOUT, cwd=self.directory
            )

    def _wait_ready(self, name: str, is_ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not is_ready():
            ended = self._processes[name].poll() is not None
            if ended or time.monotonic() > deadline:
                log = (self.directory / f"{name}.log").read_text(errors="replace")
                raise RuntimeError(f"{name} {'ended' if ended else 'is not ready'}:\n{log[-3000:]}")
            time.sleep(0.1)


def _answers(url: str, context: ssl.SSLContext | None, token: str = "") -> bool:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=5, context=context) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    """Find a port that was free a moment ago; neither etcd nor kube-apiserver can report one they chose."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
