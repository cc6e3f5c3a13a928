"""The extender's HTTP face: kube-scheduler's verbs, probes, and why a pod waits.

The verbs take the raw body and answer raw bytes: their cost is decoding names. They answer HTTP 200, with `Error`
where something is wrong, because kube-scheduler does not read the body of anything else; but see preempt.
"""

import logging
from collections.abc import Awaitable, Callable

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from extender.metrics import Metrics
from extender.verbs import Extender
from extender.wire import BindingResult, FilterResult
from fracgpu.errors import ConflictError, FracgpuError, NoRoomError, UnavailableError

_logger = logging.getLogger(__name__)


def create_app(extender: Extender) -> FastAPI:
    """Put the verbs under their paths."""
    app = FastAPI(title="fracgpu extender", docs_url=None, redoc_url=None)
    _add_verbs(app, extender)
    _add_pages(app, extender)
    return app


def _add_verbs(app: FastAPI, extender: Extender) -> None:
    """What kube-scheduler calls."""
    verbs = [
        _Verb(extender.filter, failure=lambda error: FilterResult(error=error), metrics=extender.metrics),
        # The answer has no room for a reason: kube-scheduler logs that it could not be read, and goes on without.
        _Verb(extender.prioritize, failure=lambda error: {"Error": error}, metrics=extender.metrics),
        # The one answer of another status: it has no place for an error, and an empty one says "no victims", which
        # kube-scheduler would write onto the pod as "no candidate node for preemption". So it writes that the call
        # failed. Either way the pod keeps its nominated node and is looked at again after the next event in the
        # cluster, or five minutes: there is no answer that makes kube-scheduler come back sooner.
        _Verb(extender.preempt, failure=lambda error: {"Error": error}, failure_status=503, metrics=extender.metrics),
        _Verb(extender.bind, failure=lambda error: BindingResult(error=error), metrics=extender.metrics),
    ]
    # Not FastAPI's own kind of route: its validation and dependencies, of which a verb has none, take longer than most
    # verbs themselves.
    app.router.routes += [Route(f"/{verb.name}", verb, methods=["POST"]) for verb in verbs]


class _Verb:
    """One verb as an ASGI application: raw body in, raw answer out."""

    def __init__(
        self,
        verb: Callable[[bytes], Awaitable[object]],
        *,
        failure: Callable[[str], object],
        metrics: Metrics,
        failure_status: int = 200,
    ) -> None:
        self.name = verb.__name__
        self._verb = verb
        self._failure = failure
        self._failure_status = failure_status
        self._refusals = metrics.refusals
        self._seconds = metrics.requests.labels(self.name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            return
        status, answer = await self._answer(body)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _answer(self, body: bytes) -> tuple[int, bytes]:
        status = 200
        with self._seconds.time():
            try:
                found = await self._verb(body)
            except FracgpuError as exc:
                is_usual = isinstance(exc, (ConflictError, NoRoomError, UnavailableError))
                level = logging.INFO if is_usual else logging.WARNING
                _logger.log(level, "refused", extra={"verb": self.name, "reason": exc.reason, "error": str(exc)})
                self._refusals.labels(self.name, exc.reason).inc()
                found, status = self._failure(str(exc)), self._failure_status
            except Exception:
                # kube-scheduler reads no other answer than HTTP 200: a defect of ours must be told there too.
                _logger.exception("defect", extra={"verb": self.name})
                self._refusals.labels(self.name, "Defect").inc()
                found = self._failure("a defect of the fracgpu extender; its log has the traceback")
                status = self._failure_status
            return status, msgspec.json.encode(found)


def _add_pages(app: FastAPI, extender: Extender) -> None:
    """What probes, monitoring and people read."""

    @app.get("/healthz")
    @app.get("/livez")
    async def healthz() -> Response:
        return Response("ok", media_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> Response:
        if await extender.is_ready():
            return Response("ok", media_type="text/plain")
        return Response("the ledger is not readable or not complete yet", status_code=503, media_type="text/plain")

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(extender.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/explain/{namespace}/{name}")
    async def explain(namespace: str, name: str) -> JSONResponse:
        """Say where a pod is, or why it waits."""
        try:
            found = await extender.explain(namespace, name)
        except UnavailableError as exc:
            return JSONResponse({"error": str(exc)}, status_code=503)
        if found is None:
            return JSONResponse({"error": f"no pod {namespace}/{name} that asks for a GPU"}, status_code=404)
        answer = {"pod": f"{namespace}/{name}", "reason": found.reason, "roomOn": list(found.room_on)}
        return JSONResponse(answer)
