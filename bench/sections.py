"""The sections of a run, by the names that --only takes, and how much of each is measured."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final

from bench.binding import measure_bind
from bench.burst import measure_bursts
from bench.kubescheduler import measure_scheduler
from bench.lab import Lab, Measured
from bench.latency import VERBS, Effort, Latency

Results = dict[str, Any]

ON_LABS: Final = (*VERBS, "memory", "start")
SECTIONS: Final = (*ON_LABS, "bind", "burst", "scheduler")


@dataclass(frozen=True, slots=True)
class Scale:
    """How large everything is.

    Attributes:
        sizes: nodes of the clusters on which verbs are measured; memory and start-up on the last of them.
        part: nodes that are sent where not all are.
        effort: requests per verb.
        bind: nodes, and pods to bind.
        burst: nodes, and pods of the burst.
        scheduler: nodes, and waiting pods.
    """

    sizes: tuple[int, ...] = (100, 500, 1000, 5000)
    part: int = 500
    effort: Effort = field(default_factory=Effort)
    bind: tuple[int, int] = (1000, 800)
    burst: tuple[int, int] = (50, 500)
    scheduler: tuple[int, int] = (500, 1000)


QUICK: Final = Scale(
    sizes=(40,),
    part=20,
    effort=Effort(requests=20, seconds=1, first_times=3, binds=4),
    bind=(20, 40),
    burst=(5, 50),
    scheduler=(20, 50),
)
"""Looks whether everything works; its numbers mean nothing."""


async def measure_labs(scale: Scale, wanted: AbstractSet[str]) -> Results:
    """Measure the verbs, memory and start-up, on clusters of growing size."""
    results: Results = {}
    is_asked = not wanted.isdisjoint(VERBS)
    for nodes in scale.sizes if is_asked else scale.sizes[-1:]:
        is_last = nodes == scale.sizes[-1]
        async with Lab.open(nodes=nodes) as lab:
            extender = await lab.start_extender()
            if is_last:
                rebuild_seconds, rebuild_memory = extender.start_seconds, extender.process.memory()
                await lab.stop_extenders()
                extender = await lab.start_extender()
                results["start"] = {
                    "restart_seconds": round(extender.start_seconds, 2),
                    "rebuild_seconds": round(rebuild_seconds, 2),
                }
            if is_asked:
                await _measure_verbs(lab, scale, results)
            if is_last:
                memory = extender.process.memory()
                results["memory"] = {
                    str(nodes): {
                        "rss_mb": memory.rss_mb,
                        "peak_mb": memory.peak_mb,
                        "rebuild_peak_mb": rebuild_memory.peak_mb,
                    }
                }
    return {name: found for name, found in results.items() if name.partition("_")[0] in wanted}


async def measure(section: str, scale: Scale) -> Results:
    """Measure one of the sections that have a cluster of their own."""
    if section == "bind":
        nodes, pods = scale.bind
        return await measure_bind(nodes=nodes, pods=pods)
    if section == "burst":
        nodes, pods = scale.burst
        return await measure_bursts(nodes=nodes, pods=pods)
    nodes, pods = scale.scheduler
    return await measure_scheduler(nodes=nodes, pods=pods)


async def _measure_verbs(lab: Lab, scale: Scale, results: Results) -> None:
    floor = Measured("floor", arguments=["-m", "bench.floor"], directory=lab.directory)
    await floor.start()
    try:
        latency = Latency(lab, lab.extenders[0], floor_url=await floor.ready(), effort=scale.effort)
        nodes = len(lab.nodes)
        for sent in (nodes, scale.part) if nodes > scale.part else (nodes,):
            suffix = "" if sent == nodes else f"_{sent}_sent"
            for verb in VERBS:
                results.setdefault(verb + suffix, {})[str(nodes)] = latency.verb(verb, sent=sent)
            for verb, busy in (await latency.between_binds(sent=sent)).items():
                results[verb + suffix][str(nodes)]["busy_p50_ms"] = busy
        latency.close()
    finally:
        await floor.stop()
