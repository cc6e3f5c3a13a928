"""The floor: it reads an AdmissionReview to its end and answers the same bytes always, without looking at it.

Served as the webhook is: FastAPI, the same server with the same options, TLS by the same handshakes. What the webhook
takes more is its decision. ``python -m bench.webhook.floor --tls-cert FILE --tls-key FILE``.
"""

import asyncio
import sys
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response

from fracgpu.process.running import announce_ready, prepare_process, run_service
from fracgpu.process.serving import HttpServer
from fracgpu.process.settings import ServiceSettings
from webhook.certificates.handshakes import Handshakes
from webhook.certificates.pairs import read_pair

ANSWER: Final = (
    b'{"response":{"uid":"6fce2831-27f9-4e55-ac0d-6a6288bb6554","allowed":true},'
    b'"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}'
)


class FloorSettings(ServiceSettings):
    """A webhook that decides nothing, for benchmarks."""

    tls_cert: Path
    """PEM file with the certificate."""

    tls_key: Path
    """PEM file with its key."""


def create_floor() -> FastAPI:
    """Put the constant answer under the webhook's path."""
    app = FastAPI(title="floor", openapi_url=None)

    @app.post("/mutate")
    async def mutate(request: Request) -> Response:
        await request.body()
        return Response(ANSWER, media_type="application/json")

    return app


async def _serve(stop: asyncio.Event) -> None:
    settings = FloorSettings.load(sys.argv[1:])
    prepare_process(settings)
    pair = read_pair(chain=settings.tls_cert.read_bytes(), key=settings.tls_key.read_bytes())
    server = HttpServer(
        create_floor(),
        host="127.0.0.1",
        port=0,
        tls=Handshakes(pair).context,
    )
    await server.start()
    announce_ready(server.url, ready_file=settings.ready_file)
    await stop.wait()
    await server.stop()


if __name__ == "__main__":
    sys.exit(run_service(_serve))
