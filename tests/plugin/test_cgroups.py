from __future__ import annotations

from pathlib import Path

import pytest

from fracgpu.errors import SettingError, UnavailableError
from fracgpu.names import PodUid
from plugin.kubelet.cgroups import PodCgroups

UID = PodUid("8f4c2a31-0b7e-4d3c-9a55-c3f1f0e6b001")
UNDERSCORED = "8f4c2a31_0b7e_4d3c_9a55_c3f1f0e6b001"


@pytest.mark.parametrize(
    "folder",
    {
        "v2, cgroupfs, guaranteed": f"kubepods/pod{UID}",
        "v2, cgroupfs": f"kubepods/besteffort/pod{UID}",
        "v2, systemd": f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORED}.slice",
        "v2, systemd, guaranteed": f"kubepods.slice/kubepods-pod{UNDERSCORED}.slice",
        "v1, cgroupfs": f"pids/kubepods/burstable/pod{UID}",
        "v1, systemd": f"systemd/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORED}.slice",
        "kubelet with its own root": f"kubelet/kubepods/burstable/pod{UID}",
        "kubelet with its own root, v1": f"memory/kubelet/kubepods/pod{UID}",
        "kubelet with its own slice": (
            "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/"
            f"kubelet-kubepods-burstable-pod{UNDERSCORED}.slice"
        ),
    }.items(),
    ids=lambda case: case[0],
)
def test_processes_are_found_in_every_layout(tmp_path: Path, folder: tuple[str, str]) -> None:
    pod = tmp_path / folder[1]
    container = pod / "cri-containerd-0123.scope" / "nested"
    container.mkdir(parents=True)
    for path in (pod, container.parent, container):
        (path / "cgroup.procs").touch()
    cgroups = PodCgroups(tmp_path)
    cgroups.check()
    assert not cgroups.has_processes(UID), "empty"
    (container / "cgroup.procs").write_text("4194305\n")
    assert cgroups.has_processes(UID)
    assert not cgroups.has_processes(PodUid("f0e6b001")), "another pod"


def test_no_cgroup_of_the_pod_is_no_process(tmp_path: Path) -> None:
    (tmp_path / "kubepods" / "burstable").mkdir(parents=True)
    assert not PodCgroups(tmp_path).has_processes(UID)


def test_what_cannot_be_read_is_never_empty(tmp_path: Path) -> None:
    cgroups = PodCgroups(tmp_path)
    cgroups.check()  # the kubelet may come later
    with pytest.raises(UnavailableError, match="no kubepods cgroup"):
        cgroups.has_processes(UID)
    # A folder where a file is expected: unreadable for root too.
    (tmp_path / "kubepods" / f"pod{UID}" / "cgroup.procs").mkdir(parents=True)
    with pytest.raises(UnavailableError, match="cannot be read"):
        cgroups.has_processes(UID)


def test_a_root_that_is_not_there_is_an_error_at_start(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"--cgroup-root .* cannot be read"):
        PodCgroups(tmp_path / "missing").check()
    (tmp_path / "file").touch()
    with pytest.raises(SettingError):
        PodCgroups(tmp_path / "file").check()
