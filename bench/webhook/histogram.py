"""Reads histograms and counters of a metrics page in Prometheus' text format. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

_SAMPLE: Final = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Histogram:
    """What a histogram has counted.

    Attributes:
        buckets: upper bound, and how many were not above it; ascending, the last is infinite.
        total: of all that was observed.
    """

    buckets: tuple[tuple[float, int], ...]
    total: float

    @property
    def count(self) -> int:
        """How many were observed."""
        return self.buckets[-1][1] if self.buckets else 0

    @property
    def mean(self) -> float:
        """Their mean; 0 where there are none."""
        return self.total / self.count if self.count else 0.0

    def since(self, earlier: "Histogram") -> "Histogram":
        """What was observed after an earlier reading."""
        before = dict(earlier.buckets)
        later = tuple((bound, count - before.get(bound, 0)) for bound, count in self.buckets)
        return Histogram(later, self.total - earlier.total)

    def quantile(self, part: float) -> float:
        """The value that this part does not exceed, as Prometheus guesses it: evenly spread within its bucket."""
        wanted, lower, below = part * self.count, 0.0, 0
        for bound, count in self.buckets:
            if count >= wanted and count > below:
                return lower if bound == float("inf") else lower + (bound - lower) * (wanted - below) / (count - below)
            lower, below = bound, count
        return lower


def read_histogram(page: str, name: str, *, labels: Mapping[str, str]) -> Histogram:
    """The histogram `name`, summed over all series with these labels."""
    buckets: dict[float, int] = {}
    for found, value in _series(page, f"{name}_bucket", labels):
        bound = float(found["le"])
        buckets[bound] = buckets.get(bound, 0) + int(value)
    total = sum(value for _, value in _series(page, f"{name}_sum", labels))
    return Histogram(tuple(sorted(buckets.items())), total)


def read_total(page: str, name: str, *, labels: Mapping[str, str]) -> int:
    """The counter `name`, summed over all series with these labels."""
    return int(sum(value for _, value in _series(page, name, labels)))


def _series(page: str, name: str, labels: Mapping[str, str]) -> Iterator[tuple[dict[str, str], float]]:
    for line in page.splitlines():
        if not line.startswith(name):
            continue
        found = _SAMPLE.fullmatch(line)
        if found is not None and found["name"] == name:
            its = dict(_LABEL.findall(found["labels"] or ""))
            if labels.items() <= its.items():
                yield its, float(found["value"])
