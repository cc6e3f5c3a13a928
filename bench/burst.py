"""A burst of pods into a cluster with room for all and not much more: how many binds conflict, with and without holds.

Driven as kube-scheduler does: the next pod's filter and prioritize come before a pod's bind, and up to 16 pods are on
their way at once, between their prioritize and the end of their bind: what comes before a bind, as providing volumes,
takes some of them longer than others. Nodes whose sum is used up by what the scheduler has assumed are not asked about,
and a refused pod comes again after its backoff.
"""

import asyncio
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final

from bench.client import AnswerError, Lane, decode_answer, raise_if_error
from bench.cluster import SEED, UNITS, Fill, Shape
from bench.lab import Lab
from bench.latency import waiting_pods
from bench.objects import JsonObject, binding_args, extender_args

_IN_FLIGHT: Final = 16
_SIZES: Final = (4, 8, 16)  # units: in a cluster of pieces of 12 to 26 all of them find a place
_BACKOFF_SECONDS: Final = 1.0  # kube-scheduler's podInitialBackoffSeconds
_MAX_TRIES: Final = 20


@dataclass(slots=True)
class _Pod:
    manifest: JsonObject
    units: int
    tries: int = 0


async def measure_bursts(*, nodes: int, pods: int) -> dict[str, Any]:
    """Drive the burst with holds as by default, and without."""
    if "--hold-seconds" not in _extender_help():
        reason = "the extender has no --hold-seconds"
        return {"holds": {"skipped": reason}, "no_holds": await _measure(nodes=nodes, pods=pods, flags=())}
    return {
        "holds": await _measure(nodes=nodes, pods=pods, flags=()),
        "no_holds": await _measure(nodes=nodes, pods=pods, flags=("--hold-seconds", "0")),
    }


async def _measure(*, nodes: int, pods: int, flags: Sequence[str]) -> dict[str, Any]:
    rng = random.Random(f"{SEED} burst")  # noqa: S311 (not a secret)
    shapes = [Shape(units=rng.choice(_SIZES)) for _ in range(pods)]
    async with Lab.open(nodes=nodes, fill=Fill.TIGHT) as lab:
        extender = await lab.start_extender(*flags)
        waiting = waiting_pods(shapes, label="burst")
        await lab.create_pods(waiting)
        driver = _Driver({node.name: sum(node.free_units()) for node in lab.nodes})
        await driver.run([_Pod(pod, shape.units) for pod, shape in zip(waiting, shapes, strict=True)], extender.url)
    free, total = sum(driver.free.values()), UNITS * sum(len(node.gpus) for node in lab.nodes)
    return {**driver.counts, "full_afterwards": round(1 - free / total, 3)}


class _Driver:
    """kube-scheduler's loop for pods that all want GPU memory.

    Args:
        free: node -> units free by sum.

    Attributes:
        free: the same, less what was assumed since.
        counts: binds that succeeded; binds (`conflicts`) and filters (`waits`) that answered Error; filters that left
            no node (`unplaced`); pods that were given up.
    """

    def __init__(self, free: dict[str, int]) -> None:
        self.free = dict(free)
        self.counts = dict.fromkeys(("binds", "conflicts", "waits", "unplaced", "given_up"), 0)
        self._queue: asyncio.Queue[_Pod | None] = asyncio.Queue()  # None: all is done
        self._lanes: asyncio.Queue[Lane] = asyncio.Queue()  # for binds
        self._total = 0
        self._rng = random.Random(f"{SEED} driver")  # noqa: S311 (not a secret)

    async def run(self, pods: Sequence[_Pod], url: str) -> None:
        """Schedule all pods; returns when each is bound or given up."""
        self._total = len(pods)
        for pod in pods:
            self._queue.put_nowait(pod)
        lane = await Lane.open(url)
        lanes = [await Lane.open(url) for _ in range(_IN_FLIGHT)]
        for bind_lane in lanes:
            self._lanes.put_nowait(bind_lane)
        async with asyncio.TaskGroup() as binds:
            assumed: list[tuple[int, int, _Pod, str]] = []  # a heap: round in which it is bound, round, pod, node
            for turn in count():
                while assumed and (assumed[0][0] <= turn or self._queue.empty()):
                    _, _, pod, node = heappop(assumed)
                    binds.create_task(self._bind(pod, node, await self._lanes.get()))
                following = await self._queue.get()
                if following is None:
                    break
                if node := await self._choose(lane, following):
                    # Two rounds later is after the next pod was scored; seventeen would be one too many on the way.
                    heappush(assumed, (turn + self._rng.randint(2, _IN_FLIGHT), turn, following, node))
        for used in (lane, *lanes):
            used.close()

    async def _choose(self, lane: Lane, pod: _Pod) -> str:
        """Filter and prioritize; returns the chosen node, empty where there is none now."""
        candidates = [name for name, units in self.free.items() if units >= pod.units]
        try:
            filtered = await lane.post("/filter", extender_args(pod.manifest, candidates))
            fitting = decode_answer(filtered.body)["NodeNames"]
        except AnswerError:
            return self._refused(pod, "waits")
        if not fitting:
            return self._refused(pod, "unplaced")
        node = str(fitting[0])
        if len(fitting) > 1:  # kube-scheduler does not ask which is the best of one
            scored = await lane.post("/prioritize", extender_args(pod.manifest, fitting))
            node = str(max(decode_answer(scored.body), key=lambda entry: entry["Score"])["Host"])
        self.free[node] -= pod.units
        return node

    async def _bind(self, pod: _Pod, node: str, lane: Lane) -> None:
        answer = await lane.post("/bind", binding_args(pod.manifest, node))
        self._lanes.put_nowait(lane)
        try:
            raise_if_error(answer.body)
        except AnswerError:
            self.free[node] += pod.units
            self._refused(pod, "conflicts")
        else:
            self._count("binds")

    def _refused(self, pod: _Pod, kind: str) -> str:
        self._count(kind)
        pod.tries += 1
        if pod.tries == _MAX_TRIES:
            self._count("given_up")
        else:
            asyncio.get_running_loop().call_later(_BACKOFF_SECONDS, self._queue.put_nowait, pod)
        return ""

    def _count(self, kind: str) -> None:
        self.counts[kind] += 1
        if self.counts["binds"] + self.counts["given_up"] == self._total:
            self._queue.put_nowait(None)


def _extender_help() -> str:
    return subprocess.run(
        [sys.executable, "-m", "extender", "--help"], check=True, capture_output=True, text=True
    ).stdout
