"""`make bench-webhook` from end to end, so small that it takes seconds; and what its figures are read with."""

import json
import math
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from bench.webhook.histogram import Histogram, read_histogram, read_total
from bench.webhook.reviews import UNIT_MIB, annotated_pod, largest, usual_mix, without_end
from fracgpu.process.bodies import MAX_BODY_BYTES
from fracgpu.quantities import Mib
from tests.realcluster import missing_binaries
from webhook.cards import Cluster
from webhook.policy import Policy
from webhook.reviews import answer_pod

PAGE = """\
# TYPE asked_seconds histogram
asked_seconds_bucket{name="a",operation="CREATE",le="0.005"} 10
asked_seconds_bucket{name="a",operation="CREATE",le="0.025"} 30
asked_seconds_bucket{name="a",operation="CREATE",le="+Inf"} 40
asked_seconds_sum{name="a",operation="CREATE"} 1.5
asked_seconds_count{name="a",operation="CREATE"} 40
asked_seconds_bucket{name="a",operation="UPDATE",le="+Inf"} 7
asked_seconds_sum{name="a",operation="UPDATE"} 7
failed_total{error_type="calling",name="a, \\"b\\""} 2
failed_total{error_type="calling",name="c"} 3
failed_total{error_type="other",name="c"} 8
failed_total_more 100
"""


def test_a_quick_run_prints_tables_and_writes_every_number(tmp_path: Path) -> None:
    output = tmp_path / "bench-webhook.json"
    run = subprocess.run(
        [sys.executable, "-m", "bench.webhook", "--quick", "--output", str(output)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(output.read_text())
    assert results.keys() == {"machine", "latency", "memory", "large", "burst"}
    assert all(results["latency"][name] > 0 for name in ("p50_ms", "p99_ms", "floor_p50_ms", "p50_ratio", "per_second"))
    assert len(results["latency"]["kinds"]) == len(usual_mix())
    assert results["memory"]["rss_mb"]["200"] > 10
    assert results["large"]["too_large"]["statuses"] == [413]
    assert "p99 at 200 reviews/s" in run.stdout
    if reason := missing_binaries("etcd", "kube-apiserver"):
        assert results["burst"] == {"skipped": reason}
    else:
        burst = results["burst"]["20"]
        assert (burst["created"], burst["with_limits"], burst["admissions"]) == (40, 40, 40)
        assert (burst["timeouts"], burst["failed_calls"]) == (0, 0)


def test_every_review_is_new_and_answered_as_it_says() -> None:
    templates = [*usual_mix(), *largest(MAX_BODY_BYTES)]
    reviews = list(islice(without_end(templates, label="test"), 2 * len(templates)))

    assert len({review.body for review in reviews}) == len(reviews)
    for review in reviews:
        assert review.proof in answer_pod(review.body, policy=Policy(unit=Mib(UNIT_MIB)), cluster=Cluster())


def test_the_largest_reviews_are_as_large_as_can_be() -> None:
    reviews = islice(without_end(largest(MAX_BODY_BYTES), label="test"), 2)

    assert [len(review.body) for review in reviews] == [MAX_BODY_BYTES] * 2


def test_the_pod_to_create_has_no_limits_yet() -> None:
    assert "limits" not in annotated_pod("infer-1")["spec"]["containers"][0]["resources"]


def test_a_histogram_is_read_for_its_labels_only() -> None:
    found = read_histogram(PAGE, "asked_seconds", labels={"operation": "CREATE"})

    assert found == Histogram(((0.005, 10), (0.025, 30), (math.inf, 40)), 1.5)
    assert (found.count, found.mean) == (40, 0.0375)


@pytest.mark.parametrize(("part", "want"), [(0.25, 0.005), (0.5, 0.015), (0.75, 0.025), (0.99, 0.025)])
def test_quantiles_are_guessed_within_a_bucket(part: float, want: float) -> None:
    found = read_histogram(PAGE, "asked_seconds", labels={"operation": "CREATE"})

    assert found.quantile(part) == pytest.approx(want)


def test_what_was_counted_before_is_left_out() -> None:
    earlier = Histogram(((0.005, 4), (0.025, 4), (math.inf, 4)), 0.5)

    later = read_histogram(PAGE, "asked_seconds", labels={"operation": "CREATE"}).since(earlier)

    assert later == Histogram(((0.005, 6), (0.025, 26), (math.inf, 36)), 1.0)


def test_counters_are_summed_over_their_series() -> None:
    assert read_total(PAGE, "failed_total", labels={"error_type": "calling"}) == 5
    assert read_total(PAGE, "absent_total", labels={}) == 0
