"""The extender's HTTP face: kube-scheduler's verbs, probes, and why a pod waits.

The verbs take the raw body and answer raw bytes: their cost is decoding names. They answer HTTP 200, with `Error`
where something is wrong, because kube-scheduler does not read the body of anything else; but see preempt.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from extender.filtering import BehindError, Filtered, explain_pod, filter_nodes, hold_for, prioritize_nodes
from extender.index import Index
from extender.ledger.claims import Claim
from extender.ledger.ledger import AlreadyClaimedError, Ledger
from extender.metrics import Metrics
from extender.placement.explaining import Explanation
from extender.preempting import preempt
from extender.reconciler import Reconciler
from extender.wire import (
    BindingResult,
    ExtenderPreemptionResult,
    FilterResult,
    NodeList,
    candidates,
    decode_binding_args,
    decode_extender_args,
    decode_preemption_args,
)
from fracgpu.errors import ConflictError, FracgpuError, NoRoomError, UnavailableError
from fracgpu.names import NodeName, PodUid
from fracgpu.pods import Pod

_T = TypeVar("_T")
_BEHIND_SECONDS: Final = 10.0  # far more than any event takes
_REMEMBERED: Final = 10_000
_ATTEMPTS: Final = 3  # other replicas may be faster that often
_SLICE: Final = 10  # nodes on which victims are chosen in one go: some 10 ms, so that binds go on meanwhile
_logger = logging.getLogger(__name__)
_JSON: Final = "application/json"


class Extender:
    """The verbs, on one replica's index and ledger.

    Args:
        index: the cluster as this replica knows it.
        ledger: what all replicas agree on.
        reconciler: keeps both true.
        metrics: what is counted.
        hold_seconds: for how long the best node is held for a pod between prioritize and bind; 0 holds nothing.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        *,
        index: Index,
        ledger: Ledger,
        reconciler: Reconciler,
        metrics: Metrics,
        hold_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = index
        self._ledger = ledger
        self._reconciler = reconciler
        self._hold_seconds = hold_seconds
        self._clock = clock
        self._behind_since: dict[PodUid, float] = {}  # pod UID -> when it was first told so, and ever since
        self.metrics = metrics

    async def filter(self, body: bytes) -> FilterResult:
        """Which candidates fit, and why the others do not."""
        args = decode_extender_args(body)
        self._require_ready()
        names, nodes = candidates(args)

        # kube-scheduler does not ask for priorities where only one node is left: that one is held here.
        found = await self._decide(args.pod, lambda: self._filter(args.pod, names), best=lambda found: found.only)
        if not found.fitting and not self._reconciler.is_current:
            # A pod that fits nowhere waits for the next event in the cluster: not to be said of an old picture.
            raise UnavailableError("the API server cannot be followed at the moment; try again")
        _logger.info(
            "filtered",
            extra={"pod": args.pod.key, "uid": args.pod.uid, "nodes_in": len(names), "nodes_ok": len(found.fitting)},
        )
        result = FilterResult(failed_nodes=found.failed, failed_and_unresolvable_nodes=found.unresolvable)
        if nodes is None:
            return msgspec.structs.replace(result, node_names=found.fitting)
        return msgspec.structs.replace(result, nodes=NodeList([nodes[name] for name in found.fitting]))

    async def prioritize(self, body: bytes) -> object:
        """Scores of the candidates; the best of them is held."""
        args = decode_extender_args(body)
        self._require_ready()
        names, _ = candidates(args)
        found = await self._decide(
            args.pod, lambda: prioritize_nodes(self._index, args.pod, names), best=lambda found: found.best
        )
        return found.scores

    async def _decide(self, pod: Pod, decide: Callable[[], _T], *, best: Callable[[_T], NodeName | None]) -> _T:
        """Decide on the ledger's present state, and hold a place for the pod: one call to Redis where nothing changed.

        The decision is made on what this replica knows; the ledger says whether that was all, and if so holds the
        place in the same step. Else the answer brought the changes, and the decision is made anew.
        """
        caught_up = False
        for _ in range(_ATTEMPTS):
            refusal: FracgpuError | None = None
            claim = None
            try:
                decision = decide()
                node = best(decision) if self._hold_seconds else None
                claim = hold_for(self._index, pod, node) if node else None
            except (ConflictError, UnavailableError) as exc:
                refusal = exc
            if claim is None and (caught_up or await self._ledger.catch_up()):
                if refusal:
                    raise refusal
                return decision
            if claim is not None and await self._hold(claim):
                return decision
            caught_up = True
        # Other replicas write all the time: a decision on what the last answer brought is as good as one can be.
        self.metrics.holds.labels("given_up").inc()
        return decide()

    def _filter(self, pod: Pod, names: Sequence[NodeName]) -> Filtered:
        """Sort out the candidates; tell a pod for some seconds only that we are yet to hear of something.

        Else a lasting difference between GPUNodes and what the kubelets offer would keep pods from being preempted for.
        """
        try:
            found = filter_nodes(self._index, pod, names)
        except BehindError:
            now = self._clock()
            if now - self._behind_since.setdefault(pod.uid, now) < _BEHIND_SECONDS:
                raise
            return filter_nodes(self._index, pod, names, may_be_behind=False)
        finally:
            if len(self._behind_since) > _REMEMBERED:
                self._behind_since.clear()
        self._behind_since.pop(pod.uid, None)
        return found

    async def _hold(self, claim: Claim) -> bool:
        """Hold shares; False where the ledger had changed, and the choice is to be made anew."""
        limits = self._index.limits(claim)
        try:
            is_current = await self._ledger.hold(claim, limits=limits, lifetime_seconds=self._hold_seconds)
        except AlreadyClaimedError:
            return False
        except NoRoomError:
            self.metrics.holds.labels("full").inc()
            return True  # a hold is advice: without one, bind decides
        self.metrics.holds.labels("held" if is_current else "behind").inc()
        return is_current

    async def preempt(self, body: bytes) -> ExtenderPreemptionResult:
        """Whom to evict instead of those whom kube-scheduler would."""
        args = decode_preemption_args(body)
        self._require_ready()
        await self._ledger.catch_up()
        if not self._reconciler.is_current:
            raise UnavailableError("the API server cannot be followed at the moment, and nobody is evicted blindly")
        answer, count = {}, 0
        decisions = preempt(self._index, args, pods=self._reconciler.pods_by_uid, budgets=self._reconciler.budgets)
        for count, (name, victims) in enumerate(decisions, start=1):
            if victims is not None:
                answer[name] = victims
            if count % _SLICE == 0:
                await asyncio.sleep(0)
        _logger.info(
            "chose victims",
            extra={"pod": args.pod.key, "uid": args.pod.uid, "nodes_in": count, "nodes_ok": len(answer)},
        )
        return ExtenderPreemptionResult(answer)

    async def bind(self, body: bytes) -> BindingResult:
        """Bind a pod."""
        args = decode_binding_args(body)
        self._require_ready()
        await self._reconciler.binder.bind(args)
        return BindingResult()

    async def explain(self, namespace: str, name: str) -> Explanation | None:
        """Where a pod is or why it waits; None for a pod that is not there or asks for no GPU."""
        self._require_ready()
        await self._ledger.catch_up()
        for pod in self._reconciler.pods:
            if pod.metadata.namespace == namespace and pod.metadata.name == name:
                return explain_pod(self._index, pod)
        return None

    async def is_ready(self) -> bool:
        """Whether this replica can decide now."""
        try:
            self._require_ready()
            await self._ledger.catch_up()
        except UnavailableError:
            return False
        return True

    def _require_ready(self) -> None:
        if not self._reconciler.ready.is_set():
            raise UnavailableError("the extender has not read the cluster's state yet; try again")


def create_app(extender: Extender) -> FastAPI:
    """Put the verbs under their paths."""
    app = FastAPI(title="fracgpu extender", docs_url=None, redoc_url=None)
    _add_verbs(app, extender)
    _add_pages(app, extender)
    return app


def _add_verbs(app: FastAPI, extender: Extender) -> None:
    """What kube-scheduler calls."""

    async def answer(
        body: bytes,
        verb: Callable[[bytes], Awaitable[object]],
        failure: Callable[[str], object],
        *,
        failure_status: int = 200,
    ) -> Response:
        status = 200
        with extender.metrics.requests.labels(verb.__name__).time():
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
