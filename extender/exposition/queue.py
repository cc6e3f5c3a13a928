"""Counts the pods that wait, by why they do, in slices between which requests are answered.

The reasons are `reasons`' part. What a pod asks is read once, and kept while it waits.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from extender.exposition.reasons import Extremes, WaitReason, Waits, kind_of, plain_units
from extender.exposition.slices import slices
from extender.exposition.text import head
from extender.index import Index
from extender.picture import is_waiting
from extender.placement.views import NodeView
from extender.reconciler import Reconciler
from fracgpu.errors import RequestError
from fracgpu.names import PodUid
from fracgpu.pods import Pod
from fracgpu.requests import PodRequest, request_of

PODS: Final = "fracgpu_cluster_waiting_pods"
OLDEST: Final = "fracgpu_cluster_waiting_oldest_seconds"

_PODS: Final = 500  # that are looked at in one go
_READ: Final = 10  # of which the requests are read in one go
_NODES: Final = 20  # that are asked about one request in one go
_VIEWS: Final = 500  # of which three numbers are taken in one go
_KINDS: Final = 12  # of requests of several containers, or for chosen GPUs, about which every node is asked
_PASSING: Final = 200  # nodes with shares that will soon be settled, that are looked at
_ANY_PRIORITY: Final = 2**31  # nothing is set aside for pods of a higher one


class Waiting(NamedTuple):
    """Pods that wait with one kind of request: how many, since when the oldest (RFC 3339), and what they ask."""

    pods: int
    since: str
    request: PodRequest | None

    def plus(self, other: "Waiting") -> "Waiting":
        """These pods and others."""
        return Waiting(self.pods + other.pods, min(filter(None, (self.since, other.since)), default=""), self.request)


_NOBODY: Final = Waiting(0, "", None)


class WaitingPods:
    """The pods that wait for GPUs.

    Args:
        index: the cluster.
        reconciler: knows the pods.
    """

    def __init__(self, *, index: Index, reconciler: Reconciler) -> None:
        self._index = index
        self._reconciler = reconciler
        self._requests: dict[
            PodUid, tuple[Pod, PodRequest | None]
        ] = {}  # waiting pod -> what it asks; None: unreadable

    async def text(self, views: list[NodeView]) -> str:
        """Their gauges, as Prometheus' text.

        Args:
            views: the nodes that are used.
        """
        found: dict[WaitReason, Waiting] = {}
        async for reason, waiting in self._reasons(await self._kinds(), views):
            found[reason] = found.get(reason, _NOBODY).plus(waiting)
        now = datetime.now(UTC)
        texts = [head(PODS, "Pods that ask for GPUs and are on no node yet, by why they wait.")]
        texts += [f'{PODS}{{reason="{reason}"}} {found.get(reason, _NOBODY).pods}\n' for reason in WaitReason]
        texts.append(head(OLDEST, "Age of the oldest pod that waits for this reason; 0 where none does."))
        texts += [
            f'{OLDEST}{{reason="{reason}"}} {_age_seconds(found.get(reason, _NOBODY).since, now):.0f}\n'
            for reason in WaitReason
        ]
        return "".join(texts)

    async def _kinds(self) -> dict[object, Waiting]:
        """Kind of request -> who waits with it."""
        kinds: dict[object, Waiting] = {}
        known, self._requests = self._requests, {}
        read = 0
        async for pods in slices(list(self._reconciler.pods), size=_PODS):
            for pod in pods:
                if not is_waiting(self._index, pod):
                    continue
                kept = known.get(pod.uid)
                if kept is None or kept[0] is not pod:
                    kept = pod, _read(pod)
                    read += 1
                    if read % _READ == 0:
                        await asyncio.sleep(0)
                self._requests[pod.uid] = kept
                kind = None if kept[1] is None else kind_of(kept[1])
                one = Waiting(1, pod.metadata.creation_timestamp or "", kept[1])
                kinds[kind] = kinds[kind].plus(one) if kind in kinds else one
        return kinds

    async def _reasons(
        self, kinds: dict[object, Waiting], views: list[NodeView]
    ) -> AsyncIterator[tuple[WaitReason, Waiting]]:
        """Why each kind waits; what is asked most first."""
        if not kinds:
            return
        now, coming = Extremes(), Extremes()
        async for some in slices(views, size=_VIEWS):
            for view in some:
                now.look(view)
        ahead = await self._coming_views()
        for view in ahead:
            coming.look(view)
        has_split = any(view.is_split for view in views)
        walks = 0
        for waiting in sorted(kinds.values(), key=lambda found: -found.pods):
            if waiting.request is None:
                yield WaitReason.INVALID, waiting
            elif (units := plain_units(waiting.request, has_split=has_split)) is not None:
                reason = now.reason(units)
                is_settling = reason is not WaitReason.ROOM and coming.reason(units) is WaitReason.ROOM
                yield (WaitReason.SETTLING if is_settling else reason), waiting
            elif walks < _KINDS:
                walks += 1
                yield await _walk(waiting.request, views, ahead), waiting
            else:
                yield WaitReason.UNEXAMINED, waiting

    async def _coming_views(self) -> list[NodeView]:
        """Nodes as they will be when what passes there has passed."""
        found = []
        for count, name in enumerate(list(self._index.passing)[:_PASSING], start=1):
            view = self._index.coming_view(name, uid=PodUid(""), priority=_ANY_PRIORITY)
            if view is not None and view.unit == self._index.unit:
                found.append(view)
            if count % _READ == 0:
                await asyncio.sleep(0)
        return found


async def _walk(request: PodRequest, views: list[NodeView], ahead: list[NodeView]) -> WaitReason:
    waits = Waits(request)
    async for some in slices(views, size=_NODES):
        waits.look(some)
        if waits.is_settled:
            return waits.reason
    async for some in slices(ahead, size=_NODES):
        waits.look_ahead(some)
    return waits.reason


def _read(pod: Pod) -> PodRequest | None:
    try:
        return request_of(pod)
    except RequestError:
        return None


def _age_seconds(since: str, now: datetime) -> float:
    return max(0.0, (now - datetime.fromisoformat(since)).total_seconds()) if since else 0.0
