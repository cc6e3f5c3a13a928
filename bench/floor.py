"""The floor: a route that decodes the extender's body, echoes the names and does nothing else.

It is served as the extender is (FastAPI, the same uvicorn) and decodes with the extender's own decoder; its answers are
encoded from structs. What the extender takes more is what it decides. With --kubeconfig it also binds, by POSTing the
Binding and nothing else, so that kube-scheduler can run with it: ``python -m bench.floor``.
"""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from fastapi import FastAPI, Request, Response
from msgspec import Struct

from extender.wire import decode_binding_args, decode_extender_args
from fracgpu.kube.client import KubeClient
from fracgpu.process.running import announce_ready, prepare_process, run_service
from fracgpu.process.serving import HttpServer
from fracgpu.process.settings import ServiceSettings


class FloorSettings(ServiceSettings):
    """An extender that does nothing, for benchmarks."""

    kubeconfig: Path | None = None
    """How to reach the API server; none where it is not asked to bind."""


class _Echo(Struct, rename="pascal"):
    node_names: Sequence[str]
    nodes: None = None
    failed_nodes: dict[str, str] = {}
    failed_and_unresolvable_nodes: dict[str, str] = {}
    error: str = ""


class _Score(Struct, rename="pascal"):
    host: str
    score: int


def create_floor(kube: KubeClient | None) -> FastAPI:
    """Put the echoes under the extender's paths."""
    app = FastAPI(title="floor", docs_url=None, redoc_url=None)

    @app.post("/filter")
    async def filter_verb(request: Request) -> Response:
        args = decode_extender_args(await request.body())
        return _json(_Echo(args.node_names or []))

    @app.post("/prioritize")
    async def prioritize_verb(request: Request) -> Response:
        args = decode_extender_args(await request.body())
        return _json([_Score(name, 0) for name in args.node_names or ()])

    @app.post("/bind")
    async def bind_verb(request: Request) -> Response:
        args = decode_binding_args(await request.body())
        if kube is None:
            return _json({"Error": "no --kubeconfig"})
        await kube.bind(
            namespace=args.pod_namespace,
            name=args.pod_name,
            uid=args.pod_uid,
            node=args.node,
            annotations={},
            timeout_seconds=2.0,
        )
        return _json({"Error": ""})

    return app


def _json(answer: object) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")


async def _serve(stop: asyncio.Event) -> None:
    settings = FloorSettings.load(sys.argv[1:])
    prepare_process(settings)
    async with contextlib.AsyncExitStack() as stack:
        kube = None
        if settings.kubeconfig is not None:
            kube = await KubeClient.connect(kubeconfig=settings.kubeconfig)
            stack.push_async_callback(kube.close)
        server = HttpServer(create_floor(kube), host="127.0.0.1", port=0)
        await server.start()
        stack.push_async_callback(server.stop)
        announce_ready(server.url, ready_file=settings.ready_file)
        await stop.wait()


if __name__ == "__main__":
    sys.exit(run_service(_serve))
