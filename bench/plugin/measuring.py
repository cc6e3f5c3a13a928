"""What is measured of the device plugin on one node: its start, its answers, its writes and its memory."""

import asyncio
import statistics
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bench.plugin.kubelet import Timed
from bench.plugin.nodes import Machine, PlannedPod, pods_for
from bench.plugin.rig import Rig
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid

Row = dict[str, Any]

_AHEAD: Final = 10  # pods that are bound and wait for the kubelet, so that the plugin's watch knows who comes next
_CHURN_SECONDS: Final = 5.0  # between two changes of pods' status in the idle minute


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        starts: of the plugin.
        lives: pods that live one after the other.
        pods: pods that are admitted one after the other without a pause.
        alive: how many of those run at once.
        idle_seconds: how long nothing starts or ends.
    """

    starts: int = 5
    lives: int = 15
    pods: int = 300
    alive: int = 100
    idle_seconds: float = 60.0


QUICK: Final = Scale(starts=1, lives=2, pods=20, alive=8, idle_seconds=1.0)
"""Looks whether everything works; its numbers mean nothing."""


async def measure_node(machine: Machine, scale: Scale) -> Row:
    """Measure everything on one node."""
    async with Rig.open(machine) as rig:
        row: Row = {"gpus": machine.gpus, "memory_mib": machine.memory, "units": machine.gpus * machine.units}
        starts = [await rig.start_plugin() for _ in range(scale.starts)]
        row["advertised_seconds"], row["ready_seconds"] = (
            round(statistics.median(times), 3) for times in zip(*starts, strict=True)
        )
        sizes = rig.kubelet.books.message_bytes
        row["memory_list_bytes"], row["replica_list_bytes"] = sizes[RESOURCE_MEMORY], sizes[RESOURCE_REPLICA]
        row["started_rss_mb"] = _memory(rig)["rss_mb"]
        pods = pods_for([GpuUuid(gpu.uuid) for gpu in machine.simulated()])
        row["writes_per_life"] = await _lives(rig, pods, count=scale.lives)
        running = await _burst(rig, pods, scale=scale, row=row)
        row |= _memory(rig)
        row["writes_per_idle_minute"] = await _idle(rig, running, seconds=scale.idle_seconds)
        return row


async def _lives(rig: Rig, pods: Iterator[PlannedPod], *, count: int) -> float:
    """Writes per pod that comes, runs and goes, with pauses in which everything is published."""
    before = await rig.settled()
    for _ in range(count):
        pod = next(pods)
        await rig.create(pod)
        await rig.settled()
        await rig.kubelet.admit(pod.name, pod.units)
        await rig.report_running(pod)
        await rig.settled()
        await rig.delete(pod)
        await rig.settled()
    return round((await rig.settled() - before) / count, 2)


async def _burst(rig: Rig, pods: Iterator[PlannedPod], *, scale: Scale, row: Row) -> list[PlannedPod]:
    """Admit pods without a pause, of which the oldest end; returns those that run."""
    assert rig.plugin is not None  # noqa: S101 (started before)
    before, cpu = await rig.settled(), rig.plugin.cpu_seconds()
    waiting: deque[PlannedPod] = deque()
    running: deque[PlannedPod] = deque()
    times: list[Timed] = []
    while len(times) < scale.pods:
        while len(waiting) < min(_AHEAD, scale.pods - len(times)):
            waiting.append(next(pods))
            await rig.create(waiting[-1])
        pod = waiting.popleft()
        times.append(await rig.kubelet.admit(pod.name, pod.units))
        await rig.report_running(pod)
        running.append(pod)
        if len(running) > scale.alive:
            await rig.delete(running.popleft())
    row["writes_per_pod_in_burst"] = round((await rig.settled() - before) / scale.pods, 2)
    row["cpu_ms_per_pod"] = round((rig.plugin.cpu_seconds() - cpu) / scale.pods * 1000, 2)
    row["prefer_request_bytes"] = round(statistics.median(timed.prefer_bytes for timed in times))
    row["prefer"] = _latency([timed.prefer for timed in times], [timed.prefer_floor for timed in times])
    row["allocate"] = _latency([timed.allocate for timed in times], [timed.allocate_floor for timed in times])
    listed = statistics.median(timed.listed_floor - timed.allocate_floor for timed in times)
    row["pod_resources_ms"] = round(listed * 1000, 2)
    row["pod_resources_share"] = round(listed * 1000 / row["allocate"]["p50_ms"], 2)
    return list(running)


async def _idle(rig: Rig, running: list[PlannedPod], *, seconds: float) -> float:
    """Writes per minute while pods only change their status, one now and then."""
    before = await rig.settled()
    loop = asyncio.get_running_loop()
    end, number = loop.time() + seconds, 0
    while (left := end - loop.time()) > 0:
        await rig.report_running(running[number % len(running)])
        number += 1
        await asyncio.sleep(min(_CHURN_SECONDS, left))
    return round((await rig.writes() - before) * 60 / seconds, 2)


def _latency(seconds: list[float], floor: list[float]) -> Row:
    p50, floor_p50 = statistics.median(seconds) * 1000, statistics.median(floor) * 1000
    p99 = statistics.quantiles(seconds, n=100, method="inclusive")[98] * 1000
    return {
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
        "floor_p50_ms": round(floor_p50, 2),
        "ratio": round(p50 / floor_p50, 1),
    }


def _memory(rig: Rig) -> Row:
    assert rig.plugin is not None  # noqa: S101 (started before)
    memory = rig.plugin.memory()
    return {"rss_mb": memory.rss_mb, "peak_mb": memory.peak_mb}
