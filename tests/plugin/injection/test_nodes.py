from __future__ import annotations

from pathlib import Path

from plugin.handout import DeviceNode
from plugin.injection.nodes import NodeTable, find_nodes
from tests.plugin.injection.host import Host, make_card, make_mig

A = make_card("a", index=0, minor=3)
M = make_mig("m", parent=A, instance=7)


def find(host: Host, *cards: object, root: str = "/") -> NodeTable:
    return find_nodes(cards, driver_root=Path(root), host_root=host.root, proc_root=host.proc)  # type: ignore[arg-type]


def test_only_nodes_that_exist_are_found_and_the_minor_counts_not_the_index(host: Host) -> None:
    host.add_nodes("nvidiactl", "nvidia-uvm", "nvidia3", "nvidia0")
    assert find(host, A) == NodeTable(
        (DeviceNode("/dev/nvidiactl", "/dev/nvidiactl"), DeviceNode("/dev/nvidia-uvm", "/dev/nvidia-uvm")),
        {A.uuid: (DeviceNode("/dev/nvidia3", "/dev/nvidia3"),)},
    )


def test_the_driver_containers_nodes_are_used_where_it_has_them(host: Host) -> None:
    host.add_nodes("nvidiactl", "nvidia3")
    host.add_nodes("null", root="/run/nvidia/driver")
    bare = find(host, A, root="/run/nvidia/driver")
    host.add_nodes("nvidiactl", "nvidia3", root="/run/nvidia/driver")
    full = find(host, A, root="/run/nvidia/driver")
    assert bare.of_gpu == {A.uuid: (DeviceNode("/dev/nvidia3", "/dev/nvidia3"),)}
    assert full.of_gpu == {A.uuid: (DeviceNode("/run/nvidia/driver/dev/nvidia3", "/dev/nvidia3"),)}


def test_a_mig_instance_is_its_parent_and_two_capabilities(host: Host) -> None:
    host.add_nodes("nvidia3", "nvidia-caps/nvidia-cap66", "nvidia-caps/nvidia-cap67")
    listing = "config 1\nmonitor 2\ngpu3/gi7/access 66\ngpu3/gi7/ci0/access 67\ngpu3/gi70/access 9\nnonsense\n"
    host.add("/proc/driver/nvidia-caps/mig-minors", content=listing)
    want = ["/dev/nvidia3", "/dev/nvidia-caps/nvidia-cap66", "/dev/nvidia-caps/nvidia-cap67"]
    assert [node.container_path for node in find(host, M).of_gpu[M.uuid]] == want


def test_capabilities_are_read_one_by_one_where_there_is_no_list(host: Host) -> None:
    host.add_nodes("nvidia3", "nvidia-caps/nvidia-cap66", "nvidia-caps/nvidia-cap67")
    folder = "/proc/driver/nvidia/capabilities/gpu3/mig/gi7"
    host.add(f"{folder}/access", content="DeviceFileMinor: 66\nDeviceFileMode: 256\nDeviceFileModify: 1\n")
    host.add(f"{folder}/ci0/access", content="DeviceFileMinor: 67\n")
    assert [node.host_path for node in find(host, M).of_gpu[M.uuid]][1:] == [
        "/dev/nvidia-caps/nvidia-cap66",
        "/dev/nvidia-caps/nvidia-cap67",
    ]


def test_what_is_missing_of_a_gpu_is_said_of_that_gpu_only(host: Host) -> None:
    host.add_nodes("nvidia3")
    gone = make_card("gone", index=1, minor=9)
    table = find(host, A, M, gone)
    assert list(table.of_gpu) == [A.uuid]
    assert set(table.problems) == {M.uuid, gone.uuid}
    assert "/dev/nvidia9 of GPU GPU-gone does not exist" in table.problems[gone.uuid]
    assert "no capability gpu3/gi7 for MIG instance MIG-m" in table.problems[M.uuid]
