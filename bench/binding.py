"""How many pods a second are bound, by one replica and by four on one Redis, with many binds in flight.

Nothing is asked before: every pod goes to a node with room, nodes in turn, so that what is measured is choosing the
GPU, the reservation in Redis, the Binding and its confirmation.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from typing import Any, Final

from bench.client import AnswerError, Lane, raise_if_error
from bench.cluster import SEED, usual_mix
from bench.lab import Lab
from bench.latency import waiting_pods
from bench.objects import JsonObject, binding_args

REPLICAS: Final = (1, 4)
_IN_FLIGHT: Final = 16
_ROOMY: Final = 80  # units free on some GPU: room for any pod of the mix, and for more than one


async def measure_bind(*, nodes: int, pods: int) -> dict[str, Any]:
    """Bind `pods` pods with each number of replicas; numbers of replicas -> results."""
    results = {}
    async with Lab.open(nodes=nodes) as lab:
        for replicas in REPLICAS:
            while len(lab.extenders) < replicas:
                await lab.start_extender()
            results[str(replicas)] = await _bind_all(lab, pods, label=f"bind {replicas}")
    return results


async def _bind_all(lab: Lab, count: int, *, label: str) -> dict[str, Any]:
    rng = random.Random(f"{SEED} {label}")  # noqa: S311 (not a secret)
    pods = waiting_pods(usual_mix(count, rng=rng), label=label)
    await lab.create_pods(pods)
    roomy = [node.name for node in lab.nodes if sorted(node.free_units())[-2] >= _ROOMY]
    rng.shuffle(roomy)
    work = iter([(pod, roomy[number % len(roomy)]) for number, pod in enumerate(pods)])
    seconds: list[float] = []
    errors: list[str] = []
    urls = [extender.url for extender in lab.extenders]
    lanes = [await Lane.open(urls[number % len(urls)]) for number in range(_IN_FLIGHT)]
    before = [extender.process.cpu_seconds() for extender in lab.extenders]
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for lane in lanes:
            tasks.create_task(_bind_in_turn(lane, work, seconds, errors))
    lasted = time.monotonic() - began
    used = [extender.process.cpu_seconds() - earlier for extender, earlier in zip(lab.extenders, before, strict=True)]
    for lane in lanes:
        lane.close()
    result: dict[str, Any] = {
        "pods_per_second": round(len(seconds) / lasted, 1),
        "p50_ms": round(statistics.median(seconds) * 1000, 2),
        "p99_ms": round(statistics.quantiles(seconds, n=100)[-1] * 1000, 2),
        "cpu_ms": round(sum(used) / count * 1000, 2),
        "in_flight": _IN_FLIGHT,
        "conflicts": len(errors),
    }
    return result | ({"first_error": errors[0]} if errors else {})


async def _bind_in_turn(
    lane: Lane, work: Iterator[tuple[JsonObject, str]], seconds: list[float], errors: list[str]
) -> None:
    for pod, node in work:
        timed = await lane.post("/bind", binding_args(pod, node))
        try:
            raise_if_error(timed.body)
        except AnswerError as exc:
            errors.append(str(exc))
        else:
            seconds.append(timed.seconds)
