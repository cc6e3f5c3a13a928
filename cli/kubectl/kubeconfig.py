"""Which cluster, user and namespace kubectl would take: kubeconfig files merged, and one context of them chosen.

As kubectl does it: the file that ``--kubeconfig`` names, else those in ``KUBECONFIG``, else ``~/.kube/config``. Of
several files the first that says something is right. Left out: how to log in with it (`access`).
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from fracgpu.errors import SettingError

DEFAULT_NAMESPACE: Final = "default"
_VARIABLE: Final = "KUBECONFIG"
_KINDS: Final = {"clusters": "cluster", "users": "user", "contexts": "context"}  # list -> key of what an item holds
# What is the path of a file, relative to the folder of the kubeconfig file that says so.
_PATHS: Final = {
    "clusters": ("certificate-authority",),
    "users": ("client-certificate", "client-key", "tokenFile"),
    "contexts": (),
}


@dataclass(frozen=True, slots=True)
class Login:
    """A context and what it names, as the files write it, paths made absolute.

    Attributes:
        context: its name.
        cluster: where the API server is, and whom to trust.
        user: who we are there; it holds secrets.
        namespace: of the context.
    """

    context: str
    cluster: Mapping[str, Any]
    user: Mapping[str, Any]
    namespace: str = DEFAULT_NAMESPACE

    def __repr__(self) -> str:
        return f"Login({self.context!r})"


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """The files merged; each map is name -> what it holds."""

    clusters: Mapping[str, Mapping[str, Any]]
    users: Mapping[str, Mapping[str, Any]]
    contexts: Mapping[str, Mapping[str, Any]]
    current_context: str = ""

    def __repr__(self) -> str:
        return f"Kubeconfig({sorted(self.contexts)})"

    def login(self, context: str = "") -> Login:
        """What a context stands for.

        Args:
            context: its name; empty for the current one.

        Raises:
            SettingError: there is no such context, or it names what does not exist.
        """
        name = context or self.current_context
        known = ", ".join(sorted(self.contexts)) or "none"
        if not name:
            raise SettingError(
                f"the kubeconfig has no current context; choose one of its contexts ({known}) with --context"
            )
        found = self.contexts.get(name)
        if found is None:
            raise SettingError(f"the kubeconfig has no context {name!r}; its contexts are {known}")
        cluster = self.clusters.get(str(found.get("cluster")))
        if cluster is None:
            raise SettingError(
                f"the context {name!r} is for the cluster {found.get('cluster')!r}, which the kubeconfig does not have"
            )
        user_name = found.get("user")
        user = self.users.get(str(user_name)) if user_name else {}
        if user is None:
            raise SettingError(f"the context {name!r} is for the user {user_name!r}, whom the kubeconfig does not have")
        return Login(name, cluster, user, str(found.get("namespace") or DEFAULT_NAMESPACE))


def read_kubeconfigs(named: Path | None) -> Kubeconfig | None:
    """Read the files that kubectl would read; None where there are none.

    Args:
        named: by ``--kubeconfig``.

    Raises:
        SettingError: that file does not exist, or one of the files cannot be read.
    """
    if named is not None and not named.is_file():
        raise SettingError(f"--kubeconfig {named} does not exist")
    files = [named] if named is not None else _usual_files()
    found = [_read(file) for file in files if file.is_file()]
    return merge(found) if found else None


def merge(files: Iterable[Mapping[str, Any]]) -> Kubeconfig:
    """Merge what files say; of two that name the same the first is right."""
    merged: dict[str, dict[str, Mapping[str, Any]]] = {kind: {} for kind in _KINDS}
    current = ""
    for file in files:
        current = current or str(file.get("current-context") or "")
        for kind, names in merged.items():
            for name, found in file[kind].items():
                names.setdefault(name, found)
    return Kubeconfig(merged["clusters"], merged["users"], merged["contexts"], current)


def _usual_files() -> list[Path]:
    named = [Path(part) for part in os.environ.get(_VARIABLE, "").split(os.pathsep) if part]
    return named or [Path.home() / ".kube" / "config"]


def _read(file: Path) -> Mapping[str, Any]:
    """A file's contents, with a map in place of each list, and absolute paths.

    Raises:
        SettingError: it cannot be read, or is no kubeconfig.
    """
    try:
        found = yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}  # noqa: S506
        return {
            "current-context": found.get("current-context"),
            **{
                kind: {
                    str(item["name"]): _absolute(item.get(key) or {}, _PATHS[kind], folder=file.parent)
                    for item in found.get(kind) or ()
                }
                for kind, key in _KINDS.items()
            },
        }
    except OSError as exc:
        raise SettingError(f"the kubeconfig file {file} cannot be read: {exc.strerror}") from exc
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as exc:
        # Its texts may quote a secret.
        raise SettingError(f"the file {file} is no kubeconfig; see what kubectl config view says") from exc


def _absolute(found: Mapping[str, Any], paths: Iterable[str], *, folder: Path) -> Mapping[str, Any]:
    return {**found, **{key: str(folder / found[key]) for key in paths if found.get(key)}}
