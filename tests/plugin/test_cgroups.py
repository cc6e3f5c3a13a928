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


def test_cgroup_v1_without_the_hosts_processes_is_refused(tmp_path: Path) -> None:
    """There every pod would look as if it had ended."""
    proc = tmp_path / "proc"
    (proc / "ns").mkdir(parents=True)
    (proc / "ns" / "pid").touch()  # not the inode of the host's
    root = tmp_path / "cgroup"
    (root / "memory" / "kubepods").mkdir(parents=True)
    line = f"36 35 0:31 / {root}/memory rw,nosuid shared:9 - {{}} cgroup rw,memory\n"
    (proc / "mountinfo").write_text(line.format("cgroup2"))
    PodCgroups(root, proc=proc).check()
    (proc / "mountinfo").write_text(line.format("cgroup"))
    with pytest.raises(SettingError, match="hostPID: true"):
        PodCgroups(root, proc=proc).check()


ID = "4f1c" * 16
SANDBOX = "9d2e" * 16
SYSTEMD = f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORED}.slice"
CGROUPFS = f"kubepods/besteffort/pod{UID}"


def put(folder: Path, *pids: int) -> None:
    """A cgroup with these processes; the folders above it are cgroups without."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))


@pytest.mark.parametrize(
    ("pod", "container"),
    [
        pytest.param(SYSTEMD, f"cri-containerd-{ID}.scope", id="containerd, systemd"),
        pytest.param(CGROUPFS, ID, id="containerd and Docker, cgroupfs"),
        pytest.param(SYSTEMD, f"crio-{ID}.scope", id="CRI-O, systemd"),
        pytest.param(CGROUPFS, f"crio-{ID}", id="CRI-O, cgroupfs"),
        pytest.param(SYSTEMD, f"docker-{ID}.scope", id="Docker, systemd"),
        pytest.param(f"kubepods.slice/kubepods-pod{UNDERSCORED}.slice", f"crio-{ID}.scope", id="guaranteed"),
        pytest.param(f"pids/{CGROUPFS}", ID, id="v1, cgroupfs"),
        pytest.param(f"memory/{SYSTEMD}", f"docker-{ID}.scope", id="v1, systemd"),
        pytest.param(f"kubelet/{CGROUPFS}", ID, id="kubelet with its own root"),
    ],
)
def test_processes_are_known_by_their_container(tmp_path: Path, pod: str, container: str) -> None:
    put(tmp_path / pod)
    put(tmp_path / pod / container, 10)
    put(tmp_path / pod / container / "payload" / "nested", 11, 12)
    put(tmp_path / pod / container.replace(ID, SANDBOX), 13)
    put(tmp_path / pod.replace(UID[:8], "00000000"), 14)
    assert PodCgroups(tmp_path).processes([UID]) == {UID: {"": set(), ID: {10, 11, 12}, SANDBOX: {13}}}


@pytest.mark.parametrize(
    ("pod", "folder"),
    [
        (SYSTEMD, f"crio-conmon-{ID}.scope"),
        (CGROUPFS, f"crio-conmon-{ID}"),
        (SYSTEMD, "some-other-runtime.scope"),
    ],
)
def test_what_is_no_container_belongs_to_the_pod_alone(tmp_path: Path, pod: str, folder: str) -> None:
    put(tmp_path / pod, 10)
    put(tmp_path / pod / folder, 11)
    assert PodCgroups(tmp_path).processes([UID]) == {UID: {"": {10, 11}}}


def test_with_v1_the_controllers_are_taken_together(tmp_path: Path) -> None:
    for controller in ("memory", "pids"):
        put(tmp_path / controller / CGROUPFS / ID, 10)
    put(tmp_path / "pids" / CGROUPFS / SANDBOX, 11)
    (tmp_path / "cpu,cpuacct" / CGROUPFS / ID).mkdir(parents=True)  # its file is gone already
    assert PodCgroups(tmp_path).processes([UID]) == {UID: {"": set(), ID: {10}, SANDBOX: {11}}}


def test_only_the_pods_that_were_asked_for_are_looked_at(tmp_path: Path) -> None:
    other = PodUid("00000000-0b7e-4d3c-9a55-c3f1f0e6b001")
    put(tmp_path / "kubepods" / f"pod{other}" / ID, 10)
    (tmp_path / CGROUPFS / ID / "cgroup.procs").mkdir(parents=True)  # not readable, and not read
    assert PodCgroups(tmp_path).processes([other]) == {other: {"": set(), ID: {10}}}
    assert PodCgroups(tmp_path).processes([]) == {}


def test_processes_outside_of_our_pid_namespace_are_there_without_a_name(tmp_path: Path) -> None:
    put(tmp_path / CGROUPFS / ID, 0, 0)
    assert PodCgroups(tmp_path).processes([UID]) == {UID: {"": set(), ID: {0}}}


def test_processes_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no kubepods cgroup"):
        PodCgroups(tmp_path).processes([UID])
    (tmp_path / CGROUPFS / ID / "cgroup.procs").mkdir(parents=True)
    with pytest.raises(UnavailableError, match="cannot be read"):
        PodCgroups(tmp_path).processes([UID])
