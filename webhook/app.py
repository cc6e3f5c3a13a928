"""The webhook over HTTP: two routes for kube-apiserver, two for probes.

A thin shell: every decision is in `reviews` and below. Serving with TLS is `fracgpu.process`'s part.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final, Protocol

import msgspec
from fastapi import FastAPI, Request, Response

from webhook.cards import Cluster
from webhook.policy import Policy
from webhook.reviews import ReviewError, answer_pod, answer_workload

MAX_BODY_BYTES: Final = 3 * 2**20
"""kube-apiserver takes no larger object either (its limit for request bodies)."""

_JSON: Final = "application/json"


class _Answering(Protocol):
    """How a body is answered; raises ReviewError."""

    def __call__(self, body: bytes, *, policy: Policy, cluster: Cluster) -> bytes: ...


def create_app(
    policy: Policy,
    *,
    cluster: Callable[[], Cluster] = Cluster,
    missing: Callable[[], str] = lambda: "",
) -> FastAPI:
    """Build the ASGI app.

    ``POST /mutate`` takes an AdmissionReview v1 of a pod, ``POST /validate`` one of a workload. What is none is
    answered by 400 or 413 and a metav1.Status, whose message kube-apiserver shows to the user.

    Args:
        policy: what the administrator has set.
        cluster: the GPUs that there are now, as far as is known.
        missing: what keeps the webhook from its work, in words, for ``GET /readyz``; empty where nothing does.
    """
    app = FastAPI(title="fracgpu webhook", openapi_url=None)  # two routes, for machines: nothing to browse

    async def reviewed(request: Request, answer: _Answering) -> Response:
        body = await _read_body(request)
        if body is None:
            return _failure(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                reason="RequestEntityTooLarge",
                message=f"the body is larger than {MAX_BODY_BYTES} bytes",
            )
        try:
            return Response(answer(body, policy=policy, cluster=cluster()), media_type=_JSON)
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


async def _read_body(request: Request) -> bytes | None:
    """Read the body; None once it is too large, whatever its Content-Length says."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


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
