"""How long filter and prioritize take, beside the floor, and what they cost the extender's process.

Extender and floor are asked in turns, a few requests each, so that what disturbs the machine disturbs both.
"""

import gc
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from bench.client import Wire, decode_answer, raise_if_error
from bench.cluster import SEED, Shape, distinct_shapes, make_uid, usual_mix
from bench.lab import Extender, Lab
from bench.objects import JsonObject, binding_args, extender_args, waiting_pod
from bench.questions import Questions, name_lists
from fracgpu.names import PodUid

VERBS: Final = ("filter", "prioritize")
_BLOCK: Final = 10  # requests to one, then to the other
_SHAPES: Final = 32  # in the steady mix

Result = dict[str, float]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        requests: of each kind, at most.
        seconds: after which no more requests of a kind are begun.
        first_times: pods of shapes that were never asked for.
        binds: pods that are filtered, prioritized and bound one after the other.
    """

    requests: int = 1000
    seconds: float = 5.0
    first_times: int = 30
    binds: int = 60


class Latency:
    """Measures the two verbs at one extender.

    Args:
        lab: the cluster.
        extender: the extender.
        floor_url: the floor.
        effort: how much.
    """

    def __init__(self, lab: Lab, extender: Extender, *, floor_url: str, effort: Effort) -> None:
        self._lab = lab
        self._extender = extender
        self._effort = effort
        self._wire = Wire(extender.url)
        self._floor = Wire(floor_url)
        self._rng = random.Random(f"{SEED} latency")  # noqa: S311 (not a secret)
        self._shapes = iter(distinct_shapes(self._rng))
        self._mix = usual_mix(_SHAPES, rng=self._rng)

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()
        self._floor.close()

    def verb(self, verb: str, *, sent: int) -> Result:
        """Measure one verb in the steady state, and for pods of shapes that were never asked for.

        Raises:
            AnswerError: the extender, or the floor, answered an error.
        """
        questions = Questions(self._lab.names, sent=sent, label=f"{verb} {sent}")
        list(self._ask(self._wire, verb, questions, self._mix, count=len(self._mix)))
        list(self._ask(self._floor, verb, questions, self._mix, count=len(self._mix)))
        first_times = list(islice(self._shapes, self._effort.first_times))
        cold = [next(self._ask(self._wire, verb, questions, [shape], count=1)) for shape in first_times]
        ours: list[float] = []
        floor: list[float] = []
        until = time.monotonic() + self._effort.seconds
        while len(ours) < self._effort.requests and time.monotonic() < until:
            ours += self._ask(self._wire, verb, questions, self._mix, count=_BLOCK)
            floor += self._ask(self._floor, verb, questions, self._mix, count=_BLOCK)
        count = len(ours) // 2
        before = self._extender.process.cpu_seconds()
        list(self._ask(self._wire, verb, questions, self._mix, count=count))
        cpu = (self._extender.process.cpu_seconds() - before) / count
        return {
            "sent": sent,
            "p50_ms": _ms(statistics.median(ours)),
            "p99_ms": _ms(percentile(ours, 99)),
            "floor_p50_ms": _ms(statistics.median(floor)),
            "floor_p99_ms": _ms(percentile(floor, 99)),
            "ratio": round(statistics.median(ours) / statistics.median(floor), 2),
            "cpu_ms": _ms(cpu),
            "cold_ms": _ms(statistics.median(cold)),
            "requests": len(ours),
        }

    async def between_binds(self, *, sent: int) -> dict[str, float]:
        """Measure both verbs while the cluster changes: every pod is bound where prioritize says, then the next.

        Returns:
            Verb -> p50 in milliseconds.

        Raises:
            AnswerError: the extender answered an error.
        """
        pods = waiting_pods(usual_mix(self._effort.binds, rng=self._rng), label=f"busy {sent}")
        await self._lab.create_pods(pods)
        lists = name_lists(self._lab.names, sent=sent, rng=self._rng)
        seconds: dict[str, list[float]] = {verb: [] for verb in VERBS}
        for number, pod in enumerate(pods):
            filtered = self._wire.post("/filter", extender_args(pod, lists[number % len(lists)]))
            fitting = decode_answer(filtered.body)["NodeNames"]
            scored = self._wire.post("/prioritize", extender_args(pod, fitting))
            best = max(decode_answer(scored.body), key=lambda entry: entry["Score"])["Host"]
            decode_answer(self._wire.post("/bind", binding_args(pod, best)).body)
            seconds["filter"].append(filtered.seconds)
            seconds["prioritize"].append(scored.seconds)
        return {verb: _ms(statistics.median(found)) for verb, found in seconds.items()}

    def _ask(
        self, wire: Wire, verb: str, questions: Questions, shapes: Sequence[Shape], *, count: int
    ) -> Iterator[float]:
        """Ask `count` times and yield how many seconds each took."""
        gc.disable()  # ours, which would run in the middle of a request
        try:
            for body in islice(questions.about(shapes), count):
                timed = wire.post(f"/{verb}", body)
                raise_if_error(timed.body)
                yield timed.seconds
        finally:
            gc.enable()


def waiting_pods(shapes: Sequence[Shape], *, label: str) -> list[JsonObject]:
    """Pods that wait, to be created; the label makes their names and UIDs differ from those of others."""
    rng = random.Random(f"{SEED} {label}")  # noqa: S311 (not a secret)
    prefix = label.replace(" ", "-")
    return [
        waiting_pod(f"{prefix}-6b7f9d8c54-{number:05}", PodUid(make_uid(rng)), shape)
        for number, shape in enumerate(shapes)
    ]


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that this many percent do not exceed."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
