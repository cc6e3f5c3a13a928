"""Sends spans by OpenTelemetry's SDK, as OTLP over HTTP. Imported only where traces are wanted; see `tracing`.

The SDK's own words (a receiver that does not answer, a full queue) go through a log of trouble, which speaks when it
begins, at most once a minute, and when it is over.
"""

import logging
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from types import TracebackType
from typing import Final
from uuid import UUID

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, get_current_span, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from fracgpu.errors import UnavailableError
from fracgpu.trouble import TroubleLog

MAX_WAITING: Final = 2048
"""Spans that wait to be sent; a bind makes three."""

MAX_SENT: Final = 512
"""Spans in one request."""

_DELAY_MS: Final = 2000.0
_EXPORT_SECONDS: Final = 5.0  # with all that is tried again
_ENDING_SECONDS: Final = 3.0  # for what is left when the process ends
_NS: Final = 1_000_000_000
_logger = logging.getLogger(__name__)


class Sender:
    """Makes spans, and sends them.

    Args:
        target: the URL to post to.
        service: who speaks.
    """

    def __init__(self, target: str, *, service: str) -> None:
        self._ids = _PodIds()
        self._words = _Words(TroubleLog(_logger, subject="sending traces", clock=time.monotonic))
        resource = Resource.create(
            {
                "service.name": f"fracgpu-{service}",
                "service.namespace": "fracgpu",
                "service.version": version("fracgpu"),
                "service.instance.id": socket.gethostname(),
            }
        )
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        exporter = _Exporter(OTLPSpanExporter(endpoint=target, timeout=_EXPORT_SECONDS), self._words)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter, max_queue_size=MAX_WAITING, max_export_batch_size=MAX_SENT, schedule_delay_millis=_DELAY_MS
            )
        )
        self._tracer = self._provider.get_tracer("fracgpu", version("fracgpu"))

    def end(self) -> None:
        """Send what is left, but do not wait for it for ever."""
        ending = threading.Thread(target=self._provider.shutdown, name="ending traces", daemon=True)
        ending.start()
        ending.join(_ENDING_SECONDS)
        self._words.close()

    def span(self, name: str, *, about: Mapping[str, str], uid: str) -> "_Traced":
        """A span that begins when it is entered; see `tracing.span`."""
        return _Traced(self, name, about, uid)

    def record(
        self,
        name: str,
        *,
        about: Mapping[str, str],
        uid: str,
        facts: Mapping[str, object],
        seconds: float,
        error: Exception | None,
        traceparent: str,
    ) -> None:
        """Send a span that ends now; see `tracing.record`."""
        now = time.time_ns()
        context = _propagator.extract({"traceparent": traceparent}) if traceparent else None
        found = self.begin(name, about=about, uid=uid, context=context, start_ns=now - int(seconds * _NS))
        found.set_attributes(_attributes(facts))
        if error is not None:
            _set_error(found, error)
        found.end(now)

    def begin(
        self,
        name: str,
        *,
        about: Mapping[str, str],
        uid: str,
        context: Context | None = None,
        start_ns: int | None = None,
    ) -> Span:
        """A span that has begun, within the context's or the present one."""
        if uid and not get_current_span(context).get_span_context().is_valid:
            self._ids.next_trace = _trace_id(uid)
        try:
            return self._tracer.start_span(
                name, context=context, kind=SpanKind.INTERNAL, attributes=dict(about), start_time=start_ns
            )
        finally:
            self._ids.next_trace = 0


class _Traced:
    """See `tracing.Span`."""

    def __init__(self, sender: Sender, name: str, about: Mapping[str, str], uid: str) -> None:
        self._sender = sender
        self._name = name
        self._about = about
        self._uid = uid
        self._span: Span | None = None
        self._using: AbstractContextManager[Span] | None = None

    def note(self, facts: Mapping[str, object]) -> None:
        if self._span is not None:
            self._span.set_attributes(_attributes(facts))

    def __enter__(self) -> "_Traced":
        self._span = self._sender.begin(self._name, about=self._about, uid=self._uid)
        self._using = use_span(self._span, record_exception=False, set_status_on_exception=False)
        self._using.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._span is None or self._using is None:
            return
        self._using.__exit__(None, None, None)
        if isinstance(exc, Exception):
            _set_error(self._span, exc)
        self._span.end()


class _PodIds(RandomIdGenerator):  # type: ignore[misc]  # its types are not followed
    """Gives a trace the ID that was set just before, once."""

    next_trace = 0

    def generate_trace_id(self) -> int:
        return self.next_trace or super().generate_trace_id()


class _Exporter(SpanExporter):  # type: ignore[misc]  # its types are not followed
    """The exporter, which notes how it goes."""

    def __init__(self, inner: SpanExporter, words: "_Words") -> None:
        self._inner = inner
        self._words = words

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        if result is SpanExportResult.SUCCESS:
            self._words.trouble.succeeded()
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


class _Words(logging.Handler):
    """Takes what OpenTelemetry logs, in place of everybody else."""

    def __init__(self, trouble: TroubleLog) -> None:
        super().__init__(logging.WARNING)
        self.trouble = trouble
        self._source = logging.getLogger("opentelemetry")
        self._source.addHandler(self)
        self._source.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.trouble.failed(UnavailableError(record.getMessage()))

    def close(self) -> None:
        self._source.removeHandler(self)
        self._source.propagate = True
        super().close()


def _trace_id(uid: str) -> int:
    """A UID as the API server makes them is 128 bits, just as a trace's ID; 0 for another."""
    try:
        return UUID(uid).int
    except ValueError:
        return 0


def _set_error(span: Span, error: Exception) -> None:
    """OpenTelemetry's own way would send the traceback too."""
    span.set_status(Status(StatusCode.ERROR, str(error)))
    span.set_attribute("error.type", getattr(error, "reason", type(error).__name__))


def _attributes(facts: Mapping[str, object]) -> dict[str, AttributeValue]:
    return {f"fracgpu.{name}": _value(value) for name, value in facts.items() if value is not None}


def _value(value: object) -> AttributeValue:
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return [f"{key}={part}" for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return [str(part) for part in value]
    return str(value)


_propagator = TraceContextTextMapPropagator()
