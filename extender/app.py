"""The extender's HTTP face: kube-scheduler's verbs, probes, and why a pod waits.

The verbs take the raw body and answer raw bytes: their cost is decoding names. They answer HTTP 200, with `Error`
where something is wrong, because kube-scheduler does not read the body of anything else; but see preempt.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from extender.verbs import Extender
from extender.wire import (
    BindingResult,
    FilterResult,
)
from fracgpu.errors import ConflictError, FracgpuError, NoRoomError, UnavailableError

_T = TypeVar("_T")
_BEHIND_SECONDS: Final = 10.0  # far more than any event takes
_REMEMBERED: Final = 10_000
_ATTEMPTS: Final = 3  # other replicas may be faster that often
_SLICE: Final = 10  # nodes on which victims are chosen in one go: some 10 ms, so that binds go on meanwhile
_logger = logging.getLogger(__name__)
_JSON: Final = "application/json"


def create_app(extender: Extender) -> FastAPI:
    """Put the verbs under their paths."""
    app = FastAPI(title="fracgpu extender", docs_url=None, redoc_url=None)
    _add_verbs(app, extender)
    _add_pages(app, extender)
    return app


def _add_verbs(app: FastAPI, extender: Extender) -> None:
    """What kube-scheduler calls."""
    timers = {verb: extender.metrics.requests.labels(verb) for verb in ("filter", "prioritize", "bind", "preempt")}

    async def answer(
        body: bytes,
        verb: Callable[[bytes], Awaitable[object]],
        failure: Callable[[str], object],
        *,
        failure_status: int = 200,
    ) -> Response:
        status = 200
        with timers[verb.__name__].time():
            try:
                found = await verb(body)
            except FracgpuError as exc:
                is_usual = isinstance(exc, (ConflictError, NoRoomError, UnavailableError))
                level = logging.INFO if is_usual else logging.WARNING
                _logger.log(level, "refused", extra={"verb": verb.__name__, "reason": exc.reason, "error": str(exc)})
                extender.metrics.refusals.labels(verb.__name__, exc.reason).inc()
                found, status = failure(str(exc)), failure_status
            except Exception:
                # kube-scheduler reads no other answer than HTTP 200: a defect of ours must be told there too.
                _logger.exception("defect", extra={"verb": verb.__name__})
                extender.metrics.refusals.labels(verb.__name__, "Defect").inc()
                found, status = failure("a defect of the fracgpu extender; its log has the traceback"), failure_status
            return Response(msgspec.json.encode(found), status_code=status, media_type=_JSON)

    @app.post("/filter")
    async def filter_verb(request: Request) -> Response:
        return await answer(await request.body(), extender.filter, lambda error: FilterResult(error=error))

    @app.post("/prioritize")
    async def prioritize_verb(request: Request) -> Response:
        # The answer has no room for a reason: kube-scheduler logs that it could not be read, and goes on without.
        return await answer(await request.body(), extender.prioritize, lambda error: {"Error": error})

    @app.post("/preempt")
    async def preempt_verb(request: Request) -> Response:
        # The one answer of another status: it has no place for an error, and an empty one says "no victims", which
        # kube-scheduler would write onto the pod as "no candidate node for preemption". So it writes that the call
        # failed. Either way the pod keeps its nominated node and is looked at again after the next event in the
        # cluster, or five minutes: there is no answer that makes kube-scheduler come back sooner.
        return await answer(await request.body(), extender.preempt, lambda error: {"Error": error}, failure_status=503)

    @app.post("/bind")
    async def bind_verb(request: Request) -> Response:
        # Shielded: a scheduler that hangs up must not stop a bind between its two writes.
        body = await request.body()
        return await asyncio.shield(answer(body, extender.bind, lambda error: BindingResult(error=error)))


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
