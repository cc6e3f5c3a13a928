"""The watch over the cards, on the playground's NVML, with a clock of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from fracgpu.names import GpuUuid
from fracgpu.quantities import Mib
from playground.node.nvml import (
    SimulatedGpu,
    SimulatedMig,
    SimulatedXid,
    install,
    restart_driver,
    unload_driver,
    write_state,
)
from plugin.gpus import watching
from plugin.gpus.discovery import Discovery
from plugin.gpus.nvml import Nvml
from plugin.gpus.vitals import Vitals, XidEvent
from plugin.gpus.watching import GpuWatch

A, B = GpuUuid("GPU-a"), GpuUuid("GPU-b")
L4 = SimulatedGpu(uuid="GPU-a", product="NVIDIA L4", memory_mib=23034)
MIG_1 = SimulatedMig("MIG-1", "1g.10gb", 9984, gpu_instance=7)
MIG_2 = SimulatedMig("MIG-2", "1g.10gb", 9984, gpu_instance=8)
H100 = SimulatedGpu(uuid="GPU-b", product="NVIDIA H100", memory_mib=81559, minor=1, mig=[MIG_1])
DEADLINE = 20.0
"""Seconds until a test of real threads gives up."""


@dataclass
class Told:
    """What the watch has told, in order."""

    now: float = 0.0
    problems: list[Mapping[GpuUuid, str]] = field(default_factory=list)
    xids: list[tuple[GpuUuid, int]] = field(default_factory=list)
    cards: list[Discovery] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_change(self, problems: Mapping[GpuUuid, str]) -> None:
        self.problems.append(problems)
        self.changed.set()

    def on_xid(self, gpu: GpuUuid, xid: int) -> None:
        self.xids.append((gpu, xid))

    @property
    def ill(self) -> set[str]:
        return set(self.problems[-1]) if self.problems else set()


def watch_of(nvml: Nvml, told: Told) -> GpuWatch:
    return GpuWatch(
        nvml,
        nvml.cards("mixed").cards,
        mig_strategy="mixed",
        ignored_xids=(13,),
        on_change=told.on_change,
        on_xid=told.on_xid,
        on_cards_changed=told.cards.append,
        clock=lambda: told.now,
    )


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "nvml.json"
    write_state(path, [L4, H100])
    install(path)
    return path


@pytest.fixture
def nvml(state: Path) -> Iterator[Nvml]:
    session = Nvml()
    session.open()
    yield session
    session.close()


@pytest.fixture
async def told() -> Told:
    return Told()


@pytest.fixture
def watch(nvml: Nvml, told: Told) -> GpuWatch:
    return watch_of(nvml, told)


async def later(watch: GpuWatch, told: Told, seconds: float = 5.0) -> None:
    told.now += seconds
    await watch.look()


async def test_a_lost_gpu_is_told_of_once_and_comes_back_in_a_new_session(
    watch: GpuWatch, told: Told, state: Path
) -> None:
    await watch.look()
    assert told.problems == []
    write_state(state, [replace(L4, lost=True), H100])
    await later(watch, told)
    await later(watch, told)
    assert [set(problems) for problems in told.problems] == [{A}]
    write_state(state, [L4, H100])
    for _ in range(20):
        await later(watch, told)
    assert [set(problems) for problems in told.problems][-1] == set()
    assert told.cards == []


async def test_a_driver_upgrade_makes_all_cards_ill_for_as_long_as_it_lasts(
    watch: GpuWatch, told: Told, state: Path
) -> None:
    unload_driver(state)
    await later(watch, told)
    await later(watch, told)
    assert told.ill == {"GPU-a", "MIG-1"}
    assert "no NVIDIA driver" in told.problems[-1][A]
    restart_driver(state)
    await later(watch, told)
    await later(watch, told)
    assert told.ill == set()
    await later(watch, told, 60)
    assert told.cards == []


async def test_xid_errors_are_told_of_and_judged(watch: GpuWatch, told: Told) -> None:
    watch.heard(XidEvent(A, 13))
    assert told.problems == []
    watch.heard(XidEvent(B, 61, gpu_instance=7))
    assert told.xids == [(A, 13), (B, 61)]
    assert told.ill == {"MIG-1"}
    await later(watch, told, 60)
    assert told.ill == set()


async def test_new_cards_are_told_of_once(watch: GpuWatch, told: Told, state: Path) -> None:
    await watch.look()
    write_state(state, [L4, replace(H100, mig=[MIG_2])])
    await later(watch, told, 30)
    await later(watch, told, 30)
    (found,) = told.cards
    assert [card.uuid for card in found.cards] == ["GPU-a", "MIG-2"]
    watch.follow(found.cards, mig_strategy="mixed", disabled=(), ignored_xids=())
    watch.heard(XidEvent(B, 61, gpu_instance=8))
    assert told.ill == {"MIG-2"}


async def test_an_instance_that_is_no_more_is_a_change_and_a_lost_gpu_is_not(
    watch: GpuWatch, told: Told, state: Path
) -> None:
    write_state(state, [L4, replace(H100, lost=True)])
    await later(watch, told, 30)
    await later(watch, told, 30)
    await later(watch, told, 30)
    assert told.cards == []
    write_state(state, [L4, replace(H100, mig=[])])
    for _ in range(60):
        await later(watch, told, 30)
    assert [[card.uuid for card in found.cards] for found in told.cards] == [["GPU-a"]]


async def test_without_a_driver_at_the_start_cards_are_found_when_there_is_one(state: Path, told: Told) -> None:
    unload_driver(state)
    nvml = Nvml()
    watch = GpuWatch(
        nvml,
        (),
        on_change=told.on_change,
        on_xid=told.on_xid,
        on_cards_changed=told.cards.append,
        clock=lambda: told.now,
    )
    await watch.look()
    assert told.cards == []
    restart_driver(state)
    await later(watch, told, 30)
    await later(watch, told)
    assert [card.uuid for card in told.cards[0].cards] == ["GPU-a", "GPU-b"]
    nvml.close()


class HangingNvml(Nvml):
    """Questions to one GPU hang until `go_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.hanging: GpuUuid | None = None
        self.go_on = threading.Event()
        self.asked = 0

    def vitals(self, gpu: GpuUuid) -> Vitals:
        if gpu == self.hanging:
            self.asked += 1
            self.go_on.wait(60)
        return super().vitals(gpu)


async def test_a_gpu_that_hangs_is_ill_alone_and_is_asked_once(
    state: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "ANSWER_SECONDS", 0.5)
    nvml = HangingNvml()
    nvml.open()
    watch = watch_of(nvml, told)
    nvml.hanging = A
    for _ in range(3):
        await later(watch, told)
    assert told.ill == {"GPU-a"}
    assert "has hung" in told.problems[-1][A]
    assert nvml.asked == 1
    nvml.hanging = None
    nvml.go_on.set()
    async with asyncio.timeout(DEADLINE):
        while told.ill:
            await later(watch, told)
    assert nvml.close()


async def test_the_running_watch_hears_of_errors_and_ends(watch: GpuWatch, told: Told, state: Path, nvml: Nvml) -> None:
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(DEADLINE):
        write_state(state, [replace(L4, xids=[SimulatedXid(1, 79)]), H100])
        await told.changed.wait()
    assert told.ill == {"GPU-a"}
    assert told.xids == [(A, 79)]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await asyncio.to_thread(nvml.close)


async def test_a_card_that_could_not_be_read_at_first_is_news_when_it_can_be(
    nvml: Nvml, told: Told, state: Path
) -> None:
    unread = replace(nvml.cards("mixed").cards[0], product="", memory=Mib(0), problem="NVML says it is lost")
    watch = GpuWatch(
        nvml,
        [unread, *nvml.cards("mixed").cards[1:]],
        mig_strategy="mixed",
        on_change=told.problems.append,
        on_xid=lambda *_: None,
        on_cards_changed=told.cards.append,
        clock=lambda: told.now,
    )
    for _ in range(8):
        await later(watch, told)
    (found,) = told.cards
    assert [card.problem for card in found.cards] == ["", ""]
