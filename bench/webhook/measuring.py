"""What is measured of the webhook on one core: its answers beside the floor's, large bodies, and its memory."""

import os
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from bench.cluster import SEED
from bench.latency import percentile
from bench.webhook.client import Connection, Sample, drive
from bench.webhook.reviews import Review, Template, largest, usual_mix, without_end
from bench.webhook.rig import Rig
from fracgpu.process.bodies import MAX_BODY_BYTES

Row = dict[str, Any]

_WARM_UP: Final = 200  # reviews, of either
_STREAM_CHUNK: Final = 64 * 2**10
_STREAM_LIMIT: Final = 64 * 2**20  # of a body that never ends: enough to see whether it is read on and on


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        rate: reviews per second that are sent, whether or not they are answered in time.
        turns: of the webhook and the floor each.
        turn_seconds: how long a turn is.
        large: bodies of the largest size, of each kind.
        memory: after how many reviews memory is read.
        pods: that are created at once through a real API server.
        in_flight: how many of them are asked for at a time; each of these numbers is measured.
    """

    rate: float = 200.0
    turns: int = 10
    turn_seconds: float = 2.0
    large: int = 30
    memory: tuple[int, ...] = (1000, 10_000, 50_000, 100_000)
    pods: int = 2000
    in_flight: tuple[int, ...] = (100, 2000)


QUICK: Final = Scale(turns=2, turn_seconds=0.3, large=3, memory=(50, 100, 150, 200), pods=40, in_flight=(20,))
"""Looks whether everything works; its numbers mean nothing."""


def measure_latency(rig: Rig, scale: Scale) -> Row:
    """Reviews of the usual mix at random moments, as many per second as `scale` says, and as fast as they go."""
    mix = usual_mix()
    ours: list[list[Sample]] = []  # one entry a turn
    floor: list[list[Sample]] = []
    rates: dict[str, list[float]] = {"webhook": [], "floor": []}
    busy = 0.0  # CPU seconds of the webhook in its turns
    with rig.connections() as to_webhook, rig.floor_connections() as to_floor:
        list(drive(to_webhook, _at_once(without_end(mix, label="warm-up"), _WARM_UP)))
        list(drive(to_floor, _at_once(_unjudged(mix, label="warm-up"), _WARM_UP)))
        load, began, others = os.getloadavg()[0], time.monotonic(), rig.cpu_seconds_of_others()
        for turn in range(scale.turns):
            before = rig.webhook.cpu_seconds()
            ours.append(list(drive(to_webhook, _at_random(without_end(mix, label=f"turn {turn}"), scale, turn))))
            busy += rig.webhook.cpu_seconds() - before
            floor.append(list(drive(to_floor, _at_random(_unjudged(mix, label=f"turn {turn}"), scale, turn))))
        others = (rig.cpu_seconds_of_others() - others) / (time.monotonic() - began)
        for turn in range(scale.turns):
            count = round(scale.rate * scale.turn_seconds)
            rates["webhook"].append(_rate(to_webhook, without_end(mix, label=f"fast {turn}"), count))
            rates["floor"].append(_rate(to_floor, _unjudged(mix, label=f"fast {turn}"), count))
    samples = [sample for turn in ours for sample in turn]
    kinds = {template.kind: [sample.seconds for sample in samples if sample.kind == template.kind] for template in mix}
    return {
        **_compared([sample.seconds for sample in samples], [sample.seconds for turn in floor for sample in turn]),
        "turn_p99_ms": _turn_p99(ours),
        "floor_turn_p99_ms": _turn_p99(floor),
        "cpu_ms": _ms(busy / len(samples)),
        "per_second": round(statistics.median(rates["webhook"])),
        "floor_per_second": round(statistics.median(rates["floor"])),
        "requests": len(samples),
        "load": round(load, 2),
        "cores_of_others": round(others, 2),
        "kinds": {template.kind: {"bytes": template.size, **_percentiles(kinds[template.kind])} for template in mix},
    }


def measure_large(rig: Rig, scale: Scale) -> Row:
    """The largest bodies that are accepted, one after the other, and what happens to larger ones."""
    rows: Row = {}
    with rig.connections(1) as (to_webhook,), rig.floor_connections(1) as (to_floor,):
        for template in largest(MAX_BODY_BYTES):
            ours, floor = [], []
            reviews = islice(without_end([template], label="large"), scale.large)
            for review in reviews:
                ours.append(to_webhook.ask(review))
                floor.append(to_floor.ask(_unjudged_review(review)))
            rows[template.kind] = {"bytes": template.size, **_compared(ours, floor)}
    return {"kinds": rows, "too_large": _too_large(rig, scale), "rss_mb": rig.webhook.memory().rss_mb}


def measure_memory(rig: Rig, scale: Scale) -> Row:
    """Resident memory after more and more reviews of the usual mix, no two alike, as fast as they go."""
    reviews = without_end(usual_mix(), label="memory")
    row: Row = {"started_mb": rig.webhook.memory().rss_mb}
    after: dict[str, float] = {}  # reviews -> MB
    done = 0
    began, before = time.monotonic(), rig.webhook.cpu_seconds()
    with rig.connections() as connections:
        for count in scale.memory:
            for _ in drive(connections, _at_once(reviews, count - done)):
                pass
            done = count
            after[str(count)] = rig.webhook.memory().rss_mb
    _, settled, *_, last = after.values()
    return row | {
        "rss_mb": after,
        "growth_mb": round(last - settled, 1),
        "peak_mb": rig.webhook.memory().peak_mb,
        "seconds": round(time.monotonic() - began, 1),
        "cpu_ms": _ms((rig.webhook.cpu_seconds() - before) / done),
    }


def _too_large(rig: Rig, scale: Scale) -> Row:
    """Bodies that never end, on a connection of their own each."""
    (review,) = islice(without_end(usual_mix()[:1], label="too large"), 1)
    seconds, sent, statuses = [], [], set()
    before = rig.webhook.cpu_seconds()
    for _ in range(scale.large):
        with rig.connections(1) as (connection,):
            connection.ask(review)  # takes what TLS has to say after its handshake
            began = time.perf_counter()
            status, read = connection.stream(b" " * _STREAM_CHUNK, at_most=_STREAM_LIMIT)
            seconds.append(time.perf_counter() - began)
            sent.append(read)
            statuses.add(status)
    cpu = (rig.webhook.cpu_seconds() - before) / scale.large
    return {
        "statuses": sorted(statuses),
        **_percentiles(seconds),
        "cpu_ms": _ms(cpu),
        "sent_mib": round(statistics.median(sent) / 2**20, 1),
        "most_sent_mib": round(max(sent) / 2**20, 1),
    }


def _at_once(reviews: Iterator[Review], count: int) -> Iterator[tuple[float, Review]]:
    """So many reviews, all of them due."""
    now = time.perf_counter()
    return ((now, review) for review in islice(reviews, count))


def _at_random(reviews: Iterator[Review], scale: Scale, turn: int) -> Iterator[tuple[float, Review]]:
    """Reviews for one turn, with times between them as when many people act on their own; the same for every server."""
    rng = random.Random(f"{SEED} moments {turn}")  # noqa: S311 (not a secret)
    due = time.perf_counter()
    end = due + scale.turn_seconds
    while (due := due + rng.expovariate(scale.rate)) < end:
        yield due, next(reviews)


def _rate(connections: list[Connection], reviews: Iterator[Review], count: int) -> float:
    """Answers per second when every connection sends its next review as soon as it has an answer."""
    prepared = list(islice(reviews, count))
    began = time.perf_counter()
    for _ in drive(connections, _at_once(iter(prepared), count)):
        pass
    return count / (time.perf_counter() - began)


def _unjudged(templates: list[Template], *, label: str) -> Iterator[Review]:
    """The same reviews for the floor, of which any answer will do."""
    return map(_unjudged_review, without_end(templates, label=label))


def _unjudged_review(review: Review) -> Review:
    return Review(review.kind, review.body, b"")


def _compared(ours: list[float], floor: list[float]) -> Row:
    result = {**_percentiles(ours), **{f"floor_{name}": value for name, value in _percentiles(floor).items()}}
    for name in ("p50", "p99"):
        result[f"{name}_ratio"] = round(result[f"{name}_ms"] / result[f"floor_{name}_ms"], 2)
    return result


def _percentiles(seconds: list[float]) -> dict[str, float]:
    return {
        "p50_ms": _ms(statistics.median(seconds)),
        "p99_ms": _ms(percentile(seconds, 99)),
        "max_ms": _ms(max(seconds)),
    }


def _turn_p99(turns: list[list[Sample]]) -> float:
    """The median of the turns' p99: of a turn that nobody else disturbed."""
    return _ms(statistics.median(percentile([sample.seconds for sample in turn], 99) for turn in turns))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
