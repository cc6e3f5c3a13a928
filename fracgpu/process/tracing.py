"""Traces of what happens to pods, where somebody wants them; how they are sent is `otlp`'s part.

Without an endpoint OpenTelemetry is not even imported, and a span is one object that does nothing. With one, spans are
sent by a thread of OpenTelemetry's, from a bounded queue: nothing ever waits for the receiver, and what it cannot take
is dropped.

A pod's trace has the pod's UID as its ID (without the dashes), whichever service speaks: neither kube-scheduler nor
the kubelet passes a trace on to those that it calls. See docs/tracing.md.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from fracgpu.errors import SettingError

if TYPE_CHECKING:
    from fracgpu.process.otlp import Sender

_PATH: Final = "/v1/traces"

Fact = object
"""Text, a number or a boolean is told as that; a list, or a mapping, as a list of texts; None not at all."""


class Span(Protocol):
    """A piece of work, as a context manager; spans that begin within it are its children."""

    def note(self, facts: Mapping[str, Fact]) -> None:
        """Say more of it: name -> value, each of which becomes ``fracgpu.<name>``."""
        ...

    def __enter__(self) -> "Span":
        """Begin."""
        ...

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """End; an error is recorded, and goes on."""
        ...


class _Nothing:
    """What a span is where nobody wants traces: one object for all."""

    def note(self, facts: Mapping[str, Fact]) -> None:
        pass

    def __enter__(self) -> Span:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        pass


_NOTHING: Final = _Nothing()
_sender: "Sender | None" = None  # of this process, as logging is


def start_tracing(endpoint: str, *, service: str) -> None:
    """Send traces from now on.

    Args:
        endpoint: an http or https URL, to which ``/v1/traces`` is added where it is missing. What else OpenTelemetry
            can be told (headers, a CA) it reads from its own variables, ``OTEL_EXPORTER_OTLP_...``.
        service: extender, webhook or plugin.

    Raises:
        SettingError: that is no such URL, or one with a password or a query, or OpenTelemetry is not installed.
    """
    global _sender
    try:
        url = urlsplit(endpoint)
        is_usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        # It is logged, and shows in the list of processes: no place for a password.
        is_usable = is_usable and "@" not in url.netloc and not url.query and not url.fragment
    except ValueError:
        is_usable = False
    if not is_usable:
        raise SettingError(
            "--otlp-endpoint (environment: FRACGPU_OTLP_ENDPOINT) must be the http or https URL of an OTLP receiver, "
            "for example http://otel-collector:4318, without a password or query: what a receiver asks for goes into "
            "OTEL_EXPORTER_OTLP_HEADERS"
        )
    try:
        from fracgpu.process.otlp import Sender
    except ImportError as exc:
        raise SettingError(
            "--otlp-endpoint needs OpenTelemetry, which is not installed: pip install '.[otel]' in the repository"
        ) from exc
    end_tracing()
    base = endpoint.rstrip("/")
    _sender = Sender(base if base.endswith(_PATH) else base + _PATH, service=service)


def end_tracing() -> None:
    """Send what is left, for some seconds, and send nothing more; harmless where nothing was started."""
    global _sender
    if _sender is not None:
        _sender.end()
        _sender = None


def span(name: str, *, uid: str = "", namespace: str = "", pod: str = "", node: str = "") -> Span:
    """A piece of work that begins when the span is entered.

    Args:
        name: what is done.
        uid: the pod's; without one, and outside of another span, the trace gets an ID of its own.
        namespace: the pod's.
        pod: its name.
        node: which node it is about.
    """
    if _sender is None:
        return _NOTHING
    return _sender.span(name, about=_about(uid, namespace, pod, node), uid=uid)


def record(
    name: str,
    *,
    seconds: float,
    uid: str,
    namespace: str,
    pod: str,
    node: str = "",
    facts: Mapping[str, Fact],
    error: Exception | None = None,
    traceparent: str = "",
) -> None:
    """Tell of a piece of work that has just ended, and took so long; for who learns only then which pod it is about.

    The other arguments are those of `span`; `error` is what it ended with, and `traceparent` the header of that name
    from a caller that is traced itself.
    """
    if _sender is not None:
        about = _about(uid, namespace, pod, node)
        _sender.record(name, about=about, uid=uid, facts=facts, seconds=seconds, error=error, traceparent=traceparent)


def _about(uid: str, namespace: str, pod: str, node: str) -> dict[str, str]:
    """The attributes that OpenTelemetry's conventions have for these."""
    about = {"k8s.pod.uid": uid, "k8s.namespace.name": namespace, "k8s.pod.name": pod, "k8s.node.name": node}
    return {name: value for name, value in about.items() if value}
