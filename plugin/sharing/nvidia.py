"""A file of NVIDIA's device plugin (version: v1), and what it means here. Pure.

Read as NVIDIA's k8s-device-plugin reads it: keys that it does not know are passed over, sharing.mps wins over
sharing.timeSlicing, `devices` is all GPUs where it is left out, and an index stands for a GPU (``0``) or one of its MIG
instances (``0:1``). A field that has no meaning here gets a sentence, and is no error.
"""

from collections.abc import Mapping
from typing import Any, Final

from fracgpu.errors import SettingError
from fracgpu.process.configfile import shown
from fracgpu.requests import MAX_SEATS
from fracgpu.sharing import GpuRule, IsolationChoice, SharingSpec
from plugin.sharing.reading import MAX_RULES, read_list, read_number

_FLAGS: Final = {
    "migStrategy": "migStrategy",
    "failOnInitError": "failOnInitError",
    "mpsRoot": "mpsRoot",
    "nvidiaDriverRoot": "nvidiaDriverRoot",
}  # NVIDIA's name under flags -> the setting here
_PLUGIN_FLAGS: Final = {
    "passDeviceSpecs": "passDeviceSpecs",
    "deviceListStrategy": "deviceListStrategy",
    "deviceIDStrategy": "deviceIDStrategy",
}  # the same under flags.plugin
_MEANINGLESS: Final = {
    "flags.nvidiaDevRoot": "device nodes are looked for under nvidiaDriverRoot and in /dev",
    "flags.gdrcopyEnabled": "GDRCopy is not set up by fracgpu",
    "flags.gdsEnabled": "GPUDirect Storage is not set up by fracgpu",
    "flags.mofedEnabled": "MOFED is not set up by fracgpu",
    "flags.useNodeFeatureAPI": "fracgpu publishes GPUs as GPUNode objects, not as node features",
    "flags.deviceDiscoveryStrategy": "GPUs are found with NVML",
    "flags.gfd": "GPU feature discovery is another program",
    "flags.plugin.cdiAnnotationPrefix": "the annotations have the standard's prefix cdi.k8s.io/",
    "flags.plugin.containerDriverRoot": "the driver is not looked into from this container",
    "flags.plugin.sharedDevicesAllocationPolicy": "the scheduler extender chooses GPUs, and packs them tightly",
    "resources": "resources are named fracgpu.io/memory and fracgpu.io/replica",
    "imex": "IMEX channels are not handed out by fracgpu",
}  # field -> why it has no meaning here
_PREFIX: Final = "nvidia.com/"
_HOOK: Final = "flags.plugin.nvidiaCTKPath"


def read_nvidia(document: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[SharingSpec, ...], tuple[str, ...]]:
    """Read settings by their key here, rules of sharing, and a sentence for each field without a meaning.

    Raises:
        SettingError: NVIDIA's plugin would not take it either, or it asks for more than 1024 replicas.
    """
    messages: list[str] = []
    settings: dict[str, Any] = {}
    flags = _mapping(document.get("flags"), at="flags")
    plugin = _mapping(flags.get("plugin"), at="flags.plugin")
    _take(flags, _FLAGS, at="flags", settings=settings, messages=messages)
    _take(plugin, _PLUGIN_FLAGS, at="flags.plugin", settings=settings, messages=messages)
    for key in document.keys() - {"version", "flags", "sharing"}:
        _without_meaning(key, messages)
    rules = _sharing(_mapping(document.get("sharing"), at="sharing"), messages)
    return settings, rules, tuple(sorted(messages))


def _take(
    found: Mapping[str, Any], known: Mapping[str, str], *, at: str, settings: dict[str, Any], messages: list[str]
) -> None:
    for key, value in found.items():
        field = f"{at}.{key}"
        if value is None or field == "flags.plugin":
            continue
        if key in known:
            settings[known[key]] = value
        elif field == _HOOK and str(value).endswith("nvidia-cdi-hook"):
            settings["nvidiaCdiHookPath"] = value
        elif field == _HOOK:
            messages.append(f"{field} has no meaning here: name the path of nvidia-cdi-hook in nvidiaCdiHookPath")
        else:
            _without_meaning(field, messages)


def _without_meaning(field: str, messages: list[str]) -> None:
    why = _MEANINGLESS.get(field)
    messages.append(f"{field} has no meaning here: {why}" if why else f"{field} is not known, and is passed over")


def _sharing(found: Mapping[str, Any], messages: list[str]) -> tuple[SharingSpec, ...]:
    for key in found.keys() - {"timeSlicing", "mps"}:
        _without_meaning(f"sharing.{key}", messages)
    with_mps = found.get("mps") is not None
    if with_mps and found.get("timeSlicing") is not None:
        messages.append("sharing.timeSlicing has no meaning here: sharing.mps wins, as with NVIDIA's plugin")
    name = "mps" if with_mps else "timeSlicing"
    if found.get(name) is None:
        return ()
    return (_replicated(_mapping(found[name], at=f"sharing.{name}"), "mps" if with_mps else None, name, messages),)


def _replicated(
    found: Mapping[str, Any], isolation: IsolationChoice | None, name: str, messages: list[str]
) -> SharingSpec:
    at = f"sharing.{name}"
    for key in found.keys() - {"resources"}:
        why = {
            "renameByDefault": "resources are named fracgpu.io/memory and fracgpu.io/replica",
            "failRequestsGreaterThanOne": "a pod that asks for k seats gets k seats of one GPU",
        }.get(key)
        messages.append(f"{at}.{key} {f'has no meaning here: {why}' if why else 'is not known, and is passed over'}")
    resources = read_list(found.get("resources"), at=f"{at}.resources", limit=MAX_RULES)
    if not resources:
        raise SettingError(f"{at}.resources is empty; it must say which resources are shared")
    for_all: int | None = None
    rules: list[GpuRule] = []
    for place, item in enumerate(resources):
        where = f"{at}.resources[{place}]"
        resource = _mapping(item, at=where)
        replicas = read_number(resource.get("replicas"), at=f"{where}.replicas", low=1, high=MAX_SEATS)
        kind = _kind(resource.get("name"), at=f"{where}.name")
        for key in resource.keys() - {"name", "devices", "replicas"}:
            messages.append(f"{where}.{key} has no meaning here: resources are named by fracgpu")
        devices = _devices(resource.get("devices"), at=f"{where}.devices", messages=messages)
        if devices:
            rules += [GpuRule(uuid=device, replicas=replicas) for device in devices]
        elif kind == "gpu":
            for_all = replicas if for_all is None else for_all
        elif kind.startswith("mig-"):
            profile = kind.removeprefix("mig-").replace(".me", "+me")
            rules.append(GpuRule(model=f"MIG {profile}", replicas=replicas))
        else:
            messages.append(f"{where}.name is {shown(kind)}, which is neither gpu nor mig-PROFILE, and is passed over")
    # Of what it does not list NVIDIA's plugin makes no replicas.
    return SharingSpec(replicas=1 if for_all is None else for_all, isolation=isolation, gpus=tuple(rules))


def _kind(value: object, *, at: str) -> str:
    if not isinstance(value, str) or not value:
        raise SettingError(f"{at} is {shown(value)}; it must be a resource, for example nvidia.com/gpu")
    return value.removeprefix(_PREFIX)


def _devices(value: object, *, at: str, messages: list[str]) -> list[str]:
    """The UUIDs and indices that are listed; none for all GPUs."""
    if value is None or value == "all":
        return []
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        messages.append(f"{at} has no meaning here: a number of GPUs names none of them, so the replicas are for all")
        return []
    devices = [str(item) for item in read_list(value, at=at, limit=MAX_RULES)]
    for device in devices:
        if not device.startswith(("GPU-", "MIG-")) and not device.replace(":", "", 1).isdecimal():
            raise SettingError(f"{at} has {shown(device)}; it must be all, or list indices (0, 0:1) or UUIDs of GPUs")
    return devices


def _mapping(value: object, *, at: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SettingError(f"{at} is {shown(value)}; it must be a mapping")
    return value
