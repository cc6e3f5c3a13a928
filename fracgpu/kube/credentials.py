"""Where the API server is and who we are there: from the service account of our pod, or from a kubeconfig file.

A service account is three things in known places, which are read here. Kubeconfig files, with all the ways to log in
that they know, are `kubernetes.aio`'s part. It is imported only where there is such a file: importing any of it
imports all of it, its synchronous twin, requests and oauthlib too, 10 MB that would count on every node.
"""

import os
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fracgpu.errors import SettingError
from fracgpu.kube.errors import KubeError

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes puts a pod's token and the API server's CA."""

_CREDENTIALS_SECONDS: Final = 60.0  # how often they are looked at; Kubernetes renews tokens long before they expire


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach one API server.

    Attributes:
        url: its address, without a slash at the end.
        authorization: gives the value of the Authorization header, None for no such header; a KubeError where the
            credentials cannot be renewed.
        tls: whom to trust, and our certificate; None for plain HTTP.
        server_name: the name in its certificate, where it is not that of the address.
        proxy: the HTTP proxy on the way.
    """

    url: str
    authorization: Callable[[], Awaitable[str | None]]
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    proxy: str | None = None


def read_service_account(folder: Path) -> Access:
    """Read the service account of the pod that we run in; its token is kept fresh.

    Raises:
        SettingError: there is none.
    """
    try:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        tls = ssl.create_default_context(cafile=folder / "ca.crt")
        account = _ServiceAccount(folder / "token")
    except KeyError as exc:
        raise _no_account(f"{exc.args[0]} is not set") from exc
    except OSError as exc:  # ssl.SSLError is one
        raise _no_account(f"{folder}: {exc}") from exc
    return Access(f"https://{f'[{host}]' if ':' in host else host}:{port}", account.authorization, tls)


async def read_kubeconfig(file: Path) -> Access:
    """Read a kubeconfig file's current context.

    Bearer tokens are kept fresh (token files, exec plugins, OIDC); client certificates are read once.

    Raises:
        SettingError: it cannot be used.
    """
    if not file.is_file():  # noqa: ASYNC240 (once, at start)
        raise SettingError(f"the kubeconfig file {file} does not exist")
    from kubernetes.aio.client.configuration import Configuration
    from kubernetes.aio.config import load_kube_config

    found = Configuration()
    try:
        loader = await load_kube_config(config_file=str(file), client_configuration=found, persist_config=False)
        return Access(
            found.host.rstrip("/"),
            _Kubeconfig(loader, found).authorization,
            _tls(found) if found.host.startswith("https:") else None,
            found.tls_server_name or None,
            found.proxy or None,
        )
    except Exception as exc:
        # The reader trips over a malformed file in any way that Python can: it indexes what it finds.
        raise SettingError(f"the kubeconfig file {file} cannot be used: {exc}") from exc


class _ServiceAccount:
    def __init__(self, token: Path) -> None:
        self._token = token
        self._header = self._read()
        self._looked = time.monotonic()

    async def authorization(self) -> str:
        if time.monotonic() - self._looked >= _CREDENTIALS_SECONDS:
            self._looked = time.monotonic()
            try:
                self._header = self._read()
            except OSError as exc:
                raise KubeError(f"the Kubernetes credentials cannot be renewed: {exc}") from exc
        return self._header

    def _read(self) -> str:
        return f"Bearer {self._token.read_text().strip()}"


class _Kubeconfig:
    """What `kubernetes.aio` has read, and its loader, which renews what has expired."""

    def __init__(self, loader: Any, found: Any) -> None:
        self._loader = loader
        self._found = found
        self._looked = time.monotonic()

    async def authorization(self) -> str | None:
        if time.monotonic() - self._looked >= _CREDENTIALS_SECONDS:
            self._looked = time.monotonic()
            try:
                await self._loader.load_and_set(self._found)
            except Exception as exc:  # of any kind, as in `read_kubeconfig`
                raise KubeError(f"the Kubernetes credentials cannot be renewed: {exc}") from exc
        header: str | None = self._found.api_key.get("BearerToken")
        return header.strip() if header else None


def _tls(found: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=found.ssl_ca_cert)
    if found.cert_file:
        context.load_cert_chain(found.cert_file, keyfile=found.key_file)
    if not found.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _no_account(reason: str) -> SettingError:
    return SettingError(
        f"no Kubernetes service account to use ({reason}): outside a pod, name a kubeconfig file with "
        "--kubeconfig (FRACGPU_KUBECONFIG); inside one, keep automountServiceAccountToken on"
    )
