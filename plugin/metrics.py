"""What the device plugin counts, in Prometheus' form: all names, help texts and labels, and how values get there.

Series of pods that have ended vanish: what is said of containers is replaced as a whole at every measurement.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final

from fracgpu.gpunodes import GpuNodeSpec, IsolationStatus, SharingStatus
from fracgpu.names import GpuUuid, NodeName
from fracgpu.process.metrics import ServiceMetrics
from fracgpu.quantities import MIB_BYTES
from plugin.granting.corrections import Correction
from plugin.usage.measuring import Usage

_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # `refresh` may take 1 s
_PUBLISHING: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # two urgent writes are 0.2 s apart
_CONTAINER: Final = ("namespace", "pod", "container", "gpu")


class Metrics(ServiceMetrics):
    """The device plugin's metrics, in a registry of their own; for the event loop's thread only."""

    def __init__(self) -> None:
        super().__init__("plugin")
        self._define_gpus()
        self._define_usage()
        self._define_work()
        self._define_books()

    def _define_gpus(self) -> None:
        self._memory = self._gauge("gpu_memory_bytes", "Video memory of a GPU.", "gpu")
        self._healthy = self._gauge("gpu_healthy", "Whether a GPU is offered: 1 healthy, 0 not.", "gpu")
        self._xids = self._counter(
            "xid_errors_total", "Xid errors that a GPU reported, ignored ones too.", "gpu", "xid"
        )
        self._isolation = self._gauge(
            "isolation_info",
            "1 for the mechanism that keeps containers within their shares, and whether it really does.",
            "mechanism",
            "enforced",
        )
        self._problems = self._gauge(
            "sharing_problems", "What keeps this node from following a SharingPolicy in everything.", "reason"
        )
        self._grants = self._gauge("grants", "Pods that hold a share of a GPU, ended ones with processes too.")

    def _define_usage(self) -> None:
        self._granted = self._gauge(
            "granted_memory_bytes", "Memory of a GPU that a container was granted.", *_CONTAINER
        )
        self._used = self._gauge(
            "used_memory_bytes",
            "Memory of a GPU that a container uses, by NVML; container is empty where only the pod is known.",
            *_CONTAINER,
        )
        self._unattributed = self._gauge(
            "unattributed_memory_bytes", "Used memory of a GPU that belongs to no pod with a grant, by NVML.", "gpu"
        )
        self._hidden = self._gauge(
            "hidden_pods", "Pods with a grant whose processes this plugin cannot see, for want of hostPID."
        )
        self._measurements = self._counter("measurements_total", "Measurements of used memory.", "outcome")
        self._over = self._gauge("overusing_pods", "Pods that use more GPU memory than they were granted.")
        self._overuse = self._counter("overuse_total", "Times that a pod began to use more than it was granted.")
        self._evictions = self._counter("evictions_total", "Attempts to evict a pod for overuse.", "outcome")
        for outcome in ("ok", "failed"):  # a counter that is not there yet cannot be alerted on
            self._measurements.labels(outcome)
        for outcome in ("evicted", "blocked", "failed"):
            self._evictions.labels(outcome)

    def _define_work(self) -> None:
        self._calls = self._histogram(
            "call_duration_seconds",
            "Time from a call of the kubelet to its answer; the kubelet admits no other pod meanwhile.",
            "call",
            "resource",
            buckets=_SECONDS,
        )
        self._refusals = self._counter("refusals_total", "Calls of the kubelet that were refused.", "reason")
        self._registrations = self._counter("registrations_total", "Registrations with the kubelet.", "resource")

    def _define_books(self) -> None:
        self._node = self._gauge("node_info", "1 for the node that this plugin serves.", "node")
        self._ready = self._gauge("ready", "1 while pods can be given GPUs on this node.")
        self._corrections = self._counter(
            "identity_corrections_total",
            "Times that it was not plain who was being admitted, or with which devices: guessed (PodResources was "
            "silent), reread (the API server was asked again), unknown (left to Allocate), avoided (devices that a pod "
            "which has ended may still use), refused (by Allocate).",
            "kind",
        )
        self._listings = self._counter(
            "pod_resources_calls_total", "Questions to the kubelet's PodResources.", "outcome"
        )
        self._listed_at = self._gauge(
            "pod_resources_success_timestamp_seconds",
            "When PodResources last answered, in seconds since 1970; 0 before the first time.",
        )
        self._journal = self._counter(
            "journal_writes_total", "Times that the grants were written down on the node's disk.", "outcome"
        )
        self._publishing = self._histogram(
            "publish_delay_seconds",
            "Time from a change that somebody waits for to the GPUNode that says so.",
            buckets=_PUBLISHING,
        )
        self._published_at = self._gauge(
            "published_timestamp_seconds",
            "When the GPUNode was last known to be up to date, in seconds since 1970; 0 before the first time.",
        )
        for kind in Correction:
            self._corrections.labels(kind)
        for counter in (self._listings, self._journal):
            for outcome in ("ok", "failed"):
                counter.labels(outcome)

    def serves(self, node: NodeName) -> None:
        """Say which node this is."""
        self._node.clear()
        self._node.labels(node).set(1)

    def watch_ready(self, unready: Callable[[], str]) -> None:
        """Say from now on whether pods can be given GPUs; `unready` is asked why not, and empty where they can."""
        self._ready.set_function(lambda: float(not unready()))

    def corrected(self, correction: Correction) -> None:
        """Count that it was not plain who was being admitted."""
        self._corrections.labels(correction).inc()

    def listed(self, *, ok: bool) -> None:
        """Count a question to PodResources."""
        self._listings.labels(_outcome(ok=ok)).inc()
        if ok:
            self._listed_at.set(time.time())

    def journaled(self, *, ok: bool) -> None:
        """Count that grants were to be written down."""
        self._journal.labels(_outcome(ok=ok)).inc()

    def published(self, delay_seconds: float | None) -> None:
        """Note that the GPUNode is up to date; `delay_seconds` is how long somebody waited, None where nobody did."""
        self._published_at.set(time.time())
        if delay_seconds is not None:
            self._publishing.observe(delay_seconds)

    def gpus(self, spec: GpuNodeSpec) -> None:
        """Say which GPUs there are; those that are gone vanish."""
        self._memory.clear()
        self._healthy.clear()
        for gpu in spec.gpus:
            self._memory.labels(gpu.uuid).set(gpu.memory * MIB_BYTES)
            self._healthy.labels(gpu.uuid).set(gpu.healthy)

    def xid(self, gpu: GpuUuid, xid: int) -> None:
        """Count an Xid error."""
        self._xids.labels(gpu, xid).inc()

    def isolation(self, status: IsolationStatus | None) -> None:
        """Say how containers are kept within their shares."""
        self._isolation.clear()
        if status is not None:
            self._isolation.labels(status.mechanism, str(status.enforced).lower()).set(1)

    def sharing(self, status: SharingStatus | None) -> None:
        """Say what is wrong with the SharingPolicies of this node."""
        self._problems.clear()
        reasons = [problem.reason for problem in status.problems] if status is not None else []
        for reason in ("Conflict", "Invalid", "UnitMismatch"):
            self._problems.labels(reason).set(reasons.count(reason))

    def grants(self, pods: int) -> None:
        """Say how many pods hold something."""
        self._grants.set(pods)

    def measured(self, usage: Usage) -> None:
        """Take a measurement in place of the last one."""
        self._measurements.labels("ok").inc()
        self._forget_usage()
        for one in usage.containers:
            labels = (one.namespace, one.pod, one.container, one.gpu)
            # Two pods may have one name: the later of a StatefulSet, while the former's processes live on.
            self._granted.labels(*labels).inc(one.granted_bytes)
            if one.used_bytes is not None:
                self._used.labels(*labels).inc(one.used_bytes)
        for gpu, size in usage.unattributed.items():
            if size is not None:
                self._unattributed.labels(gpu).set(size)
        self._hidden.set(len(usage.hidden))

    def not_measured(self) -> None:
        """Note that a measurement failed: what was measured before is no longer said."""
        self._measurements.labels("failed").inc()
        self._forget_usage()

    def _forget_usage(self) -> None:
        for gauge in (self._granted, self._used, self._unattributed):
            gauge.clear()

    def overusing(self, pods: int, *, began: int) -> None:
        """Say how many pods are above their grants, and count those that have just come to be."""
        self._over.set(pods)
        self._overuse.inc(began)

    def eviction(self, outcome: str) -> None:
        """Count an attempt to evict: evicted, blocked (by a disruption budget) or failed."""
        self._evictions.labels(outcome).inc()

    @contextmanager
    def timing(self, call: str, resource: str) -> Iterator[None]:
        """Measure a call of the kubelet, `call` being allocate or prefer, also one that fails."""
        began = perf_counter()
        try:
            yield
        finally:
            self._calls.labels(call, resource).observe(perf_counter() - began)

    def refusal(self, reason: str) -> None:
        """Count a refusal, by the reason code of its error."""
        self._refusals.labels(reason).inc()

    def registration(self, resource: str) -> None:
        """Count a registration with the kubelet."""
        self._registrations.labels(resource).inc()


def _outcome(*, ok: bool) -> str:
    return "ok" if ok else "failed"
