"""What our own CDI specification says: values in, a JSON object out.

The form is that of the CDI (cncf-tags/container-device-interface, SPEC.md), in the oldest version that has
all that is used, because runtimes refuse versions that they do not know.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fracgpu.names import DOMAIN
from plugin.handout import DeviceNode
from plugin.injection.driver import DriverFiles

OWN_KIND: Final = f"{DOMAIN}/gpu"
"""Vendor and class of the devices in it."""

Specification = dict[str, Any]

_MOUNT_OPTIONS: Final = ("ro", "nosuid", "nodev", "rbind", "rprivate")
_DEVICE_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")


def is_device_name(name: str) -> bool:
    """Whether CDI allows a device to be called so."""
    return _DEVICE_NAME.fullmatch(name) is not None


def make_specification(
    devices: Mapping[str, Sequence[DeviceNode]],
    *,
    control: Sequence[DeviceNode],
    driver: DriverFiles,
    hook: Path | None,
) -> Specification:
    """Describe these GPUs.

    Args:
        devices: by their names, the nodes of each; there has to be one at least.
        control: the nodes that all of them need.
        driver: the files that all of them need.
        hook: the container toolkit's hook on the host, which makes links and brings the libraries into the
            container's ldconfig cache; without one the libraries are mounted under their links' names too, and found
            where the container's loader looks into the folder that they have on the host.
    """
    mounts = [(file.host_path, file.container_path) for file in (*driver.libraries, *driver.programs)]
    common: dict[str, Any] = {
        # The runtime's legacy hook shall not add what the image asks for, which is often "all".
        "env": ["NVIDIA_VISIBLE_DEVICES=void"],
        "deviceNodes": [_node(node) for node in control],
    }
    if hook is None:
        mounts += [(link.library.host_path, link.path) for link in driver.links]
    else:
        common["hooks"] = _hooks(hook, driver)
    common["mounts"] = [
        {"hostPath": host, "containerPath": container, "options": list(_MOUNT_OPTIONS)} for host, container in mounts
    ]
    nodes = [*control, *(node for own in devices.values() for node in own)]
    # Host paths, and names that begin with a digit, came with 0.5.0.
    newer = any(node.host_path != node.container_path for node in nodes) or any(name[0].isdigit() for name in devices)
    return {
        "cdiVersion": "0.5.0" if newer else "0.3.0",
        "kind": OWN_KIND,
        "devices": [
            {"name": name, "containerEdits": {"deviceNodes": [_node(node) for node in own]}}
            for name, own in devices.items()
        ],
        "containerEdits": common,
    }


def still_described(wanted: Specification, *, by: Specification) -> frozenset[str]:
    """The names of the devices of which another specification says just what the wanted one does."""
    if by.get("kind") != wanted["kind"] or by.get("containerEdits") != wanted["containerEdits"]:
        return frozenset()
    there = by.get("devices")
    return frozenset(
        device["name"] for device in wanted["devices"] if isinstance(there, list) and there.count(device) == 1
    )


def _node(node: DeviceNode) -> dict[str, str]:
    entry = {"path": node.container_path, "permissions": node.permissions}
    if node.host_path != node.container_path:
        entry["hostPath"] = node.host_path
    return entry


def _hooks(hook: Path, driver: DriverFiles) -> list[dict[str, Any]]:
    """Only the two that every version of the toolkit knows: a hook that fails keeps the container from starting."""
    program = [hook.name, "hook"] if hook.name == "nvidia-ctk" else [hook.name]
    links = [f"{_target(link.path, link.library.container_path)}::{link.path}" for link in driver.links]
    folders = dict.fromkeys(str(Path(file.container_path).parent) for file in driver.libraries)
    calls = (
        ("create-symlinks", "--link", links),
        ("update-ldcache", "--folder", list(folders)),
    )
    return [
        {
            "hookName": "createContainer",
            "path": str(hook),
            "args": [*program, command, *(word for value in values for word in (option, value))],
        }
        for command, option, values in calls
    ]


def _target(link: str, library: str) -> str:
    """What a link says: a bare name where both lie in one folder."""
    same = Path(link).parent == Path(library).parent
    return Path(library).name if same else library
