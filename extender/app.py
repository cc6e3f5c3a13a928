"""The extender's face towards kube-scheduler: its verbs, and probes. What people read is `extender.pages`' part.

The verbs take the raw body and answer raw bytes: their cost is decoding names. They answer HTTP 200, with `Error`
where something is wrong, because kube-scheduler does not read the body of anything else; but see preempt.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import msgspec
from fastapi import FastAPI, Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from extender.metrics import Metrics
from extender.probes import add_probes
from extender.verbs import Extender
from extender.wire import BindingResult, FilterResult
from fracgpu.errors import ConflictError, FracgpuError, NoRoomError, UnavailableError
from fracgpu.process.bodies import Bodies, BodyError

# 5000 names are 0.2 MB; Nodes as whole objects, without nodeCacheCapable, some 10 KB each.
_MAX_BODY_BYTES: Final = 64 * 2**20
_logger = logging.getLogger(__name__)


def create_app(extender: Extender) -> FastAPI:
    """Put the verbs under their paths."""
    app = FastAPI(title="fracgpu extender", openapi_url=None)
    _add_verbs(app, extender)
    add_probes(app, extender)
    return app


def _add_verbs(app: FastAPI, extender: Extender) -> None:
    """What kube-scheduler calls."""
    bodies = Bodies(max_bytes=_MAX_BODY_BYTES, shared_bytes=2 * _MAX_BODY_BYTES)
    verbs = {
        "filter": _Verb(extender.filter, failure=lambda error: FilterResult(error=error)),
        # The answer has no room for a reason: kube-scheduler logs that it could not be read, and goes on without.
        "prioritize": _Verb(extender.prioritize, failure=lambda error: {"Error": error}),
        # The one answer of another status: it has no place for an error, and an empty one says "no victims", which
        # kube-scheduler would write onto the pod as "no candidate node for preemption". So it writes that the call
        # failed. Either way the pod keeps its nominated node and is looked at again after the next event in the
        # cluster, or five minutes: there is no answer that makes kube-scheduler come back sooner.
        "preempt": _Verb(extender.preempt, failure=lambda error: {"Error": error}, failure_status=503),
        "bind": _Verb(extender.bind, failure=lambda error: BindingResult(error=error)),
    }
    # Not FastAPI's own kind of route: its validation and dependencies, of which a verb has none, take longer than most
    # verbs themselves.
    for name, verb in verbs.items():
        face = _Face(verb, name=name, metrics=extender.metrics, bodies=bodies)
        app.router.routes.append(Route(f"/{name}", face, methods=["POST"]))


@dataclass(frozen=True, slots=True)
class _Verb:
    """A verb, and how it says that something is wrong."""

    answer: Callable[[bytes], Awaitable[object]]
    failure: Callable[[str], object]
    failure_status: int = 200


class _Face:
    """One verb as an ASGI application: raw body in, raw answer out."""

    def __init__(self, verb: _Verb, *, name: str, metrics: Metrics, bodies: Bodies) -> None:
        self._name = name
        self._verb = verb
        self._bodies = bodies
        self._refusals = metrics.refusals
        self._seconds = metrics.requests.labels(name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = []
        try:
            body = await self._bodies.read(Request(scope, receive))
        except BodyError as exc:
            if exc.status == HTTPStatus.BAD_REQUEST:
                return  # the client went away
            self._note(exc)
            status, answer = self._failed(str(exc))
            headers.append((b"connection", b"close"))  # what else the client sends is not read
        else:
            status, answer = await self._answer(body)
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _answer(self, body: bytes) -> tuple[int, bytes]:
        with self._seconds.time():
            try:
                return 200, msgspec.json.encode(await self._verb.answer(body))
            except FracgpuError as exc:
                self._note(exc)
                return self._failed(str(exc))
            except Exception:
                # kube-scheduler reads no other answer than HTTP 200: a defect of ours must be told there too.
                _logger.exception("defect", extra={"verb": self._name})
                self._refusals.labels(self._name, "Defect").inc()
                return self._failed("a defect of the fracgpu extender; its log has the traceback")

    def _note(self, error: FracgpuError) -> None:
        is_usual = isinstance(error, (ConflictError, NoRoomError, UnavailableError))
        level = logging.INFO if is_usual else logging.WARNING
        facts = {"verb": self._name, "reason": error.reason, "error": str(error), **error.about}
        _logger.log(level, "refused", extra=facts)
        self._refusals.labels(self._name, error.reason).inc()

    def _failed(self, sentence: str) -> tuple[int, bytes]:
        return self._verb.failure_status, msgspec.json.encode(self._verb.failure(sentence))
