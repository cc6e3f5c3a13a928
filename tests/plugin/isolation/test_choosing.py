"""Which mechanism a node gets, and what it says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fracgpu.errors import UnavailableError
from fracgpu.sharing import IsolationChoice
from plugin.isolation.choosing import LADDER, NodeMeans, make_isolation
from plugin.isolation.driver_limit import DriverLimitNeeds
from plugin.isolation.mechanism import Isolation
from plugin.isolation.mps import MpsNeeds
from plugin.isolation.preload import PreloadTemplate
from tests.plugin.isolation.builders import RecordedModes, driver_needs, mig_card, mps_needs, share

LIBRARY = PreloadTemplate(Path("/opt/limits.so"), env=(), mounts=())
EVERYTHING = NodeMeans(driver_needs(), mps_needs(), LIBRARY)
OLD_DRIVER = replace(EVERYTHING, driver_limit=driver_needs(version="580.65.06"))
NO_MPS = replace(OLD_DRIVER, mps=mps_needs(root=None))
NOTHING = replace(NO_MPS, preload=None)


def made(wanted: IsolationChoice, means: NodeMeans) -> Isolation:
    return make_isolation(wanted, means=means, modes=RecordedModes(), on_change=lambda: None)


@pytest.mark.parametrize(
    ("means", "want_mechanism", "want_reasons"),
    [
        pytest.param(EVERYTHING, "driver-limit", [], id="everything"),
        pytest.param(OLD_DRIVER, "mps", ["not driver-limit: it needs the driver R615"], id="old driver"),
        pytest.param(NO_MPS, "preload", ["not driver-limit", "not mps: it needs a folder"], id="no folder for MPS"),
        pytest.param(NOTHING, "none", ["not driver-limit", "not mps", "not preload: it needs a library"], id="nothing"),
    ],
)
def test_auto_takes_the_strongest_and_says_why_nothing_stronger(
    means: NodeMeans, want_mechanism: str, want_reasons: list[str]
) -> None:
    status = made("auto", means).status
    assert status.mechanism == want_mechanism
    for reason in want_reasons:
        assert reason in status.message


@pytest.mark.parametrize("wanted", LADDER)
def test_what_is_set_is_taken_though_there_is_something_stronger(wanted: IsolationChoice) -> None:
    status = made(wanted, EVERYTHING).status
    assert status.mechanism == wanted
    assert "not driver-limit" not in status.message


def test_nothing_is_called_enforced_that_a_program_can_pass_by() -> None:
    enforced = {mechanism: made(mechanism, EVERYTHING).status.enforced for mechanism in LADDER}
    assert enforced == {"driver-limit": False, "mps": False, "preload": False, "none": False}


@pytest.mark.parametrize("wanted", ["driver-limit", "mps", "preload"])
async def test_what_is_set_and_missing_is_refused_to_containers(wanted: IsolationChoice) -> None:
    isolation = made(wanted, NOTHING)
    assert isolation.status.mechanism == wanted
    assert not isolation.status.enforced
    assert f"isolation is set to {wanted}, which this node does not have" in isolation.status.message
    with pytest.raises(UnavailableError, match="which this node does not have: it needs"):
        isolation.edits([share()], neighbours={})
    await isolation.run()  # nothing to keep up
    await isolation.end()


@pytest.mark.parametrize(
    ("needs", "want"),
    [
        pytest.param(driver_needs(version="615.0"), "", id="the first driver"),
        pytest.param(driver_needs(version="1000.1"), "", id="compared as numbers"),
        pytest.param(driver_needs(version="614.99.99"), "R615 or newer, and this is 614.99.99", id="older"),
        pytest.param(driver_needs(version=""), "this is unknown", id="unknown driver"),
        pytest.param(driver_needs(strategies=("envvar",)), "cdi-annotations or cdi-cri", id="no CDI"),
        pytest.param(driver_needs(strategies=("envvar", "cdi-annotations")), "", id="CDI among others"),
        pytest.param(driver_needs(cgroup_v2=False), "cgroup v2", id="cgroup v1"),
        pytest.param(driver_needs(cards=(mig_card(),)), "MIG", id="MIG"),
        pytest.param(driver_needs(hook=False), "apply-cuda-memory-limits: install", id="toolkit without the hook"),
    ],
)
def test_what_driver_limits_need(needs: DriverLimitNeeds, want: str) -> None:
    assert want in needs.obstacle
    assert bool(want) == bool(needs.obstacle)


@pytest.mark.parametrize(
    ("needs", "want"),
    [
        pytest.param(mps_needs(capability=(7, 0)), "", id="Volta"),
        pytest.param(mps_needs(capability=(10, 0)), "", id="compared as numbers"),
        pytest.param(mps_needs(capability=(6, 1)), "GPU-a has 6.1", id="Pascal"),
        pytest.param(mps_needs(capability=None), "GPU-a has unknown", id="unknown capability"),
        pytest.param(mps_needs(root=None), "mps_root", id="no folder"),
        pytest.param(mps_needs(root=Path("mps")), "absolute", id="relative folder"),
        pytest.param(mps_needs(root=Path("/" + "m" * 90)), "too long", id="no room for a socket's name"),
        pytest.param(mps_needs(control=None), "neither on this plugin's PATH", id="no program"),
        pytest.param(mps_needs(version="470.82.01"), "R495 or newer", id="driver without memory limits"),
        pytest.param(mps_needs(cards=(mig_card(),)), "MIG", id="MIG"),
    ],
)
def test_what_mps_needs(needs: MpsNeeds, want: str) -> None:
    assert want in needs.obstacle
    assert bool(want) == bool(needs.obstacle)
