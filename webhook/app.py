"""The webhook over HTTP: one route for kube-apiserver, two for probes.

A thin shell: every decision is in `reviews` and below. Serving with TLS is `fracgpu.process`'s part.
"""

from http import HTTPStatus
from typing import Final

import msgspec
from fastapi import FastAPI, Request, Response

from webhook.policy import Policy
from webhook.reviews import ReviewError, answer

MAX_BODY_BYTES: Final = 3 * 2**20
"""kube-apiserver takes no larger object either (its limit for request bodies)."""

_JSON: Final = "application/json"


def create_app(policy: Policy) -> FastAPI:
    """Build the ASGI app.

    ``POST /mutate`` takes an AdmissionReview v1 of a pod. What is none is answered by 400 or 413 and a metav1.Status,
    whose message kube-apiserver shows to the user.
    """
    app = FastAPI(title="fracgpu webhook", openapi_url=None)  # one route, for machines: nothing to browse

    @app.post("/mutate")
    async def mutate(request: Request) -> Response:
        body = await _read_body(request)
        if body is None:
            return _failure(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                reason="RequestEntityTooLarge",
                message=f"the body is larger than {MAX_BODY_BYTES} bytes",
            )
        try:
            return Response(answer(body, policy=policy), media_type=_JSON)
        except ReviewError as exc:
            return _failure(HTTPStatus.BAD_REQUEST, reason="BadRequest", message=str(exc))

    @app.get("/healthz")
    @app.get("/readyz")  # nothing to wait for: who is listening has its certificate and needs nothing else
    async def probe() -> Response:
        return Response("ok", media_type="text/plain")

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
