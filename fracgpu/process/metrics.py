"""What the metrics of all services have in common: a registry of their own, and what each service tells of itself.

A service's own metrics are in its `metrics` module, all of them in one place. Left out: how they are served.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

_KUBE_SECONDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def service_registry(component: str) -> CollectorRegistry:
    """A registry with the process's own metrics, which have the names that all programs use, and its version.

    Args:
        component: extender, webhook or plugin. (A label `service` would clash with the one that Prometheus sets.)
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # when each counter began: a third of all lines, and of no use
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    info = Gauge(
        "fracgpu_build_info",
        "1 for the version of fracgpu that runs.",
        ("version", "component"),
        registry=registry,
    )
    info.labels(version("fracgpu"), component).set(1)
    return registry


class ServiceMetrics:
    """What the metrics of a service are made of: their names begin with ``fracgpu_`` and the service's name.

    Args:
        component: as for `service_registry`.

    Attributes:
        registry: what ``/metrics`` shows.
        kube: counts requests to the API server.
    """

    def __init__(self, component: str) -> None:
        self._prefix = f"fracgpu_{component}_"
        self.registry: Final = service_registry(component)
        self.kube: Final = KubeCalls(component, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(self._prefix + name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(self._prefix + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(self._prefix + name, text, labels, registry=self.registry, buckets=buckets)


class KubeCalls:
    """Counts and times a service's requests to the API server; see `fracgpu.kube.client.Observer`."""

    def __init__(self, component: str, *, registry: CollectorRegistry) -> None:
        prefix = f"fracgpu_{component}_kube"
        self._requests = Counter(
            f"{prefix}_requests_total",
            "Requests to the API server; code is ok, the HTTP status of a refusal, or none without an answer. "
            "A watch counts when it opens, and once more where it breaks.",
            ("verb", "resource", "code"),
            registry=registry,
        )
        self._seconds = Histogram(
            f"{prefix}_request_duration_seconds",
            "Time from a request to the API server to its answer, of a watch to its opening.",
            ("verb", "resource"),
            registry=registry,
            buckets=_KUBE_SECONDS,
        )

    def __call__(self, verb: str, resource: str, *, code: str, seconds: float | None) -> None:
        """Note one request."""
        self._requests.labels(verb, resource, code).inc()
        if seconds is not None:
            self._seconds.labels(verb, resource).observe(seconds)
