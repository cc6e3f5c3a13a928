"""How to log in at the API server with what a kubeconfig's context says, or as the pod that we run in.

Certificates, tokens and passwords are read here. Whatever else there is (exec plugins, OpenID Connect) is
`kubernetes.aio`'s part, which takes longer to import than everything else here together.
"""

import json
import ssl
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cli.kubectl.kubeconfig import DEFAULT_NAMESPACE, Login, read_kubeconfigs
from fracgpu.errors import SettingError
from fracgpu.kube.credentials import SERVICE_ACCOUNT, Access, read_kubeconfig, read_service_account

_SIMPLE: Final = frozenset(
    {
        *("client-certificate", "client-certificate-data", "client-key", "client-key-data"),
        *("token", "tokenFile", "username", "password"),
    }
)
_IMPERSONATION: Final = ("as", "as-uid", "as-groups", "as-user-extra")


@dataclass(frozen=True, slots=True)
class Entrance:
    """The API server, and the namespace that is meant where none is named."""

    access: Access
    namespace: str


async def find_entrance(*, kubeconfig: Path | None, context: str) -> Entrance:
    """Find the cluster as kubectl does: kubeconfig files, else the service account of the pod that we run in.

    Args:
        kubeconfig: what ``--kubeconfig`` names.
        context: what ``--context`` names; empty for the current one.

    Raises:
        SettingError: there is none, or it cannot be used.
    """
    found = read_kubeconfigs(kubeconfig)
    if found is not None:
        login = found.login(context)
        return Entrance(await _access(login), login.namespace)
    if context:
        raise SettingError(f"there is no kubeconfig file, so no context {context!r}; name a file with --kubeconfig")
    try:
        access = read_service_account(SERVICE_ACCOUNT)
        namespace = (SERVICE_ACCOUNT / "namespace").read_text().strip()
    except (SettingError, OSError) as exc:
        raise SettingError(
            "there is no cluster to ask: no kubeconfig file was found (--kubeconfig, KUBECONFIG, ~/.kube/config), and "
            "this is no pod with a service account"
        ) from exc
    return Entrance(access, namespace or DEFAULT_NAMESPACE)


async def _access(login: Login) -> Access:
    if used := [key for key in _IMPERSONATION if login.user.get(key)]:
        raise SettingError(
            f"the user of the context {login.context!r} acts as another one ({used[0]}), which kubectl fracgpu cannot; "
            "choose another context with --context"
        )
    server = str(login.cluster.get("server") or "")
    if not server.startswith(("https://", "http://")):
        raise SettingError(f"the cluster of the context {login.context!r} has no server that begins with https://")
    if not login.user.keys() <= _SIMPLE:
        return await _with_plugins(login)
    try:
        return Access(
            server.rstrip("/"),
            _Credentials(login.user).authorization,
            _tls(login) if server.startswith("https:") else None,
            login.cluster.get("tls-server-name"),
            login.cluster.get("proxy-url"),
        )
    except (OSError, ValueError, KeyError) as exc:  # files, base64, a certificate without a key; SSLError is an OSError
        detail = f"{exc.strerror}: {exc.filename}" if isinstance(exc, OSError) and exc.filename else type(exc).__name__
        raise SettingError(f"the certificates of the context {login.context!r} cannot be used ({detail})") from exc


class _Credentials:
    """A user of a kubeconfig; a token's file is read anew for every request, so that it may be renewed."""

    def __init__(self, user: Mapping[str, Any]) -> None:
        self._user = user
        self._file = Path(user["tokenFile"]) if user.get("tokenFile") else None

    async def authorization(self) -> str | None:
        token = self._file.read_text().strip() if self._file is not None else self._user.get("token")
        if token:
            return f"Bearer {token}"
        if self._user.get("username"):
            pair = f"{self._user['username']}:{self._user.get('password', '')}"
            return f"Basic {b64encode(pair.encode()).decode()}"
        return None


def _tls(login: Login) -> ssl.SSLContext:
    cluster, user = login.cluster, login.user
    authority = cluster.get("certificate-authority-data")
    context = ssl.create_default_context(
        cafile=None if authority else cluster.get("certificate-authority"),
        cadata=b64decode(authority).decode() if authority else None,
    )
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if user.get("client-certificate-data") or user.get("client-certificate"):
        with tempfile.TemporaryDirectory() as folder:  # Python's ssl reads them from files only
            certificate = _file(user, "client-certificate", folder=Path(folder))
            context.load_cert_chain(certificate, _file(user, "client-key", folder=Path(folder)))
    return context


def _file(user: Mapping[str, Any], key: str, *, folder: Path) -> Path:
    inline = user.get(f"{key}-data")
    if not inline:
        return Path(user[key])
    file = folder / key
    file.touch(mode=0o600)
    file.write_bytes(b64decode(inline))
    return file


async def _with_plugins(login: Login) -> Access:
    """Leave it to `kubernetes.aio`, which reads files only."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "chosen",
        "clusters": [{"name": "chosen", "cluster": dict(login.cluster)}],
        "users": [{"name": "chosen", "user": dict(login.user)}],
        "contexts": [{"name": "chosen", "context": {"cluster": "chosen", "user": "chosen"}}],
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kubeconfig"
        file.touch(mode=0o600)
        file.write_text(json.dumps(config))
        try:
            return await read_kubeconfig(file)
        except SettingError as exc:
            told = str(exc).replace(f"the kubeconfig file {file}", f"the context {login.context!r}")
            raise SettingError(told) from exc
