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


async def measure_labs(scale: Scale, wanted: AbstractSet[str], results: Results) -> None:
    """Measure the verbs, memory and start-up, on clusters of growing size, and add to `results` what is wanted."""
    # Memory is that of a process which has answered requests of all kinds.
    measured = set(VERBS) if "memory" in wanted else wanted & set(VERBS)
    for nodes in scale.sizes if wanted & set(VERBS) else scale.sizes[-1:]:
        is_last = nodes == scale.sizes[-1]
        async with Lab.open(nodes=nodes) as lab:
            extender = await lab.start_extender()
            if is_last:
                rebuilt_memory = extender.process.memory()
                start = {"rebuild_seconds": round(extender.start_seconds, 2)}
                await lab.stop_extenders()
                extender = await lab.start_extender()
                if "start" in wanted:
                    results["start"] = {"restart_seconds": round(extender.start_seconds, 2), **start}
            for section, row in (await _measure_verbs(lab, scale, measured) if measured else {}).items():
                if section.partition("_")[0] in wanted:
                    results.setdefault(section, {})[str(nodes)] = row
            if is_last and "memory" in wanted:
                memory = extender.process.memory()
                row = {"rss_mb": memory.rss_mb, "peak_mb": memory.peak_mb, "rebuild_peak_mb": rebuilt_memory.peak_mb}
                results["memory"] = {str(nodes): row}


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


async def _measure_verbs(lab: Lab, scale: Scale, verbs: AbstractSet[str]) -> Results:
    """Measure verbs on a cluster; section -> row."""
    results: Results = {}
    floor = Measured("floor", arguments=["-m", "bench.floor"], directory=lab.directory)
    await floor.start()
    try:
        latency = Latency(lab, lab.extenders[0], floor_url=await floor.ready(), effort=scale.effort)
        nodes = len(lab.nodes)
        for sent in (nodes, scale.part) if nodes > scale.part else (nodes,):
            suffix = "" if sent == nodes else f"_{sent}_sent"
            rows = {verb: latency.verb(verb, sent=sent) for verb in VERBS if verb in verbs}
            busy = await latency.between_binds(sent=sent)
            results |= {verb + suffix: {**row, "busy_p50_ms": busy[verb]} for verb, row in rows.items()}
        latency.close()
    finally:
        await floor.stop()
    return results
