"""A service's HTTP face for probes and monitoring alone: a bare ASGI application.

Bare, because a framework's memory would count on every node.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Check = Callable[[], str]
"""Answers "" where all is well, or else what is missing, in words; asked at every probe, so it must not block."""

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

_TEXT = "text/plain; charset=utf-8"
_logger = logging.getLogger(__name__)


class ProbesApp:
    """Answers ``/healthz``, ``/livez``, ``/readyz`` and ``/metrics``.

    Args:
        registry: what ``/metrics`` shows.
        checks: what has to be well for ``/readyz``: name -> check.
    """

    def __init__(self, *, registry: CollectorRegistry, checks: Mapping[str, Check]) -> None:
        self._registry = registry
        self._checks = checks

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer one request, or follow the server's life."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            return
        status, kind, body = self._answer(scope["method"], scope["path"])
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _answer(self, method: str, path: str) -> tuple[int, str, bytes]:
        if path not in ("/healthz", "/livez", "/readyz", "/metrics"):
            return 404, _TEXT, b"not found: there are /metrics, /healthz, /livez and /readyz\n"
        if method not in ("GET", "HEAD"):
            return 405, _TEXT, b"only GET and HEAD\n"
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        if path == "/readyz":
            missing = [f"{name}: {reason}" for name, check in self._checks.items() if (reason := _ask(name, check))]
            if missing:
                return 503, _TEXT, "".join(f"{line}\n" for line in missing).encode()
        return 200, _TEXT, b"ok\n"


def _ask(name: str, check: Check) -> str:
    try:
        return check()
    except Exception:
        _logger.exception("defect", extra={"check": name})
        return "the check itself failed; the log has the traceback"


async def _live(receive: _Receive, send: _Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return
