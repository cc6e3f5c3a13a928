"""What the desk and the publisher have counted, as Prometheus reads it."""

import pytest

from fracgpu.errors import UnavailableError
from fracgpu.names import RESOURCE_MEMORY, NodeName
from fracgpu.plans import Share
from plugin.granting.admission import AdmissionError
from plugin.granting.desk import Desk
from plugin.metrics import Metrics
from tests.plugin.builders import A, B, listed, make_pod, units
from tests.plugin.test_desk import ALL, ONE, TWO, World


class Counted:
    """A desk in a world, and what is counted of it."""

    def __init__(self, world: World) -> None:
        self.metrics = Metrics()
        self.world = world
        world.desk = Desk(
            world.inventory,
            world.book,
            pods=world,
            devices=world,
            processes=world,
            journal=world,
            handout=world,
            on_change=world.note_change,
            observer=self.metrics,
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"fracgpu_plugin_{name}", labels)

    @property
    def corrections(self) -> dict[str, float]:
        """Kind -> how often, of those that happened."""
        kinds = ("guessed", "reread", "unknown", "avoided", "refused")
        found = {kind: self.value("identity_corrections_total", kind=kind) for kind in kinds}
        return {kind: count for kind, count in found.items() if count}


async def test_an_ordinary_admission_needs_no_correction() -> None:
    desk = Counted(World(pods=[ONE], listing=[listed("one", {"main": []})]))
    await desk.world.admit(RESOURCE_MEMORY, 8, ALL)
    assert desk.corrections == {}
    assert desk.value("pod_resources_calls_total", outcome="ok") == 2
    assert desk.value("journal_writes_total", outcome="ok") == 1
    assert (desk.value("pod_resources_success_timestamp_seconds") or 0) > 1e9


async def test_a_watch_that_is_behind_is_made_up_for_by_a_read() -> None:
    desk = Counted(World(unseen=[ONE], listing=[listed("one", {"main": []})]))
    await desk.world.admit(RESOURCE_MEMORY, 8, ALL)
    assert desk.corrections == {"reread": 1}


async def test_a_silent_kubelet_means_guessing() -> None:
    desk = Counted(World(pods=[TWO, ONE], listing=None))
    await desk.world.admit(RESOURCE_MEMORY, 8, ALL)
    assert desk.corrections == {"guessed": 1}
    assert desk.value("pod_resources_calls_total", outcome="failed") == 2
    assert desk.value("pod_resources_success_timestamp_seconds") == 0


async def test_nobody_known_is_being_admitted() -> None:
    desk = Counted(World(listing=[listed("one", {"main": []})]))
    ids = await desk.world.desk.prefer(RESOURCE_MEMORY, available=ALL, must_include=[], size=8)
    with pytest.raises(AdmissionError):
        await desk.world.desk.allocate(RESOURCE_MEMORY, ids)
    assert desk.corrections == {"reread": 1, "unknown": 1, "refused": 1}


async def test_devices_off_the_plan_are_refused() -> None:
    desk = Counted(World(pods=[ONE], listing=[listed("one", {"main": []})]))
    with pytest.raises(AdmissionError):
        await desk.world.desk.allocate(RESOURCE_MEMORY, units(A, 8))
    assert desk.corrections == {"refused": 1}


async def test_devices_that_an_ended_pod_may_still_use_are_avoided() -> None:
    small, next_one = make_pod("one", {"main": [Share(B, 2)]}), make_pod("next", {"main": [Share(B, 8)]})
    desk = Counted(World(pods=[small], listing=[listed("one", {"main": []})]))
    await desk.world.admit(RESOURCE_MEMORY, 2, ALL)
    desk.world.pods, desk.world.listing = [small, next_one], [listed("next", {"main": []})]
    desk.world.running = {small.uid}
    await desk.world.admit(RESOURCE_MEMORY, 8, ALL)
    assert desk.corrections == {"avoided": 1}


async def test_a_full_disk_is_counted_where_it_refuses_and_where_it_does_not() -> None:
    desk = Counted(World(pods=[ONE], listing=[listed("one", {"main": []})], is_disk_full=True))
    with pytest.raises(UnavailableError):
        await desk.world.admit(RESOURCE_MEMORY, 8, ALL)
    desk.world.desk.keep()
    assert desk.value("journal_writes_total", outcome="failed") == 2
    assert desk.corrections == {"refused": 1}


def test_the_node_readiness_and_publications() -> None:
    metrics = Metrics()
    value = metrics.registry.get_sample_value
    metrics.serves(NodeName("node-1"))
    metrics.serves(NodeName("node-2"))
    assert value("fracgpu_plugin_node_info", {"node": "node-2"}) == 1
    assert value("fracgpu_plugin_node_info", {"node": "node-1"}) is None

    reasons = ["no GPUs were found yet"]
    metrics.watch_ready(lambda: "; ".join(reasons))
    assert value("fracgpu_plugin_ready") == 0
    reasons.clear()
    assert value("fracgpu_plugin_ready") == 1

    metrics.published(0.3)
    metrics.published(None)  # nobody waited
    assert value("fracgpu_plugin_publish_delay_seconds_count") == 1
    assert value("fracgpu_plugin_publish_delay_seconds_sum") == pytest.approx(0.3)
    assert (value("fracgpu_plugin_published_timestamp_seconds") or 0) > 1e9
