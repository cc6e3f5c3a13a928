"""Whether a pod's processes still run, read from the kubelet's cgroup tree.

Knows cgroup v2 and v1 (there any one controller tells), and both of the kubelet's layouts: ``kubepods/[qos/]pod<uid>``
and ``kubepods.slice/[...-qos.slice/]kubepods-[qos-]pod<uid_>.slice``, also one folder further down, where the kubelet
was given a cgroup root of its own. What cannot be read is never taken for empty. Left out: which processes they are.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from fracgpu.errors import SettingError, UnavailableError
from fracgpu.names import PodUid

_logger = logging.getLogger(__name__)


class PodCgroups:
    """The pods' cgroups below `root`, the cgroup filesystem of the host (``/sys/fs/cgroup``)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def check(self) -> None:
        """Check, at start, that the tree can be read.

        Raises:
            SettingError: it cannot; says what to do.
        """
        try:
            os.listdir(self._root)
        except OSError as exc:
            raise SettingError(
                f"--cgroup-root {self._root} cannot be read ({exc.strerror}): mount the host's /sys/fs/cgroup into "
                "this pod; without it nobody can tell when the memory of a deleted pod is free"
            ) from exc
        if not any(self._kubepods()):
            # Not an error: the kubelet makes it when it starts, and until then `has_processes` does not guess.
            _logger.warning("no kubepods cgroup", extra={"cgroup_root": str(self._root)})

    def has_processes(self, uid: PodUid) -> bool:
        """Whether any process runs in a pod's cgroup or below it.

        Raises:
            UnavailableError: that cannot be told: the kubelet's tree is not there, or cannot be read.
        """
        try:
            trees = list(self._kubepods())
            if not trees:
                raise UnavailableError(f"there is no kubepods cgroup below {self._root}: is it the host's?")
            return any(_is_occupied(folder) for tree in trees for folder in _pod_folders(tree, uid))
        except OSError as exc:
            raise UnavailableError(f"the cgroup of pod {uid} cannot be read: {exc}") from exc

    def _kubepods(self) -> Iterator[Path]:
        """The kubelet's trees: at the root, in a v1 controller, or in the kubelet's own cgroup root."""
        for depth in ("", "*/", "*/*/"):
            yield from (
                path for path in self._root.glob(f"{depth}*kubepods*") if path.name in _TREES or _is_slice(path)
            )


_TREES = frozenset({"kubepods", "kubepods.slice"})


def _is_slice(path: Path) -> bool:
    return path.name.endswith("-kubepods.slice")  # systemd, below a slice of its own: kubelet-kubepods.slice


def _pod_folders(tree: Path, uid: PodUid) -> Iterator[Path]:
    endings = (f"pod{uid}", f"-pod{uid.replace('-', '_')}.slice")
    with os.scandir(tree) as entries:
        folders = [Path(entry.path) for entry in entries if entry.is_dir()]
    for folder in folders:
        if folder.name.endswith(endings):
            yield folder
        elif "besteffort" in folder.name or "burstable" in folder.name:
            yield from (below for below in folder.iterdir() if below.name.endswith(endings))


def _is_occupied(folder: Path) -> bool:
    """Whether a ``cgroup.procs`` in this folder or below has an entry; a folder that vanishes meanwhile has none."""
    try:
        if (folder / "cgroup.procs").read_bytes().strip():
            return True
        with os.scandir(folder) as entries:
            below = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return False
    return any(_is_occupied(path) for path in below)
