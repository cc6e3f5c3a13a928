"""The file by which kubectl finds the demo's cluster: there while the demo stays, and how to use it in words."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from fracgpu.errors import SettingError


def check(path: Path) -> None:
    """Say at once what would be found out only after the cluster has started.

    Raises:
        SettingError: as `written`.
    """
    if path.exists():
        raise _exists(path)
    if not path.absolute().parent.is_dir():
        raise SettingError(f"--kubeconfig {path} cannot be written: its folder does not exist; name another file")


@contextlib.contextmanager
def written(text: str, path: Path) -> Iterator[Path]:
    """Write the file, and remove it at the end; nothing of the user's is overwritten.

    Raises:
        SettingError: it exists already, or cannot be written.
    """
    path = path.absolute()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as exc:
        raise _exists(path) from exc
    except OSError as exc:
        raise SettingError(f"--kubeconfig {path} cannot be written ({exc.strerror}); name another file") from exc
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        yield path
    finally:
        path.unlink(missing_ok=True)


def how_to_use(path: Path) -> str:
    """What to type, in lines that can be copied."""
    return f"kubectl works on this cluster; in another terminal:\n  export KUBECONFIG={quote(str(path))}"


def _exists(path: Path) -> SettingError:
    return SettingError(f"--kubeconfig {path} exists already, and stays as it is; name another file")
