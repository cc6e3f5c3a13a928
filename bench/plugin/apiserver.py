"""The playground's API server over TLS, counting the plugin's writes: ``python -m bench.plugin.apiserver``.

In a process of its own, so that what it does takes no time from the kubelet's side. ``/bench/writes`` answers how many
requests other than GET have come from a client of ours, by method and path.
"""

import asyncio
import contextlib
import sys
from collections import Counter
from pathlib import Path

import msgspec
from fastapi import FastAPI, Request, Response

from fracgpu.process.running import announce_ready, prepare_process, run_service
from fracgpu.process.serving import HttpServer
from fracgpu.process.settings import ServiceSettings
from fracgpu.process.tls import ServerCertificate
from playground.api.admission import Admission
from playground.api.faults import BindingFaults
from playground.api.http_api import HttpApi
from playground.api.registry import Registry
from playground.api.store import Store
from playground.api.watching import Watches

WRITES_PATH = "/bench/writes"
_CLIENT = "fracgpu"  # how `fracgpu.kube` names itself


class ApiServerSettings(ServiceSettings):
    """An API server that counts, for benchmarks."""

    tls_cert: Path
    """PEM file with the certificate."""

    tls_key: Path
    """PEM file with its key."""


def _create_app() -> FastAPI:
    store = Store()
    watches = Watches(store)
    http = HttpApi(
        store,
        registry=Registry(store, Admission(())),
        watches=watches,
        faults=BindingFaults(),
        hang_up=lambda _: None,  # nobody asks for faults
    )
    writes: Counter[str] = Counter()  # "METHOD path" -> requests
    app = FastAPI(openapi_url=None)

    async def count() -> Response:
        return Response(msgspec.json.encode(writes), media_type="application/json")

    async def handle(request: Request) -> Response:
        if request.method != "GET" and request.headers.get("user-agent") == _CLIENT:
            writes[f"{request.method} {request.url.path}"] += 1
        return await http.handle(request)

    app.add_api_route(WRITES_PATH, count)
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app.add_api_route("/{path:path}", handle, methods=methods, response_model=None)
    return app


async def _serve(stop: asyncio.Event) -> None:
    settings = ApiServerSettings.load(sys.argv[1:])
    prepare_process(settings)
    async with contextlib.AsyncExitStack() as stack:
        certificate = ServerCertificate(cert=settings.tls_cert, key=settings.tls_key)
        server = HttpServer(_create_app(), host="127.0.0.1", port=0, tls=certificate.context)
        await server.start()
        stack.push_async_callback(server.stop)
        announce_ready(server.url, ready_file=settings.ready_file)
        await stop.wait()


if __name__ == "__main__":
    sys.exit(run_service(_serve))
