"""The plugin's file, in our own form and in NVIDIA's, and what is noticed when it changes."""

import asyncio
from pathlib import Path

import pytest

from fracgpu.errors import SettingError
from fracgpu.quantities import Mib
from fracgpu.sharing import GpuRule, LabelRequirement, LabelSelector, SharingSpec
from plugin.settings import PluginSettings
from plugin.sharing.file import PluginFile, load_settings, parse_file
from plugin.sharing.filewatch import FileWatch

OWN = """
version: v1alpha1
memoryUnitMiB: 1024
deviceListStrategy: [envvar, cdi-cri]
sharing:
  - nodeSelector:
      matchLabels: {pool: a}
      matchExpressions: [{key: zone, operator: In, values: [z1]}, {key: spot, operator: DoesNotExist}]
    replicas: 8
    reservedMiB: 512
    isolation: mps
    memoryUnitMiB: 1024
    gpus:
      - {model: A100, replicas: 4, reservedMiB: 1024}
      - {uuid: GPU-a, excluded: true}
  - replicas: 1
"""
NVIDIA = """
version: v1
flags:
  migStrategy: mixed
  failOnInitError: false
  nvidiaDriverRoot: /run/nvidia/driver
  gdsEnabled: false
  plugin:
    passDeviceSpecs: true
    deviceListStrategy: [envvar, cdi-cri]
    deviceIDStrategy: index
    nvidiaCTKPath: /usr/bin/nvidia-ctk
  gfd: {oneshot: true}
sharing:
  timeSlicing:
    renameByDefault: true
    failRequestsGreaterThanOne: true
    resources:
      - {name: nvidia.com/gpu, replicas: 10}
      - {name: nvidia.com/gpu, replicas: 3, devices: [0, "1:0", GPU-b1028956-cfa2-0990-bf4a-5da9abb51763]}
      - {name: nvidia.com/mig-1g.10gb.me, rename: small, replicas: 2}
resources: {gpus: [{pattern: "*", name: gpu}]}
"""
REQUIREMENTS = (LabelRequirement("zone", "In", ("z1",)), LabelRequirement("spot", "DoesNotExist"))
NODE = ["--node-name", "n1"]


def test_our_own_form() -> None:
    file = parse_file(OWN.encode())

    assert file.settings == {"memoryUnitMiB": 1024, "deviceListStrategy": ["envvar", "cdi-cri"]}
    assert file.messages == ()
    assert file.sharing == (
        SharingSpec(
            LabelSelector(
                {"pool": "a"}, (LabelRequirement("zone", "In", ("z1",)), LabelRequirement("spot", "DoesNotExist"))
            ),
            replicas=8,
            reserved=Mib(512),
            isolation="mps",
            memory_unit=Mib(1024),
            gpus=(GpuRule(model="A100", replicas=4, reserved=Mib(1024)), GpuRule(uuid="GPU-a", excluded=True)),
        ),
        SharingSpec(replicas=1),
    )


def test_the_form_of_nvidias_plugin() -> None:
    file = parse_file(NVIDIA.encode())

    assert file.settings == {
        "migStrategy": "mixed",
        "failOnInitError": False,
        "nvidiaDriverRoot": "/run/nvidia/driver",
        "passDeviceSpecs": True,
        "deviceListStrategy": ["envvar", "cdi-cri"],
        "deviceIDStrategy": "index",
    }
    assert file.sharing == (
        SharingSpec(
            replicas=10,
            gpus=(
                GpuRule(uuid="0", replicas=3),
                GpuRule(uuid="1:0", replicas=3),
                GpuRule(uuid="GPU-b1028956-cfa2-0990-bf4a-5da9abb51763", replicas=3),
                GpuRule(model="MIG 1g.10gb+me", replicas=2),
            ),
        ),
    )
    assert [message.partition(" ")[0] for message in file.messages] == [
        "flags.gdsEnabled",
        "flags.gfd",
        "flags.plugin.nvidiaCTKPath",
        "resources",
        "sharing.timeSlicing.failRequestsGreaterThanOne",
        "sharing.timeSlicing.renameByDefault",
        "sharing.timeSlicing.resources[2].rename",
    ]
    assert file.messages[0] == "flags.gdsEnabled has no meaning here: GPUDirect Storage is not set up by fracgpu"


NVIDIA_SHARING: dict[str, tuple[str, tuple[SharingSpec, ...], list[str]]] = {
    "nothing shared": ("{}", (), []),
    "MPS wins": (
        "{mps: {resources: [{name: gpu, replicas: 5}]}, timeSlicing: {resources: [{name: gpu, replicas: 2}]}}",
        (SharingSpec(replicas=5, isolation="mps"),),
        ["sharing.timeSlicing has no meaning here: sharing.mps wins, as with NVIDIA's plugin"],
    ),
    "what is not listed is not shared": (
        "{timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 5, devices: [0]}]}}",
        (SharingSpec(replicas=1, gpus=(GpuRule(uuid="0", replicas=5),)),),
        [],
    ),
    "a number of GPUs": (
        "{timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 5, devices: 2}]}}",
        (SharingSpec(replicas=5),),
        [
            "sharing.timeSlicing.resources[0].devices has no meaning here: a number of GPUs names none of them, so the "
            "replicas are for all"
        ],
    ),
    "an unknown resource": (
        "{timeSlicing: {resources: [{name: nvidia.com/hotdog, replicas: 5}]}}",
        (SharingSpec(replicas=1),),
        ["sharing.timeSlicing.resources[0].name is 'hotdog', which is neither gpu nor mig-PROFILE, and is passed over"],
    ),
}


@pytest.mark.parametrize("case", NVIDIA_SHARING)
def test_sharing_of_nvidias_plugin(case: str) -> None:
    text, want, messages = NVIDIA_SHARING[case]

    file = parse_file(f"version: v1\nsharing: {text}".encode())

    assert (file.sharing, list(file.messages)) == (want, messages)


WRONG = {
    "no version": ("port: 1", "version is missing; it must be v1alpha1 (fracgpu's form) or v1 (that of NVIDIA's"),
    "another version": ("version: v2", "version is 'v2'; it must be v1alpha1"),
    "replicas at the top": (
        "version: v1alpha1\nreplicas: 2",
        "replicas has no place at the top level; put it under sharing: [{replicas: ...}]",
    ),
    "a spec that is no list": (
        "version: v1alpha1\nsharing: {replicas: 2}",
        "sharing is \"{'replicas': 2}\"; it must be a list of at most 64",
    ),
    "a misspelled field": (
        "version: v1alpha1\nsharing: [{replica: 2}]",
        "sharing[0] has an unknown key 'replica'; did you mean replicas? it may have nodeSelector, replicas, ",
    ),
    "too many replicas": (
        "version: v1alpha1\nsharing: [{}, {gpus: [{model: T4, replicas: 2000}]}]",
        "sharing[1].gpus[0].replicas is '2000'; it must be a whole number from 1 to 1024",
    ),
    "true is no number": (
        "version: v1alpha1\nsharing: [{replicas: true}]",
        "sharing[0].replicas is 'True'; it must be a whole number",
    ),
    "both names": (
        "version: v1alpha1\nsharing: [{gpus: [{model: T4, uuid: GPU-a, replicas: 2}]}]",
        "sharing[0].gpus[0] has both model and uuid; it must have one",
    ),
    "no effect": (
        "version: v1alpha1\nsharing: [{gpus: [{model: T4}]}]",
        "sharing[0].gpus[0] sets nothing; it must have replicas, reservedMiB or excluded",
    ),
    "an index for a UUID": (
        "version: v1alpha1\nsharing: [{gpus: [{uuid: '0', replicas: 2}]}]",
        "sharing[0].gpus[0].uuid is '0'; it must begin with GPU- or MIG-",
    ),
    "no such isolation": (
        "version: v1alpha1\nsharing: [{isolation: strong}]",
        "sharing[0].isolation is 'strong'; it must be one of auto, driver-limit, mps, preload, none",
    ),
    "a label that is a number": (
        "version: v1alpha1\nsharing: [{nodeSelector: {matchLabels: {pool: 1}}}]",
        "sharing[0].nodeSelector.matchLabels is \"{'pool': 1}\"; it must have labels and their values, in quotes",
    ),
    "Exists with values": (
        "version: v1alpha1\nsharing: [{nodeSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]",
        "sharing[0].nodeSelector.matchExpressions[0].values is \"['b']\"; the operators In and NotIn need values",
    ),
    "NVIDIA's without replicas": (
        "version: v1\nsharing: {timeSlicing: {resources: [{name: gpu}]}}",
        "sharing.timeSlicing.resources[0].replicas is 'None'; it must be a whole number from 1 to 1024",
    ),
    "NVIDIA's without resources": (
        "version: v1\nsharing: {timeSlicing: {resources: []}}",
        "sharing.timeSlicing.resources is empty; it must say which resources are shared",
    ),
    "NVIDIA's with another kind of device": (
        "version: v1\nsharing: {timeSlicing: {resources: [{name: gpu, replicas: 2, devices: [first]}]}}",
        "sharing.timeSlicing.resources[0].devices has 'first'; it must be all, or list indices",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_cannot_be_used(case: str) -> None:
    text, want = WRONG[case]
    with pytest.raises(SettingError) as caught:
        parse_file(text.encode())
    assert str(caught.value).startswith(want)


def test_settings_tell_what_flags_gave_and_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(OWN)

    settings, file = load_settings([*NODE, f"--config-file={path}", "--replicas=2"])

    assert (settings.memory_unit_mib, settings.device_list_strategy) == (1024, ("envvar", "cdi-cri"))
    assert (settings.replicas, settings.reserved_mib, settings.isolation) == (2, None, None)
    assert file == parse_file(OWN.encode())


def test_settings_of_nvidias_file_are_checked_like_our_own(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("version: v1\nflags: {migStrategy: some}")

    with pytest.raises(SettingError) as caught:
        load_settings([*NODE, f"--config-file={path}"])

    assert str(caught.value) == f"migStrategy in {path} is 'some'; it must be 'none', 'single' or 'mixed'"


def test_an_unknown_key_names_those_that_a_file_may_have(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("version: v1alpha1\nmigstrategi: single")

    with pytest.raises(SettingError, match="did you mean migStrategy") as caught:
        load_settings([*NODE, f"--config-file={path}"])

    assert "reservedMiB" not in str(caught.value), "it has its place under sharing"


def test_without_a_file() -> None:
    assert load_settings(NODE)[1] == PluginFile()


# --- changes


class Watched:
    """A file as a ConfigMap mounts it: a link to a file in a folder that is a link itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._versions = 0
        self.path = folder / "config.yaml"
        self.path.symlink_to(folder / "..data" / "config.yaml")
        self.seen: list[PluginFile | str] = []
        self.has_changed = asyncio.Event()

    def write(self, text: str) -> None:
        self._versions += 1
        version = self._folder / f"..{self._versions}"
        version.mkdir()
        (version / "config.yaml").write_text(text)
        new = self._folder / "..data_tmp"
        new.symlink_to(version)
        new.rename(self._folder / "..data")

    def remove(self) -> None:
        (self._folder / "..data").unlink()

    def watch(self, *, check_seconds: float = 1.0) -> FileWatch:
        argv = [*NODE, f"--config-file={self.path}"]

        def changed(settings: PluginSettings, file: PluginFile) -> None:
            assert settings.config_file == self.path
            self.seen.append(file)
            self.has_changed.set()

        _, file = load_settings(argv)
        return FileWatch(
            argv, path=self.path, file=file, changed=changed, failed=self.seen.append, check_seconds=check_seconds
        )

    def take(self) -> list[PluginFile | str]:
        seen = list(self.seen)
        self.seen.clear()
        return seen


def text(replicas: object) -> str:
    return f"version: v1alpha1\nsharing: [{{replicas: {replicas}}}]"


async def test_changes_are_noticed_and_mistakes_told_once(tmp_path: Path) -> None:
    file = Watched(tmp_path)
    file.write(text(1))
    watch = file.watch()

    await watch.check()
    assert file.take() == []

    file.write(text(2))
    await watch.check()
    await watch.check()
    assert file.take() == [parse_file(text(2).encode())]

    file.write(text("many"))
    await watch.check()
    await watch.check()
    assert file.take() == [
        f"{file.path} cannot be used: sharing[0].replicas is 'many'; it must be a whole number from 1 to 1024; "
        "what was read before stays in force"
    ]

    file.write("version: v1alpha1\nport: http")  # a setting, and not the rules
    await watch.check()
    assert "port in" in str(file.take()[0])

    file.remove()
    await watch.check()
    await watch.check()
    (told,) = file.take()
    assert "cannot be read: No such file or directory" in str(told)

    file.write(text(2))  # as before the mistakes: whoever told of them may stop
    await watch.check()
    assert file.take() == [parse_file(text(2).encode())]


async def test_a_new_mount_of_the_same_content_is_no_change(tmp_path: Path) -> None:
    file = Watched(tmp_path)
    file.write(text(1))
    watch = file.watch()

    file.write(text(1))
    await watch.check()

    assert file.take() == []


async def test_it_looks_by_itself(tmp_path: Path) -> None:
    file = Watched(tmp_path)
    file.write(text(1))
    running = asyncio.create_task(file.watch(check_seconds=0.01).run())

    file.write(text(2))
    async with asyncio.timeout(10):
        await file.has_changed.wait()

    running.cancel()
    assert file.take() == [parse_file(text(2).encode())]
