"""The extender's HTTP face: kube-scheduler's verbs, probes, and why a pod waits.

The verbs take the raw body and answer raw bytes: their cost is decoding names. They always answer HTTP 200, with
`Error` where something is wrong, because kube-scheduler does not read the body of anything else.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from extender.filtering import explain_pod, filter_nodes, prioritize_nodes
from extender.index import Index
from extender.ledger.ledger import Ledger
from extender.placement.explaining import Explanation
from extender.reconciler import Reconciler
from extender.wire import (
    BindingResult,
    FilterResult,
    NodeList,
    candidates,
    decode_binding_args,
    decode_extender_args,
)
from fracgpu.errors import ConflictError, FracgpuError, NoRoomError, UnavailableError

_logger = logging.getLogger(__name__)
_JSON: Final = "application/json"


class Extender:
    """The verbs, on one replica's index and ledger."""

    def __init__(self, *, index: Index, ledger: Ledger, reconciler: Reconciler) -> None:
        self._index = index
        self._ledger = ledger
        self._reconciler = reconciler

    async def filter(self, body: bytes) -> FilterResult:
        """Which candidates fit, and why the others do not."""
        args = decode_extender_args(body)
        nodes = candidates(args)
        await self._catch_up()
        found = filter_nodes(self._index, args.pod, nodes)
        if not found.fitting and not self._reconciler.is_current:
            # A pod that fits nowhere waits for the next event in the cluster: not to be said of an old picture.
            raise UnavailableError("the API server cannot be followed at the moment; try again")
        _logger.info(
            "filtered",
            extra={"pod": args.pod.key, "uid": args.pod.uid, "nodes_in": len(nodes), "nodes_ok": len(found.fitting)},
        )
        result = FilterResult(failed_nodes=found.failed, failed_and_unresolvable_nodes=found.unresolvable)
        if args.node_names is None and args.nodes is not None:
            whole = [node for name in found.fitting if (node := nodes[name]) is not None]
            return msgspec.structs.replace(result, nodes=NodeList(whole))
        return msgspec.structs.replace(result, node_names=found.fitting)

    async def prioritize(self, body: bytes) -> object:
        """Scores of the candidates."""
        args = decode_extender_args(body)
        await self._catch_up()
        return prioritize_nodes(self._index, args.pod, candidates(args))

    async def bind(self, body: bytes) -> BindingResult:
        """Bind a pod."""
        args = decode_binding_args(body)
        self._require_ready()
        await self._reconciler.binder.bind(args)
        return BindingResult()

    async def explain(self, namespace: str, name: str) -> Explanation | None:
        """Where a pod is or why it waits; None for a pod that is not there or asks for no GPU."""
        await self._catch_up()
        for pod in self._reconciler.pods:
            if pod.metadata.namespace == namespace and pod.metadata.name == name:
                return explain_pod(self._index, pod)
        return None

    async def is_ready(self) -> bool:
        """Whether this replica can decide now."""
        try:
            await self._catch_up()
        except UnavailableError:
            return False
        return True

    async def _catch_up(self) -> None:
        self._require_ready()
        await self._ledger.catch_up()

    def _require_ready(self) -> None:
        if not self._reconciler.ready.is_set():
            raise UnavailableError("the extender has not read the cluster's state yet; try again")


def create_app(extender: Extender) -> FastAPI:
    """Put the verbs under their paths."""
    app = FastAPI(title="fracgpu extender", docs_url=None, redoc_url=None)

    @app.post("/filter")
    async def filter_verb(request: Request) -> Response:
        return await _answer(request, extender.filter, failure=lambda error: FilterResult(error=error))

    @app.post("/prioritize")
    async def prioritize_verb(request: Request) -> Response:
        # The answer has no room for a reason: kube-scheduler logs that it could not be read, and goes on without.
        return await _answer(request, extender.prioritize, failure=lambda error: {"Error": error})

    @app.post("/bind")
    async def bind_verb(request: Request) -> Response:
        # Shielded: a scheduler that hangs up must not stop a bind between its two writes.
        body = await request.body()
        return await asyncio.shield(_answer_body(body, extender.bind, failure=lambda error: BindingResult(error=error)))

    @app.get("/healthz")
    @app.get("/livez")
    async def healthz() -> Response:
        return Response("ok", media_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> Response:
        if await extender.is_ready():
            return Response("ok", media_type="text/plain")
        return Response("the ledger is not readable or not complete yet", status_code=503, media_type="text/plain")

    @app.get("/v1/explain/{namespace}/{name}")
    async def explain_verb(namespace: str, name: str) -> JSONResponse:
        """Say where a pod is, or why it waits."""
        try:
            found = await extender.explain(namespace, name)
        except UnavailableError as exc:
            return JSONResponse({"error": str(exc)}, status_code=503)
        if found is None:
            return JSONResponse({"error": f"no pod {namespace}/{name} that asks for a GPU"}, status_code=404)
        answer = {"pod": f"{namespace}/{name}", "reason": found.reason, "roomOn": list(found.room_on)}
        return JSONResponse(answer)

    return app


async def _answer(
    request: Request, verb: Callable[[bytes], Awaitable[object]], *, failure: Callable[[str], object]
) -> Response:
    return await _answer_body(await request.body(), verb, failure=failure)


async def _answer_body(
    body: bytes, verb: Callable[[bytes], Awaitable[object]], *, failure: Callable[[str], object]
) -> Response:
    try:
        answer = await verb(body)
    except FracgpuError as exc:
        level = logging.INFO if isinstance(exc, (ConflictError, NoRoomError, UnavailableError)) else logging.WARNING
        _logger.log(level, "refused", extra={"verb": verb.__name__, "reason": exc.reason, "error": str(exc)})
        answer = failure(str(exc))
    except Exception:
        # kube-scheduler reads no other answer than HTTP 200: a defect of ours must be told there too.
        _logger.exception("defect", extra={"verb": verb.__name__})
        answer = failure("a defect of the fracgpu extender; its log has the traceback")
    return Response(msgspec.json.encode(answer), media_type=_JSON)
