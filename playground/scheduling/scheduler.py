"""A scheduler loop in kube-scheduler's order: queue, filter, prioritize, assume, and bind behind the next pod's back.

One pod is in a scheduling cycle at a time; its binding runs as a task of its own, so the next pod's filter goes out
before this pod's bind. A pod that is being bound is assumed to be on its node. As in kube-scheduler, the extender is
asked only about pods that request one of its resources and nodes that the sums (``node_fit``) let pass, and
prioritize is skipped for a single node.

Left out: preemption, the extender's Nodes form, every in-tree score.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Literal, Protocol

from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA
from playground.cluster import ApiStatusError, ClusterApi, EventType, JsonObject
from playground.recording import EventRecorder
from playground.scheduling.extender_client import ExtenderClient, ExtenderError
from playground.scheduling.informer import Informer
from playground.scheduling.node_fit import Usage, allocatable, pod_requests, rejections, unschedulable_message
from playground.scheduling.scheduling_queue import QueuedPod, SchedulingQueue
from playground.settling import settled

LOG_LENGTH = 1000

Verb = Literal["filter", "prioritize", "bind"]


class SchedulerApi(ClusterApi, Protocol):
    """What a scheduler needs beyond the common verbs."""

    async def bind(self, name: str, *, namespace: str, node: str, uid: str) -> None:
        """Assign a pod to a node; raise ``ApiStatusError`` with code 409 where it cannot be."""
        ...


class Scheduler:
    """Schedules the pods of a cluster with one extender.

    Args:
        cluster: the API server.
        extender_url: the extender's urlPrefix.
        managed_resources: the extender sees only pods that request one of these.
        name: only pods with this spec.schedulerName are scheduled.
        initial_backoff: seconds before the second attempt of a pod; each further one doubles them.
        max_backoff: the longest backoff, in seconds.
        seed: for the choice between equally good nodes.
        events: tells of every decision, as ``kubectl describe pod`` shows it; None keeps silent.

    Attributes:
        log: the latest calls as (verb, pod name), in the order in which they were begun.
    """

    def __init__(
        self,
        cluster: SchedulerApi,
        *,
        extender_url: str,
        managed_resources: Collection[str] = (RESOURCE_MEMORY, RESOURCE_REPLICA),
        name: str = "default-scheduler",
        initial_backoff: float = 1.0,
        max_backoff: float = 10.0,
        seed: int | None = None,
        events: EventRecorder | None = None,
    ) -> None:
        self._events = events
        self.log: deque[tuple[Verb, str]] = deque(maxlen=LOG_LENGTH)
        self._cluster = cluster
        self._extender = ExtenderClient(extender_url)
        self._managed = frozenset(managed_resources)
        self._name = name
        self._random = random.Random(seed)  # noqa: S311 - a tie needs no secret
        self._queue = SchedulingQueue(initial_backoff=initial_backoff, max_backoff=max_backoff)
        self._taken: dict[str, QueuedPod] = {}  # uid -> pod in its cycle or being bound
        self._assumed: dict[str, str] = {}  # uid -> node, until the bound pod is seen
        self._usage = Usage()  # of the pods that are bound, or assumed to be
        self._pods = Informer(cluster, resource="pods", handle=self._on_pod)
        self._nodes = Informer(cluster, resource="nodes", handle=self._on_node)
        self._informers = [self._pods, self._nodes]
        self._node_facts: dict[str, object] = {}  # node name -> what scheduling depends on
        self._woken = asyncio.Event()
        self._progress = asyncio.Condition()
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to schedule, in a task of its own."""
        self._running = asyncio.create_task(self.run(), name="scheduler")

    async def run(self) -> None:
        """Schedule until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers:
                group.create_task(informer.run())
            for informer in self._informers:
                await informer.caught_up()
            while True:
                item = await self._next()
                await self._cycle(item, group)

    async def stop(self) -> None:
        """Stop at once; bindings under way are given up."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        await self._extender.stop()

    async def settled(self) -> None:
        """Return when every pending pod was tried since the last change that could help it, and none is being bound.

        What the API server holds at the moment of return has been taken into account. Does not return while a pod
        is being retried because of errors; raises what ended the scheduler, if anything did.
        """
        await settled(
            self._running,
            name="the scheduler",
            informers=self._informers,
            is_idle=self._is_idle,
            progress=self._progress,
        )

    def _is_idle(self) -> bool:
        return not self._taken and self._queue.is_quiet

    async def _next(self) -> QueuedPod:
        while True:
            self._woken.clear()
            item = self._queue.pop(now=_now())
            if item is not None:
                self._taken[item.uid] = item
                return item
            try:
                async with asyncio.timeout_at(self._queue.next_due()):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _cycle(self, item: QueuedPod, group: asyncio.TaskGroup) -> None:
        try:
            node, message = await self._choose(item.pod)
        except ExtenderError as exc:
            await self._put_back(item, reason="SchedulerError", message=str(exc))
            return
        if not node:
            await self._put_back(item, reason="Unschedulable", message=message)
            return
        self._assumed[item.uid] = node
        self._count(item.uid)
        group.create_task(self._bind(item, node), name=f"bind {item.pod['metadata']['name']}")

    async def _choose(self, pod: JsonObject) -> tuple[str, str]:
        """Return the node for a pod, or else an empty name and why there is none."""
        nodes = {obj["metadata"]["name"]: obj for obj in self._nodes.objects.values()}
        if not nodes:
            return "", "no nodes available to schedule pods"
        requests = pod_requests(pod)
        reasons = {
            name: rejections(pod, requests, node=node, used=self._usage.of(name)) for name, node in nodes.items()
        }
        feasible = sorted(name for name, found in reasons.items() if not found)
        is_managed = not self._managed.isdisjoint(requests)
        if feasible and is_managed:
            self._note("filter", pod)
            filtered = await self._extender.filter(pod, feasible)
            feasible = list(filtered.nodes)
            reasons |= {name: [why] for name, why in filtered.failed.items()}
        if not feasible:
            return "", unschedulable_message(reasons, nodes=len(nodes))
        scores: dict[str, int] = {}
        if len(feasible) > 1 and is_managed:
            self._note("prioritize", pod)
            try:
                scores = await self._extender.prioritize(pod, feasible)
            except ExtenderError:
                scores = {}  # as kube-scheduler: an extender that cannot score has no say
        best = max(scores.get(name, 0) for name in feasible)
        return self._random.choice([name for name in feasible if scores.get(name, 0) == best]), ""

    async def _bind(self, item: QueuedPod, node: str) -> None:
        pod = item.pod
        metadata = pod["metadata"]
        # Yield first: the next cycle begins before this binding, as it does in kube-scheduler.
        await asyncio.sleep(0)
        self._note("bind", pod)
        try:
            if self._managed.isdisjoint(pod_requests(pod)):
                await self._cluster.bind(
                    metadata["name"], namespace=metadata["namespace"], node=node, uid=metadata["uid"]
                )
            else:
                await self._extender.bind(pod, node)
        except (ExtenderError, ApiStatusError) as exc:
            self._assumed.pop(item.uid, None)
            self._count(item.uid)
            self._queue.wake_all(now=_now())  # the room that was assumed to be taken is free again
            await self._put_back(item, reason="SchedulerError", message=str(exc))
            return
        if self._events is not None:
            message = f"Successfully assigned {metadata['namespace']}/{metadata['name']} to {node}"
            await self._events.tell(pod, reason="Scheduled", message=message)
        await self._release(item)

    async def _put_back(self, item: QueuedPod, *, reason: str, message: str) -> None:
        """Return a pod to the queue, unless it is gone or bound after all, and write down why on it."""
        present = self._pods.objects.get(item.uid)
        if present is not None and self._is_mine(present):
            if reason == "Unschedulable":
                self._queue.put_back_unschedulable(item, now=_now())
            else:
                self._queue.put_back_failed(item, now=_now())
            await self._report(present, reason=reason, message=message)
            if self._events is not None:
                await self._events.tell(present, reason="FailedScheduling", message=message, kind="Warning")
        await self._release(item)

    async def _report(self, pod: JsonObject, *, reason: str, message: str) -> None:
        conditions = pod.get("status", {}).get("conditions") or []
        old: JsonObject = next((item for item in conditions if item["type"] == "PodScheduled"), {})
        new = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
        if new.items() <= old.items():
            return
        changed = old.get("lastTransitionTime") if old.get("status") == "False" else None
        new["lastTransitionTime"] = changed or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        others = [item for item in conditions if item["type"] != "PodScheduled"]
        metadata = pod["metadata"]
        try:
            await self._cluster.patch(
                "pods",
                metadata["name"],
                {"metadata": {"uid": metadata["uid"]}, "status": {"conditions": [*others, new]}},
                namespace=metadata["namespace"],
                subresource="status",
            )
        except ApiStatusError:
            return  # it was deleted, or replaced by another of its name: nobody will read this

    async def _release(self, item: QueuedPod) -> None:
        del self._taken[item.uid]
        self._woken.set()
        async with self._progress:
            self._progress.notify_all()

    def _count(self, uid: str) -> None:
        """Account for what is now known of a pod: where it is, or that it takes nothing."""
        pod = self._pods.objects.get(uid)
        node = (pod["spec"].get("nodeName") or self._assumed.get(uid)) if pod and not _has_ended(pod) else None
        self._usage.move(uid, node, pod_requests(pod) if pod and node else Counter())

    def _on_pod(self, kind: EventType, pod: JsonObject) -> None:
        uid = pod["metadata"]["uid"]
        node = pod["spec"].get("nodeName")
        if kind == "DELETED" or node or _has_ended(pod):
            was_assumed = self._assumed.pop(uid, None)
            self._queue.remove(uid)
            if kind == "DELETED" or _has_ended(pod):
                self._wake(is_helpful=bool(node or was_assumed))
        elif not self._is_mine(pod):
            self._queue.remove(uid)
        elif uid in self._queue:
            self._queue.update(pod)
        elif uid in self._taken:
            self._taken[uid].pod = pod
        elif uid not in self._assumed:
            self._queue.add(pod)
        self._count(uid)
        self._woken.set()

    def _on_node(self, kind: EventType, node: JsonObject) -> None:
        name = node["metadata"]["name"]
        before = self._node_facts.pop(name, None)
        if kind != "DELETED":
            unschedulable = bool(node.get("spec", {}).get("unschedulable"))
            self._node_facts[name] = (unschedulable, node["metadata"].get("labels"), allocatable(node))
        # The kubelet's heartbeats change a node too, but not what fits on it.
        self._wake(is_helpful=kind != "DELETED" and self._node_facts[name] != before)

    def _wake(self, *, is_helpful: bool) -> None:
        if is_helpful:
            self._queue.wake_all(now=_now())
            self._woken.set()

    def _is_mine(self, pod: JsonObject) -> bool:
        """Whether the pod is to be scheduled by this scheduler, and not yet."""
        spec = pod["spec"]
        return (
            spec.get("schedulerName") == self._name
            and not spec.get("nodeName")
            and not spec.get("schedulingGates")
            and "deletionTimestamp" not in pod["metadata"]
            and not _has_ended(pod)
        )

    def _note(self, verb: Verb, pod: JsonObject) -> None:
        self.log.append((verb, pod["metadata"]["name"]))


def _has_ended(pod: JsonObject) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _now() -> float:
    return asyncio.get_running_loop().time()
