"""A cgroup tree in a temporary folder, laid out as the kubelet's cgroupfs driver does.

``<root>/kubepods[/burstable|/besteffort]/pod<uid>/<container id>/cgroup.procs``; a pod that asks only GPU shares is
"besteffort", because extended resources do not count for the quality of service. A plugin that finds out in this
tree whether a pod's processes have ended finds it out the same way on a node. Left out: controllers and limits.
"""

from __future__ import annotations

from pathlib import Path

from playground.cluster import JsonObject

PROCS = "cgroup.procs"


QOS_FOLDERS = {"Guaranteed": "", "Burstable": "burstable", "BestEffort": "besteffort"}
"""``status.qosClass`` of a pod, which the API server sets, to the folder of its cgroup."""


class CgroupTree:
    """The cgroups of one node's pods."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[int, Path] = {}  # pid -> the container's cgroup

    def prepare(self) -> None:
        """Make the folders that every kubelet makes when it starts."""
        for quality in QOS_FOLDERS.values():
            (self.root / "kubepods" / quality).mkdir(parents=True, exist_ok=True)

    def enter(self, pid: int, *, pod: JsonObject, container_id: str) -> None:
        """Put a process into a new container cgroup."""
        quality = QOS_FOLDERS[pod["status"]["qosClass"]]
        pod_folder = self.root / "kubepods" / quality / f"pod{pod['metadata']['uid']}"
        folder = pod_folder / container_id
        folder.mkdir(parents=True)
        (pod_folder / PROCS).touch()
        (folder / PROCS).write_text(f"{pid}\n")
        self._folders[pid] = folder

    def leave(self, pid: int) -> None:
        """End a process: its container's cgroup goes, and the pod's with the last container."""
        folder = self._folders.pop(pid)
        _remove(folder)
        if not any(child.is_dir() for child in folder.parent.iterdir()):
            _remove(folder.parent)


def _remove(folder: Path) -> None:
    (folder / PROCS).unlink()
    folder.rmdir()
