"""What the extender counts, in Prometheus' form: one registry per process part, so that tests can have their own.

What it says of the cluster is not counted but looked at when it is asked for: see `exposition`.
"""

import time
from collections.abc import Callable
from typing import Final

from extender.reconciling import Drift
from fracgpu.process.metrics import ServiceMetrics

_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)
_STATES: Final = {"failed": "unreachable", "lost": "lost", "unsafe": "unsafe"}
"""Outcome of a call to the ledger -> what it says of it; any other says that it is valid."""
_OUTCOMES: Final = {
    "sync": ("ok", "failed", "epoch", "lost"),
    "snapshot": ("ok", "failed", "lost"),
    "hold": ("ok", "failed", "behind", "full", "differs"),
    "reserve": ("ok", "failed", "full", "differs"),
    "confirm": ("ok", "failed", "already", "differs"),
    "correct": ("ok", "failed", "already", "differs"),
    "release": ("ok", "failed", "already", "differs"),
    "begin": ("ok", "failed", "busy", "valid", "unsafe"),
    "fill": ("ok", "failed", "busy"),
    "commit": ("ok", "failed", "busy"),
}  # operation of the ledger -> what it answers in the ordinary course; a counter that is not there cannot be alerted on
_REBUILDING: Final = ("begin", "fill", "commit")  # operations that say nothing about whether the ledger is valid


class Metrics(ServiceMetrics):
    """The extender's metrics.

    Args:
        clock: seconds that only grow.

    Attributes:
        requests: seconds per verb, errors among them.
        refusals: answers with an error, by verb and reason code.
        filters: what filter has found, by outcome: fits, none.
        preemptions: what preempt has found, by outcome: victims, none.
        holds: holds asked of the ledger, by outcome: held, behind (chosen on an old picture, chosen anew), full,
            given_up (other replicas kept on writing).
        drift: changes of the ledger outside of a request, by kind.
        events: events on pods, by what became of them (see `fracgpu.kube.recording.Outcome`).
        claims: claims in the ledger as this replica knows it.
        overdrawn_gpus: GPUs of which more is taken than they have: they take nothing more.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("extender")
        self._clock = clock
        self._define_verbs()
        self._define_ledger()
        self._define_state()

    def _define_verbs(self) -> None:
        self.requests = self._histogram(
            "request_duration_seconds",
            "Time from reading a request of kube-scheduler to its answer.",
            "verb",
            buckets=_SECONDS,
        )
        self.refusals = self._counter(
            "refusals_total", "Answers to kube-scheduler that carry an error.", "verb", "reason"
        )
        self.filters = self._counter(
            "filters_total", "Pods that were filtered, by whether any of the nodes fits.", "outcome"
        )
        self.preemptions = self._counter(
            "preemptions_total",
            "Pods for which somebody was to be evicted, by whether that would have made room.",
            "outcome",
        )
        self.holds = self._counter("holds_total", "Holds asked of the ledger between prioritize and bind.", "outcome")
        for verb in ("filter", "prioritize", "preempt", "bind"):  # a counter that is not there cannot be alerted on
            self.requests.labels(verb)
            self.refusals.labels(verb, "Defect")
        for reason in ("Conflict", "NoRoom", "AlreadyClaimed", "Unavailable", "Kubernetes"):
            self.refusals.labels("bind", reason)
        for outcome in ("fits", "none"):
            self.filters.labels(outcome)
        for outcome in ("victims", "none"):
            self.preemptions.labels(outcome)
        for outcome in ("held", "behind", "full", "given_up"):
            self.holds.labels(outcome)

    def _define_ledger(self) -> None:
        self._calls = self._counter(
            "ledger_calls_total",
            "Calls to the ledger in Redis, by what it answered; failed is none, or an error of Redis.",
            "operation",
            "outcome",
        )
        for operation, outcomes in _OUTCOMES.items():
            for outcome in outcomes:
                self._calls.labels(operation, outcome)
        self._call_seconds = self._histogram(
            "ledger_call_duration_seconds",
            "Time that a call to the ledger in Redis takes, one that fails too.",
            "operation",
            buckets=_SECONDS,
        )
        self._state = self._gauge(
            "ledger_state",
            "1 for what the last call says of the ledger: valid, lost (it has to be rebuilt), unsafe (Redis may throw "
            "it away) or unreachable.",
            "state",
        )
        for state in ("valid", *_STATES.values()):
            self._state.labels(state)
        self._last_state = ""
        self._answered_at = self._clock()
        self._gauge(
            "ledger_age_seconds",
            "How old what this replica knows of the ledger is: seconds since it last caught up with it.",
        ).set_function(lambda: self._clock() - self._answered_at)

    def _define_state(self) -> None:
        self.drift = self._counter(
            "drift_total", "Changes of the ledger outside of a request, because it differed from the cluster.", "kind"
        )
        for kind in Drift:
            self.drift.labels(kind)
        self.events = self._counter(
            "events_total",
            "Events on pods: written, failed, dropped (too many waited), or repeated (counted along with another).",
            "outcome",
        )
        for outcome in ("written", "failed", "dropped", "repeated"):
            self.events.labels(outcome)
        self.claims = self._gauge("claims", "Claims in the ledger, holds among them.")
        self.overdrawn_gpus = self._gauge(
            "overdrawn_gpus", "GPUs of which more is taken than they have: they take nothing more."
        )

    def ledger_call(self, operation: str, *, outcome: str, seconds: float) -> None:
        """Note a call to the ledger; see `extender.ledger.ledger.CallObserver`."""
        self._calls.labels(operation, outcome).inc()
        self._call_seconds.labels(operation).observe(seconds)
        state = _STATES.get(outcome, "" if operation in _REBUILDING else "valid")
        if state == "valid":
            self._answered_at = self._clock()
        if state and state != self._last_state:
            if self._last_state:
                self._state.labels(self._last_state).set(0)
            self._state.labels(state).set(1)
            self._last_state = state
