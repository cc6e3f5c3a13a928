"""The webhook over HTTP: two routes for kube-apiserver, two for probes.

A thin shell: every decision is in `reviews` and below. Serving with TLS is `fracgpu.process`'s part.
"""

from collections.abc import Callable
from http import HTTPStatus
from time import perf_counter
from typing import Final, Protocol

import msgspec
from fastapi import FastAPI, Request, Response

from fracgpu.process.bodies import Bodies, BodyError
from webhook.cards import Cluster
from webhook.metrics import Metrics
from webhook.policy import Policy
from webhook.reviews import Note, ReviewError, Verdict, answer_pod, answer_workload
from webhook.telling import tell

_JSON: Final = "application/json"


class _Answering(Protocol):
    """How a body is answered; raises ReviewError."""

    def __call__(self, body: bytes, *, policy: Policy, cluster: Cluster, note: Note) -> bytes: ...


def create_app(
    policy: Policy,
    *,
    cluster: Callable[[], Cluster] = Cluster,
    missing: Callable[[], str] = lambda: "",
    bodies: Bodies | None = None,
    metrics: Metrics | None = None,
) -> FastAPI:
    """Build the ASGI app.

    ``POST /mutate`` takes an AdmissionReview v1 of a pod, ``POST /validate`` one of a workload. What is none is
    answered by 4xx and a metav1.Status, whose message kube-apiserver shows to the user; 503 where there is no room.

    Args:
        policy: what the administrator has set.
        cluster: the GPUs that there are now, as far as is known.
        missing: what keeps the webhook from its work, in words, for ``GET /readyz``; empty where nothing does.
        bodies: reads the requests' bodies; None for the usual bounds.
        metrics: counts; None where nobody looks.
    """
    bodies = bodies or Bodies()
    metrics = metrics or Metrics()
    app = FastAPI(title="fracgpu webhook", openapi_url=None)  # two routes, for machines: nothing to browse

    async def reviewed(request: Request, answer: _Answering) -> Response:
        path = request.scope["path"].removeprefix("/")
        try:
            body = await bodies.read(request)
        except BodyError as exc:
            metrics.refused_body(exc.status_reason)
            refused = _failure(exc.status, reason=exc.status_reason, message=str(exc))
            refused.headers["connection"] = "close"  # what else the client sends is not read
            return refused
        began = perf_counter()
        traceparent = request.headers.get("traceparent", "")
        try:
            with metrics.review(path, size_bytes=len(body)) as note:

                def noted(verdict: Verdict) -> None:
                    note(verdict)
                    tell(verdict, began=began, traceparent=traceparent)

                return Response(answer(body, policy=policy, cluster=cluster(), note=noted), media_type=_JSON)
        except ReviewError as exc:
            return _failure(HTTPStatus.BAD_REQUEST, reason="BadRequest", message=str(exc))

    @app.post("/mutate")
    async def mutate(request: Request) -> Response:
        return await reviewed(request, answer_pod)

    @app.post("/validate")
    async def validate(request: Request) -> Response:
        return await reviewed(request, answer_workload)

    @app.get("/healthz")
    async def health() -> Response:
        return Response("ok", media_type="text/plain")

    @app.get("/readyz")
    async def readiness() -> Response:
        reason = missing()
        return Response(
            reason or "ok",
            status_code=HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK,
            media_type="text/plain",
        )

    return app


def _failure(code: HTTPStatus, *, reason: str, message: str) -> Response:
    """Build a metav1.Status, which kube-apiserver's client reads the message from."""
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }
    return Response(msgspec.json.encode(status), status_code=code, media_type=_JSON)
