from __future__ import annotations

from typing import Any, Literal

import pytest

from fracgpu.errors import UnavailableError
from plugin.handout import DeviceNode, Edits, Mount
from plugin.injection.injector import Injector
from plugin.settings import DeviceListStrategy
from tests.plugin.injection.host import VERSION, Host, make_card, make_mig
from tests.plugin.injection.test_specfiles import full_disk
from tests.plugin.injection.test_specification import check_form

A, B = make_card("a", index=0), make_card("b", index=1)
M = make_mig("m", parent=B, position=2)
Strategies = tuple[DeviceListStrategy, ...]
Ids = Literal["uuid", "index"]
MOUNTS = "/var/run/nvidia-container-devices"


@pytest.fixture
def node(host: Host) -> Host:
    """A node with a driver, its toolkit, two GPUs and a MIG instance on the second."""
    host.add_driver()
    host.add_nodes(
        "nvidiactl", "nvidia-uvm", "nvidia0", "nvidia1", "nvidia-caps/nvidia-cap4", "nvidia-caps/nvidia-cap5"
    )
    host.add("/proc/driver/nvidia-caps/mig-minors", content="gpu1/gi1/access 4\ngpu1/gi1/ci0/access 5\n")
    return host


def prepared(host: Host, *strategies: DeviceListStrategy, **options: Any) -> Injector:
    injector = host.injector(*strategies, **options)
    injector.prepare([A, B, M], driver_version=VERSION)
    return injector


@pytest.mark.parametrize(
    ("strategies", "ids", "want"),
    [
        pytest.param(("envvar",), "uuid", Edits({"NVIDIA_VISIBLE_DEVICES": "GPU-a,MIG-m"}), id="envvar, UUIDs"),
        pytest.param(("envvar",), "index", Edits({"NVIDIA_VISIBLE_DEVICES": "0,1:2"}), id="envvar, indexes"),
        pytest.param(
            ("volume-mounts",),
            "uuid",
            Edits(
                {"NVIDIA_VISIBLE_DEVICES": MOUNTS},
                tuple(Mount("/dev/null", f"{MOUNTS}/{name}", read_only=False) for name in ("GPU-a", "MIG-m")),
            ),
            id="volume-mounts, UUIDs",
        ),
        pytest.param(
            ("envvar", "volume-mounts"),
            "index",
            Edits(
                {"NVIDIA_VISIBLE_DEVICES": MOUNTS},
                tuple(Mount("/dev/null", f"{MOUNTS}/{name}", read_only=False) for name in ("0", "1:2")),
            ),
            id="envvar and volume-mounts, indexes",
        ),
    ],
)
def test_lists_of_devices(host: Host, strategies: Strategies, ids: Ids, want: Edits) -> None:
    assert host.injector(*strategies, ids=ids).edits([A, M, A]) == want


@pytest.mark.parametrize("is_foreign", [True, False])
@pytest.mark.parametrize(
    ("strategies", "ids", "want_env", "want_names"),
    [
        (("cdi-cri",), "uuid", {"NVIDIA_VISIBLE_DEVICES": "void"}, ("GPU-a", "MIG-m")),
        (("cdi-cri",), "index", {"NVIDIA_VISIBLE_DEVICES": "void"}, ("0", "1:2")),
        (("cdi-cri", "envvar"), "uuid", {"NVIDIA_VISIBLE_DEVICES": "GPU-a,MIG-m"}, ("GPU-a", "MIG-m")),
        (("cdi-cri", "volume-mounts"), "index", {"NVIDIA_VISIBLE_DEVICES": MOUNTS}, ("0", "1:2")),
    ],
)
def test_cdi_devices(
    node: Host,
    is_foreign: bool,
    strategies: Strategies,
    ids: Ids,
    want_env: dict[str, str],
    want_names: tuple[str, ...],
) -> None:
    if is_foreign:
        node.add_foreign("GPU-a", "GPU-b", "MIG-m", "all")
        node.add_foreign("0", "1", "1:2", file="indexes.json")
    kind = "nvidia.com/gpu" if is_foreign else "fracgpu.io/gpu"
    edits = prepared(node, *strategies, ids=ids).edits([A, M])
    assert edits.cdi_devices == tuple(f"{kind}={name}" for name in want_names)
    assert edits.env == want_env
    assert edits.annotations == {}
    assert edits.devices == ()
    assert (node.cdi / "fracgpu.io-gpu.json").exists() is not is_foreign


def test_cdi_annotations_have_a_key_that_kubernetes_allows_and_that_tells_devices_apart(node: Host) -> None:
    node.add_foreign("GPU-a", "GPU-b", "MIG-m")
    injector = prepared(node, "cdi-annotations", "cdi-cri")
    both = injector.edits([A, M])
    ((key, value),) = both.annotations.items()
    prefix, _, name = key.partition("/")
    assert prefix == "cdi.k8s.io"
    assert len(name) <= 63
    assert name.replace("-", "").replace("_", "").isalnum()
    assert value == "nvidia.com/gpu=GPU-a,nvidia.com/gpu=MIG-m" == ",".join(both.cdi_devices)
    assert injector.edits([A, M]) == both
    assert set(injector.edits([B]).annotations).isdisjoint(both.annotations)


@pytest.mark.parametrize("strategies", [("envvar",), ("volume-mounts", "cdi-cri")], ids=["envvar", "with CDI"])
def test_device_nodes_are_handed_out_each_once(node: Host, strategies: Strategies) -> None:
    names = ("nvidiactl", "nvidia-uvm", "nvidia1", "nvidia-caps/nvidia-cap4", "nvidia-caps/nvidia-cap5")
    want = tuple(DeviceNode(f"/dev/{name}", f"/dev/{name}") for name in names)
    assert prepared(node, *strategies, nodes=True).edits([B, M]).devices == want


def test_with_cdi_alone_the_runtime_adds_the_nodes(node: Host) -> None:
    assert prepared(node, "cdi-cri", nodes=True).edits([A]).devices == ()


def test_nothing_is_handed_out_that_is_not_prepared(node: Host) -> None:
    for injector in (node.injector("cdi-cri"), node.injector("envvar", nodes=True)):
        with pytest.raises(UnavailableError, match="not known yet"):
            injector.edits([A])
        injector.prepare([A], driver_version=VERSION)
        injector.edits([A])
        with pytest.raises(UnavailableError):
            injector.edits([A, B])


def test_our_own_specification_describes_every_gpu(node: Host) -> None:
    prepared(node, "cdi-cri")
    spec = node.own()
    check_form(spec)
    assert {
        device["name"]: [n["path"] for n in device["containerEdits"]["deviceNodes"]] for device in spec["devices"]
    } == {
        "GPU-a": ["/dev/nvidia0"],
        "GPU-b": ["/dev/nvidia1"],
        "MIG-m": ["/dev/nvidia1", "/dev/nvidia-caps/nvidia-cap4", "/dev/nvidia-caps/nvidia-cap5"],
    }
    assert [hook["path"] for hook in spec["containerEdits"]["hooks"]] == ["/usr/bin/nvidia-cdi-hook"] * 2


@pytest.mark.parametrize("lacking", ["GPU-b", "MIG-m"])
def test_others_devices_are_used_only_where_all_that_are_sound_are_there(node: Host, lacking: str) -> None:
    node.add_foreign(*({"GPU-a", "GPU-b", "MIG-m"} - {lacking}))
    assert prepared(node, "cdi-cri").edits([A]).cdi_devices == ("fracgpu.io/gpu=GPU-a",)
    sick = [card if card.uuid != lacking else make_card(lacking[-1], problem="it fell off the bus") for card in (A, B)]
    injector = node.injector("cdi-cri")
    injector.prepare([*sick, *([M] if lacking == "GPU-b" else [])], driver_version=VERSION)
    assert injector.edits([A]).cdi_devices == ("nvidia.com/gpu=GPU-a",)


def test_a_specification_that_says_the_same_is_not_written_again(node: Host) -> None:
    prepared(node, "cdi-cri")
    before = (node.cdi / "fracgpu.io-gpu.json").stat().st_ino
    prepared(node, "cdi-cri")
    assert (node.cdi / "fracgpu.io-gpu.json").stat().st_ino == before
    (node.cdi / "fracgpu.io-gpu.json").write_text("{half")
    prepared(node, "cdi-cri")
    check_form(node.own())


def test_with_a_full_disk_only_what_the_old_specification_says_rightly_is_handed_out(node: Host) -> None:
    first = node.injector("cdi-cri")
    first.prepare([A], driver_version=VERSION)
    restarted = node.injector("cdi-cri")
    with full_disk():
        restarted.prepare([A], driver_version=VERSION)
        with pytest.raises(UnavailableError, match="it is tried again"):
            restarted.prepare([A, B], driver_version=VERSION)
    assert restarted.edits([A]).cdi_devices == ("fracgpu.io/gpu=GPU-a",)
    with pytest.raises(UnavailableError, match="cannot be written"):
        restarted.edits([B])
    restarted.prepare([A, B], driver_version=VERSION)
    assert restarted.edits([B]).cdi_devices == ("fracgpu.io/gpu=GPU-b",)


def test_after_a_driver_upgrade_the_old_specification_is_not_trusted(node: Host) -> None:
    injector = prepared(node, "cdi-cri")
    with pytest.raises(UnavailableError, match=r"libcuda\.so\.575\.1"):
        injector.prepare([A, B], driver_version="575.1")
    with pytest.raises(UnavailableError, match=r"libcuda\.so\.575\.1"):
        injector.edits([A])
    assert VERSION in str(node.own())


def test_others_devices_are_still_handed_out_where_ours_cannot_be_written(node: Host) -> None:
    node.add_foreign("GPU-a")
    (node.root / "file").write_text("")
    injector = node.injector("cdi-cri", spec_dir=node.root / "file")
    with pytest.raises(UnavailableError, match="cannot be written"):
        injector.prepare([A, B], driver_version=VERSION)
    assert injector.edits([A]).cdi_devices == ("nvidia.com/gpu=GPU-a",)
    with pytest.raises(UnavailableError, match="cannot be written"):
        injector.edits([B])


def test_our_specification_goes_only_when_asked_and_not_in_use(node: Host) -> None:
    injector = prepared(node, "cdi-cri")
    injector.retire()
    assert node.own()
    node.add_foreign("GPU-a", "GPU-b", "MIG-m")
    injector.prepare([A, B, M], driver_version=VERSION)
    assert injector.edits([A]).cdi_devices == ("nvidia.com/gpu=GPU-a",)
    assert node.own()
    injector.retire()
    assert not (node.cdi / "fracgpu.io-gpu.json").exists()
    prepared(node, "cdi-cri", dirs=[node.cdi])
    node.injector("envvar").retire()
    assert not (node.cdi / "fracgpu.io-gpu.json").exists()


def test_a_gpu_without_its_node_is_named_and_the_others_go_on(node: Host) -> None:
    lost = make_card("lost", index=2)
    for injector in (node.injector("cdi-cri"), node.injector("envvar", nodes=True)):
        injector.prepare([A, lost], driver_version=VERSION)
        assert injector.edits([A])
        assert list(injector.problems) == [lost.uuid]
        with pytest.raises(UnavailableError, match="/dev/nvidia2 of GPU GPU-lost does not exist"):
            injector.edits([lost])


def test_a_node_that_is_missing_matters_only_where_it_would_be_handed_out(node: Host) -> None:
    lost = make_card("lost", index=2)
    node.add_foreign("GPU-lost")
    for injector in (node.injector("cdi-cri"), node.injector("envvar")):
        injector.prepare([lost], driver_version=VERSION)
        assert injector.edits([lost])
        assert injector.problems == {}


def test_a_name_that_cdi_does_not_allow(node: Host) -> None:
    old = make_mig("GPU-b/1/0", parent=B)
    injector = node.injector("cdi-cri")
    injector.prepare([A, old], driver_version=VERSION)
    assert "no name that CDI allows" in injector.problems[old.uuid]
    assert [device["name"] for device in node.own()["devices"]] == ["GPU-a"]


def test_an_index_that_has_moved_is_not_another_gpus(node: Host) -> None:
    injector = prepared(node, "cdi-cri", ids="index")
    moved = make_card("b", index=0)
    with pytest.raises(UnavailableError):
        injector.edits([moved])


def test_a_node_without_gpus_needs_no_specification(node: Host) -> None:
    node.injector("cdi-cri").prepare([], driver_version=VERSION)
    assert not node.cdi.exists()


def test_a_node_of_which_no_gpu_can_be_described(host: Host) -> None:
    host.add_driver()
    with pytest.raises(
        UnavailableError, match=r"no GPU that a CDI specification could describe: .*nvidia0.*; .*nvidia1"
    ):
        host.injector("cdi-cri").prepare([A, B], driver_version=VERSION)
    assert not host.cdi.exists()


def test_a_contested_device_is_described_by_us(node: Host) -> None:
    node.add_foreign("GPU-a", "GPU-b", "MIG-m")
    node.add_foreign("GPU-a", file="again.json")
    assert prepared(node, "cdi-cri").edits([A]).cdi_devices == ("fracgpu.io/gpu=GPU-a",)
