from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plugin.handout import DeviceNode
from plugin.injection.driver import DriverFiles, HostFile, Link
from plugin.injection.specification import Specification, is_device_name, make_specification, still_described

FOLDER = "/usr/lib/x86_64-linux-gnu"
CUDA = HostFile(f"/run/driver{FOLDER}/libcuda.so.570.1", f"{FOLDER}/libcuda.so.570.1")
DRIVER = DriverFiles(
    (CUDA,),
    (Link(f"{FOLDER}/libcuda.so.1", CUDA), Link("/usr/lib64/libcuda.so.1", CUDA)),
    (HostFile("/run/driver/usr/bin/nvidia-smi", "/usr/bin/nvidia-smi"),),
)
CONTROL = (DeviceNode("/dev/nvidiactl", "/dev/nvidiactl"),)
NODE = DeviceNode("/dev/nvidia0", "/dev/nvidia0")


def make(*names: str, hook: Path | None = None, node: DeviceNode = NODE) -> Specification:
    return make_specification(dict.fromkeys(names, (node,)), control=CONTROL, driver=DRIVER, hook=hook)


def check_form(spec: Specification) -> None:
    """What a runtime, which refuses unknown fields, demands of a specification, as far as ours have such fields."""
    assert set(spec) == {"cdiVersion", "kind", "devices", "containerEdits"}
    assert spec["devices"]
    for device in spec["devices"]:
        assert set(device) == {"name", "containerEdits"}
        assert is_device_name(device["name"])
        assert device["containerEdits"]["deviceNodes"]
    for edits in (spec["containerEdits"], *(device["containerEdits"] for device in spec["devices"])):
        assert set(edits) <= {"env", "deviceNodes", "hooks", "mounts"}
        assert all("=" in variable for variable in edits.get("env", ()))
        for node in edits.get("deviceNodes", ()):
            assert {"path"} <= set(node) <= {"path", "hostPath", "permissions"}
            assert "hostPath" not in node or spec["cdiVersion"] >= "0.5.0"
        for mount in edits.get("mounts", ()):
            assert set(mount) == {"hostPath", "containerPath", "options"}
            assert mount["hostPath"].startswith("/")
            assert mount["containerPath"].startswith("/")
        for hook in edits.get("hooks", ()):
            assert set(hook) == {"hookName", "path", "args"}
            assert hook["hookName"] == "createContainer"


@pytest.mark.parametrize(
    ("names", "node", "want_version"),
    [
        (["GPU-a", "MIG-b"], NODE, "0.3.0"),
        (["0"], NODE, "0.5.0"),
        (["0:1"], NODE, "0.5.0"),
        (["GPU-a"], DeviceNode("/run/driver/dev/nvidia0", "/dev/nvidia0"), "0.5.0"),
    ],
    ids=["uuids", "index", "MIG index", "the driver container's nodes"],
)
@pytest.mark.parametrize("hook", [None, Path("/usr/bin/nvidia-cdi-hook")], ids=["no hook", "hook"])
def test_the_version_is_the_oldest_that_allows_what_is_said(
    names: list[str], node: DeviceNode, want_version: str, hook: Path | None
) -> None:
    spec = make(*names, node=node, hook=hook)
    check_form(spec)
    assert spec["cdiVersion"] == want_version
    assert spec["kind"] == "fracgpu.io/gpu"
    assert [device["name"] for device in spec["devices"]] == names


def test_a_legacy_runtime_is_told_to_add_nothing() -> None:
    assert make("GPU-a")["containerEdits"]["env"] == ["NVIDIA_VISIBLE_DEVICES=void"]


def test_a_node_elsewhere_on_the_host_is_seen_at_its_usual_place() -> None:
    spec = make("GPU-a", node=DeviceNode("/run/driver/dev/nvidia0", "/dev/nvidia0"))
    want = {"path": "/dev/nvidia0", "hostPath": "/run/driver/dev/nvidia0", "permissions": "rw"}
    assert spec["devices"][0]["containerEdits"] == {"deviceNodes": [want]}


@pytest.mark.parametrize(
    ("hook", "program"),
    [("/usr/bin/nvidia-cdi-hook", ["nvidia-cdi-hook"]), ("/usr/bin/nvidia-ctk", ["nvidia-ctk", "hook"])],
)
def test_the_hook_makes_the_links_and_renews_the_loaders_cache(hook: str, program: list[str]) -> None:
    edits = make("GPU-a", hook=Path(hook))["containerEdits"]
    links = [
        "--link",
        f"libcuda.so.570.1::{FOLDER}/libcuda.so.1",
        "--link",
        f"{FOLDER}/libcuda.so.570.1::/usr/lib64/libcuda.so.1",
    ]
    assert edits["hooks"] == [
        {"hookName": "createContainer", "path": hook, "args": [*program, "create-symlinks", *links]},
        {"hookName": "createContainer", "path": hook, "args": [*program, "update-ldcache", "--folder", FOLDER]},
    ]
    assert container_paths(edits) == [CUDA.container_path, "/usr/bin/nvidia-smi"]


def test_without_a_hook_the_libraries_are_mounted_under_their_links_names_too() -> None:
    edits = make("GPU-a")["containerEdits"]
    assert "hooks" not in edits
    assert container_paths(edits)[2:] == [f"{FOLDER}/libcuda.so.1", "/usr/lib64/libcuda.so.1"]
    assert {mount["hostPath"] for mount in edits["mounts"][2:]} == {CUDA.host_path}


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("GPU-fef8", True),
        ("0", True),
        ("0:1", True),
        ("MIG-GPU-a/1/0", False),
        ("", False),
        ("-a", False),
        ("a:", False),
    ],
)
def test_names_that_cdi_allows(name: str, want: bool) -> None:
    assert is_device_name(name) is want


def test_what_another_specification_says_the_same_of() -> None:
    wanted = make("GPU-a", "GPU-b")
    assert still_described(wanted, by=make("GPU-b", "GPU-c")) == {"GPU-b"}
    assert still_described(wanted, by=make("GPU-a", node=DeviceNode("/dev/nvidia7", "/dev/nvidia7"))) == frozenset()
    assert still_described(wanted, by=make("GPU-a", hook=Path("/h"))) == frozenset()
    assert still_described(wanted, by={}) == still_described(wanted, by=wanted | {"devices": 5}) == frozenset()


def container_paths(edits: dict[str, Any]) -> list[str]:
    return [mount["containerPath"] for mount in edits["mounts"]]
