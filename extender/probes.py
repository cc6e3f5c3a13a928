"""Whether the extender lives, and whether it can decide: for the kubelet, on either port."""

import asyncio
from typing import Protocol

from fastapi import FastAPI, Response


class Readiness(Protocol):
    """What knows whether it can decide (see `extender.verbs.Extender`)."""

    async def is_ready(self) -> bool:
        """Whether it can, now; asks Redis."""
        ...


def add_probes(app: FastAPI, extender: Readiness) -> None:
    """Put the probes under their paths."""
    asking: asyncio.Task[bool] | None = None

    @app.get("/healthz")
    @app.get("/livez")
    async def healthz() -> Response:
        return Response("ok", media_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> Response:
        nonlocal asking
        if asking is None or asking.done():  # anybody may ask, as often as they like: Redis is asked once at a time
            asking = asyncio.create_task(extender.is_ready())
        if await asyncio.shield(asking):
            return Response("ok", media_type="text/plain")
        return Response("the ledger is not readable or not complete yet", status_code=503, media_type="text/plain")
