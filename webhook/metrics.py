"""What the webhook counts, in Prometheus' form: all names, help texts and labels, and how values get there."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from time import perf_counter
from typing import Final

from fracgpu.process.metrics import ServiceMetrics
from webhook.certificates.happenings import Happening
from webhook.dialects.translating import NVIDIA
from webhook.mutation import OWN_LANGUAGE, RefusalReason
from webhook.policy import DIALECTS
from webhook.reviews import Note, Outcome, ReviewError, Verdict

_SECONDS: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)
_BYTES: Final = (1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 3145728.0)
_INVALID: Final = "invalid"
_OUTCOMES: Final = {
    "mutate": (Outcome.MUTATED, Outcome.UNCHANGED, Outcome.UNCONCERNED, Outcome.REFUSED, _INVALID),
    "validate": (Outcome.WARNED, Outcome.SILENT, Outcome.UNCONCERNED, _INVALID),
}
_BODIES: Final = ("RequestEntityTooLarge", "ServiceUnavailable", "Timeout", "BadRequest")


class Metrics(ServiceMetrics):
    """The webhook's metrics, in a registry of their own; for the event loop's thread only."""

    def __init__(self) -> None:
        super().__init__("webhook")
        self._reviews = self._counter(
            "reviews_total",
            "AdmissionReviews that were answered, by what became of them; invalid is none that could be read.",
            "path",
            "outcome",
        )
        self._refusals = self._counter(
            "refusals_total",
            "Pods that were refused, and workloads whose pods would be, by the kind of mistake.",
            "path",
            "reason",
        )
        self._languages = self._counter(
            "gpu_pods_total", "Pods that ask for GPUs and were let in, by the language in which they ask.", "dialect"
        )
        self._seconds = self._histogram(
            "review_duration_seconds",
            "Time from the last byte of an AdmissionReview to its answer.",
            "path",
            buckets=_SECONDS,
        )
        self._sizes = self._histogram(
            "review_size_bytes",
            "Size of AdmissionReviews.",
            "path",
            buckets=_BYTES,
        )
        self._refused_bodies = self._counter(
            "refused_bodies_total",
            "Requests whose body was not read to its end: too large, too slow, too many at once, or given up.",
            "reason",
        )
        self._certificate = self._counter(
            "certificate_events_total",
            "What happened to the certificate: issued by this replica, served (another one is in use), trust_written "
            "(into caBundle), trouble.",
            "event",
        )
        self._prepare()

    def _prepare(self) -> None:
        """Have all that is countable be there from the beginning: a counter that is not there cannot be alerted on."""
        for path, outcomes in _OUTCOMES.items():
            self._seconds.labels(path)
            self._sizes.labels(path)
            for outcome in outcomes:
                self._reviews.labels(path, outcome)
            for reason in RefusalReason:
                self._refusals.labels(path, reason)
        for dialect in (OWN_LANGUAGE, NVIDIA, *DIALECTS):
            self._languages.labels(dialect)
        for status_reason in _BODIES:
            self._refused_bodies.labels(status_reason)
        for happening in Happening:
            self._certificate.labels(happening)

    def watch_certificate(
        self,
        *,
        expires: Callable[[], datetime | None],
        is_trusted: Callable[[], bool | None],
        missing: Callable[[], str],
    ) -> None:
        """Say from now on how the certificate is; asked whenever metrics are read.

        Args:
            expires: when the one in use ends; None while there is none.
            is_trusted: whether caBundle holds its CA; None where that is not ours to keep.
            missing: what keeps kube-apiserver from calling us; empty where nothing does.
        """

        def expiry() -> float:
            moment = expires()
            return math.nan if moment is None else moment.timestamp()

        def trusted() -> float:
            found = is_trusted()
            return math.nan if found is None else float(found)

        for name, text, value in (
            (
                "certificate_expiry_timestamp_seconds",
                "When the certificate in use ends, in seconds since 1970; NaN while there is none.",
                expiry,
            ),
            (
                "ca_bundle_trusted",
                "1 while caBundle holds the CA of the certificate in use; NaN where somebody else keeps caBundle.",
                trusted,
            ),
            (
                "ready",
                "1 while kube-apiserver can call this replica, as far as it knows itself.",
                lambda: float(not missing()),
            ),
        ):
            self._gauge(name, text).set_function(value)

    @contextmanager
    def review(self, path: str, *, size_bytes: int) -> Iterator[Note]:
        """Measure a review from its last byte to its answer; who answers notes what became of it."""
        began = perf_counter()
        self._sizes.labels(path).observe(size_bytes)

        def note(verdict: Verdict) -> None:
            self._reviews.labels(path, verdict.outcome).inc()
            if verdict.reason is not None:
                self._refusals.labels(path, verdict.reason).inc()
            if verdict.language and path == "mutate":
                self._languages.labels(verdict.language).inc()

        try:
            yield note
        except ReviewError:
            self._reviews.labels(path, _INVALID).inc()
            raise
        finally:
            self._seconds.labels(path).observe(perf_counter() - began)

    def refused_body(self, status_reason: str) -> None:
        """Count a body that was not read, by its metav1.StatusReason."""
        self._refused_bodies.labels(status_reason).inc()

    def happened(self, happening: Happening) -> None:
        """Count what happened to the certificate."""
        self._certificate.labels(happening).inc()
