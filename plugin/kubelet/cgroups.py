"""Which processes pods have, and whether any still runs, read from the kubelet's cgroup tree.

Knows cgroup v2 and v1 (there any one controller tells), and both of the kubelet's layouts: ``kubepods/[qos/]pod<uid>``
and ``kubepods.slice/[...-qos.slice/]kubepods-[qos-]pod<uid_>.slice``, also one folder further down, where the kubelet
was given a cgroup root of its own. What cannot be read is never taken for empty.

Below the pod's folder lie those of its containers: containerd names them ``cri-containerd-<id>.scope``, CRI-O
``crio-<id>.scope``, Docker ``docker-<id>.scope``; with the cgroupfs driver it is ``<id>``, or ``crio-<id>``. CRI-O's
monitor of a container may have one beside it, ``crio-conmon-<id>[.scope]``, which is not the container. Whatever a
container makes below its own folder belongs to it.
"""

import errno
import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from fracgpu.errors import SettingError, UnavailableError
from fracgpu.names import PodUid

ContainerPids = Mapping[str, frozenset[int]]
"""Container ID -> the processes in its cgroup and below; the empty ID for those in the pod's but in no container's.

The process 0 stands for processes that are there and cannot be named: the kernel shows a process of a PID namespace
that we are not in (no ``hostPID``) as 0 with cgroup v2, and not at all with v1.
"""

_logger = logging.getLogger(__name__)


_HOST_PID_NAMESPACE: Final = 0xEFFFFFFC  # PROC_PID_INIT_INO of Linux: the inode of the first PID namespace


class PodCgroups:
    """The pods' cgroups.

    Args:
        root: the cgroup filesystem of the host (``/sys/fs/cgroup``).
        proc: this process's own ``/proc/self``.
    """

    def __init__(self, root: Path, *, proc: Path = Path("/proc/self")) -> None:
        self._root = root
        self._proc = proc

    def check(self) -> None:
        """Check, at start, that the tree can be read and that processes are seen in it.

        Raises:
            SettingError: that is not so; says what to do.
        """
        try:
            os.listdir(self._root)
        except OSError as exc:
            raise SettingError(
                f"--cgroup-root {self._root} cannot be read ({exc.strerror}): mount the host's /sys/fs/cgroup into "
                "this pod; without it nobody can tell when the memory of a deleted pod is free"
            ) from exc
        if self._has_v1() and not self._sees_all_processes():
            raise SettingError(
                f"--cgroup-root {self._root} is cgroup v1, which shows no processes of other PID namespaces: every pod "
                "would seem to have ended, and its memory be given away. Run this plugin with hostPID: true"
            )
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
            return any(_is_occupied(path) for tree in trees for _, path in _pod_folders(tree, frozenset((uid,))))
        except OSError as exc:
            raise UnavailableError(f"the cgroup of pod {uid} cannot be read: {exc}") from exc

    def processes(self, uids: Collection[PodUid]) -> dict[PodUid, ContainerPids]:
        """Which processes run in pods' cgroups, by pod UID; a pod without a cgroup has no entry.

        Raises:
            UnavailableError: that cannot be told: the kubelet's tree is not there, or cannot be read.
        """
        wanted = frozenset(uids)
        found: dict[PodUid, dict[str, frozenset[int]]] = {}
        try:
            trees = list(self._kubepods())
            if not trees:
                raise UnavailableError(f"there is no kubepods cgroup below {self._root}: is it the host's?")
            for tree in trees:  # with v1 several, which may know a container each: together they know all
                for uid, folder in _pod_folders(tree, wanted):
                    containers = found.setdefault(uid, {})
                    for identity, pids in _containers(folder).items():
                        containers[identity] = containers.get(identity, frozenset()) | pids
        except OSError as exc:
            raise UnavailableError(f"the pods' cgroups cannot be read: {exc}") from exc
        return dict(found)

    def _has_v1(self) -> bool:
        try:
            mounts = [line.split() for line in (self._proc / "mountinfo").read_text().splitlines()]
        except OSError:
            return False
        # "36 35 98:0 /root /mount/point options ... - type source options"; the mount point is the fifth.
        return any(
            "cgroup" in mount[mount.index("-") + 1 : mount.index("-") + 2]
            and Path(mount[4]).is_relative_to(self._root.resolve())
            for mount in mounts
            if "-" in mount
        )

    def _sees_all_processes(self) -> bool:
        try:
            return (self._proc / "ns" / "pid").stat().st_ino == _HOST_PID_NAMESPACE
        except OSError:
            return False

    def _kubepods(self) -> Iterator[Path]:
        """The kubelet's trees: at the root, in a v1 controller, or in the kubelet's own cgroup root."""
        for depth in ("", "*/", "*/*/"):
            yield from (
                path for path in self._root.glob(f"{depth}*kubepods*") if path.name in _TREES or _is_slice(path)
            )


_TREES: Final = frozenset({"kubepods", "kubepods.slice"})
_CONTAINER: Final = re.compile(r"(?:cri-containerd-|crio-(?!conmon-)|docker-)?(?P<id>[0-9a-zA-Z]+)(?:\.scope)?")
_POD: Final = re.compile(r"(?:^|-)pod(?P<uid>.+?)(?P<systemd>\.slice)?$")

_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV})  # the folder, or its cgroup under an open file, was removed


def _is_slice(path: Path) -> bool:
    return path.name.endswith("-kubepods.slice")  # systemd, below a slice of its own: kubelet-kubepods.slice


def _pod_folders(tree: Path, wanted: frozenset[PodUid]) -> Iterator[tuple[PodUid, Path]]:
    """The folders of these pods. An error where the tree cannot be read, or vanishes: then nothing is known."""
    with os.scandir(tree) as entries:
        folders = [Path(entry.path) for entry in entries if entry.is_dir()]
    for folder in folders:
        match = _POD.search(folder.name)
        if match is not None:
            uid = PodUid(match["uid"].replace("_", "-") if match["systemd"] else match["uid"])
            if uid in wanted:
                yield uid, folder
        elif "besteffort" in folder.name or "burstable" in folder.name:
            yield from _pod_folders(folder, wanted)


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


def _containers(pod_folder: Path) -> dict[str, frozenset[int]]:
    found = {"": _own_pids(pod_folder)}
    for folder in _folders(pod_folder):
        match = _CONTAINER.fullmatch(folder.name)
        identity = match["id"] if match else ""
        found[identity] = found.get(identity, frozenset()) | _pids_below(folder)
    return found


def _pids_below(folder: Path) -> frozenset[int]:
    return _own_pids(folder).union(*map(_pids_below, _folders(folder)))


def _own_pids(folder: Path) -> frozenset[int]:
    try:
        return frozenset(map(int, (folder / "cgroup.procs").read_bytes().split()))
    except OSError as exc:
        # In a threaded cgroup (v2) the file cannot be read: its processes are listed further up.
        if exc.errno in _GONE or exc.errno == errno.EOPNOTSUPP:
            return frozenset()
        raise


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as exc:
        if exc.errno in _GONE:
            return []
        raise
