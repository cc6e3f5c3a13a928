from __future__ import annotations

from pathlib import Path

import pytest

from fracgpu.errors import UnavailableError
from plugin.injection.driver import DriverFiles, HostFile, find_driver
from tests.plugin.injection.host import LIBRARIES, VERSION, Host


def find(host: Host, root: str = "/") -> DriverFiles:
    return find_driver(VERSION, driver_root=Path(root), host_root=host.root)


def links(files: DriverFiles) -> dict[str, str]:
    return {link.path: link.library.container_path for link in files.links}


def test_only_this_versions_libraries_are_found(host: Host) -> None:
    host.add_driver()
    host.add(
        f"/{LIBRARIES}/libcuda.so.535.1",
        f"/{LIBRARIES}/libc.so.6",
        f"/{LIBRARIES}/libnvidia-nvvm70.so.4",
        f"/{LIBRARIES}/vdpau/libvdpau_nvidia.so.{VERSION}",
    )
    found = {Path(file.host_path).name for file in find(host).libraries}
    assert found == {
        f"libcuda.so.{VERSION}",
        f"libnvidia-ml.so.{VERSION}",
        f"libnvidia-ptxjitcompiler.so.{VERSION}",
        "libnvidia-nvvm70.so.4",
        f"libvdpau_nvidia.so.{VERSION}",
    }


def test_links_of_the_host_are_found_and_those_that_programs_open_are_always_there(host: Host) -> None:
    host.add_driver()
    folder = f"/{LIBRARIES}"
    assert links(find(host)) == {
        f"{folder}/libcuda.so": f"{folder}/libcuda.so.{VERSION}",
        f"{folder}/libcuda.so.1": f"{folder}/libcuda.so.{VERSION}",
        f"{folder}/libnvidia-ml.so.1": f"{folder}/libnvidia-ml.so.{VERSION}",
        f"{folder}/libnvidia-ptxjitcompiler.so.1": f"{folder}/libnvidia-ptxjitcompiler.so.{VERSION}",
    }


def test_a_folder_and_a_library_count_once_under_all_their_names(host: Host) -> None:
    host.add_driver()
    (host.root / "lib").symlink_to("usr/lib")
    (host.root / "lib64").symlink_to("/nowhere/lib64")
    host.add("/elsewhere/libnvidia-cfg.so")
    (host.root / LIBRARIES / f"libnvidia-cfg.so.{VERSION}").symlink_to(host.root / "elsewhere/libnvidia-cfg.so")
    paths = [file.container_path for file in find(host).libraries]
    assert len(paths) == len(set(paths)) == 4
    assert all(path.startswith("/usr/lib/") for path in paths)
    assert set(paths).isdisjoint(links(find(host)))


def test_links_into_another_folder_are_kept(host: Host) -> None:
    host.add(f"/{LIBRARIES}/nvidia/current/libcuda.so.{VERSION}")
    (host.root / LIBRARIES / "libcuda.so.1").symlink_to(f"nvidia/current/libcuda.so.{VERSION}")
    assert links(find(host))[f"/{LIBRARIES}/libcuda.so.1"] == f"/{LIBRARIES}/nvidia/current/libcuda.so.{VERSION}"


def test_below_another_root_a_container_sees_the_usual_paths(host: Host) -> None:
    host.add_driver(root="/run/nvidia/driver")
    found = find(host, "/run/nvidia/driver")
    assert found.programs == (HostFile("/run/nvidia/driver/usr/bin/nvidia-smi", "/usr/bin/nvidia-smi"),)
    assert (
        HostFile(f"/run/nvidia/driver/{LIBRARIES}/libcuda.so.{VERSION}", f"/{LIBRARIES}/libcuda.so.{VERSION}")
        in found.libraries
    )


def test_programs_are_executable_files_in_a_fixed_order(host: Host) -> None:
    host.add_driver()
    host.add("/usr/bin/nvidia-cuda-mps-server", "/usr/sbin/nvidia-cuda-mps-control", "/bin/nvidia-smi")
    host.add("/usr/bin/nvidia-debugdump", mode=0o644)
    assert [file.container_path for file in find(host).programs] == [
        "/usr/bin/nvidia-smi",
        "/usr/sbin/nvidia-cuda-mps-control",
        "/usr/bin/nvidia-cuda-mps-server",
    ]


def test_without_the_cuda_library_of_this_version_there_is_no_driver(host: Host) -> None:
    host.add_driver(version="535.1")
    with pytest.raises(UnavailableError, match=rf"libcuda\.so\.{VERSION} is not .* nvidia_driver_root has to be"):
        find(host)
