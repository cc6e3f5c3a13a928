"""Whether the extender lives, and whether it can decide: for the kubelet, on either port."""

from fastapi import FastAPI, Response

from extender.verbs import Extender


def add_probes(app: FastAPI, extender: Extender) -> None:
    """Put the probes under their paths."""

    @app.get("/healthz")
    @app.get("/livez")
    async def healthz() -> Response:
        return Response("ok", media_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> Response:
        if await extender.is_ready():
            return Response("ok", media_type="text/plain")
        return Response("the ledger is not readable or not complete yet", status_code=503, media_type="text/plain")
