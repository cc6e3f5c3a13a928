"""What kube-scheduler asks: bodies of filter and prioritize, each about another pod, in another order of nodes. Pure.

A pod is asked about once, so every body carries a fresh UID and name; the rest is prepared, so that a body is made by
joining bytes.
"""

import math
import random
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from bench.cluster import SEED, Shape, make_uid
from bench.objects import extender_args, waiting_pod
from fracgpu.names import PodUid

_ORDERS: Final = 8  # different lists of names that take turns
_WORKERS: Final = 16  # of kube-scheduler's parallelism
_UID: Final = PodUid("00000000-0000-0000-0000-000000000000")
_NAME: Final = "llm-99-6b7f9d8c54-q00000"


class Questions:
    """Bodies about pods that nobody created, for a cluster of `names`.

    Args:
        names: all nodes.
        sent: how many of them are sent.
        label: makes the UIDs differ from those of other questions.
    """

    def __init__(self, names: Sequence[str], *, sent: int, label: str) -> None:
        self._rng = random.Random(f"{SEED} {label}")  # noqa: S311 (not a secret)
        self._names = [msgspec.json.encode(listed) for listed in name_lists(names, sent=sent, rng=self._rng)]
        self._numbers = iter(range(100_000))

    def about(self, shapes: Sequence[Shape]) -> Iterator[bytes]:
        """Yield bodies for ever, about pods of these shapes in turn."""
        prepared = [extender_args(waiting_pod(_NAME, _UID, shape), ()) for shape in shapes]
        while True:
            for shape in prepared:
                number = next(self._numbers)
                body = shape.removesuffix(b"[]}") + self._names[number % len(self._names)] + b"}"
                fresh = body.replace(_NAME.encode(), f"{_NAME[:-5]}{number:05}".encode(), 1)
                yield fresh.replace(_UID.encode(), make_uid(self._rng).encode(), 1)


def name_lists(names: Sequence[str], *, sent: int, rng: random.Random) -> list[list[str]]:
    """Lists of candidates as kube-scheduler makes them: workers take chunks of nodes, and note those that fit.

    So chunks are interleaved, never twice alike. Where not all nodes are sent, it went on from where it had stopped.
    """
    lists = []
    for turn in range(_ORDERS):
        start = turn * sent % len(names)
        window = [names[(start + position) % len(names)] for position in range(sent)]
        size = max(1, min(math.isqrt(sent), sent // _WORKERS + 1))
        waiting = [window[at : at + size] for at in range(0, sent, size)][::-1]
        working: list[list[str]] = []
        listed: list[str] = []
        while waiting or working:
            while waiting and len(working) < _WORKERS:
                working.append(waiting.pop()[::-1])
            chunk = rng.choice(working)
            listed.append(chunk.pop())
            if not chunk:
                working.remove(chunk)
        lists.append(listed)
    return lists
