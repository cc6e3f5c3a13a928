"""What the extender counts, in Prometheus' form: one registry per process part, so that tests can have their own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from extender.reconciling import Drift

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)


class Metrics:
    """The extender's metrics.

    Attributes:
        registry: what `/metrics` shows.
        requests: seconds per verb, errors among them.
        refusals: answers with an error, by verb and reason code.
        holds: holds asked of the ledger, by outcome: held, behind (chosen on an old picture, chosen anew), full,
            given_up (other replicas kept on writing).
        drift: changes of the ledger outside of a request, by kind.
        claims: claims in the ledger as this replica knows it.
        overdrawn_gpus: GPUs of which more is taken than they have: they take nothing more.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "fracgpu_extender_request_duration_seconds",
            "Time from reading a request of kube-scheduler to its answer.",
            ["verb"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.refusals = Counter(
            "fracgpu_extender_refusals_total",
            "Answers to kube-scheduler that carry an error.",
            ["verb", "reason"],
            registry=self.registry,
        )
        self.holds = Counter(
            "fracgpu_extender_holds_total",
            "Holds asked of the ledger between prioritize and bind.",
            ["outcome"],
            registry=self.registry,
        )
        self.drift = Counter(
            "fracgpu_extender_drift_total",
            "Changes of the ledger outside of a request, because it differed from the cluster.",
            ["kind"],
            registry=self.registry,
        )
        for kind in Drift:  # a counter that is not there yet cannot be alerted on
            self.drift.labels(kind)
        self.claims = Gauge(
            "fracgpu_extender_claims", "Claims in the ledger, holds among them.", registry=self.registry
        )
        self.overdrawn_gpus = Gauge(
            "fracgpu_extender_overdrawn_gpus",
            "GPUs of which more is taken than they have: they take nothing more.",
            registry=self.registry,
        )
