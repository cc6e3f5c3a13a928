"""The loop that runs the controllers: it follows workloads and pods, and carries out what each kind's module decides.

One workload is looked at at a time. After something was created the loop waits until it sees it, so that nothing is
created twice. What belongs to an owner that is gone is deleted, and so is what is in a namespace that is gone. What is
refused or goes wrong is tried again after a pause that doubles, and holds nothing else up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from playground.api.resources import RESOURCES
from playground.cluster import ApiStatusError, ClusterApi, EventType, JsonObject
from playground.controllers import deployments, jobs, replicasets, statefulsets, wording
from playground.controllers.ownership import Ownership
from playground.controllers.plans import Plan
from playground.recording import EventRecorder
from playground.scheduling.informer import Informer
from playground.settling import settled

_WORKLOADS: Mapping[str, str] = {
    "Deployment": "deployments",
    "ReplicaSet": "replicasets",
    "StatefulSet": "statefulsets",
    "Job": "jobs",
}
"""Kind -> plural, of those that have a controller."""
_COMPONENTS: Mapping[str, str] = {
    "Deployment": "deployment-controller",
    "ReplicaSet": "replicaset-controller",
    "StatefulSet": "statefulset-controller",
    "Job": "job-controller",
}
_FIRST_PAUSE_SECONDS = 1.0
_LAST_PAUSE_SECONDS = 60.0

_logger = logging.getLogger(__name__)


class Controllers:
    """All controllers of one cluster.

    Args:
        cluster: the API server.

    Attributes:
        refused: workload's UID -> (``namespace/name``, why its pods are not let in, or what else is in its way), of
            those that lack pods for it.
    """

    def __init__(self, cluster: ClusterApi) -> None:
        self.refused: dict[str, tuple[str, str]] = {}
        self._cluster = cluster
        self._recorders = {kind: EventRecorder(cluster, component=name) for kind, name in _COMPONENTS.items()}
        followed = (*_WORKLOADS.values(), "pods")
        self._informers = {
            plural: Informer(cluster, resource=plural, handle=self._on_change(plural)) for plural in followed
        }
        self._namespaces = Informer(cluster, resource="namespaces", handle=self._on_namespace)
        self._ownership = Ownership()
        # UIDs of workloads to look at, of owners that may be gone, and of namespaces that are; in order
        self._queue: dict[str, None] = {}
        self._gone_namespaces: dict[str, str] = {}  # UID -> name, until it is empty
        self._pauses: dict[str, float] = {}  # UID -> seconds until it is tried again
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._is_busy = False
        self._woken = asyncio.Event()
        self._progress = asyncio.Condition()
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, in a task of its own."""
        self._running = asyncio.create_task(self.run(), name="controllers")

    async def stop(self) -> None:
        """Stop at once."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        for timer in self._timers.values():
            timer.cancel()

    async def run(self) -> None:
        """Run the controllers until cancelled."""
        async with asyncio.TaskGroup() as group:
            informers = [*self._informers.values(), self._namespaces]
            for informer in informers:
                group.create_task(informer.run())
            for informer in informers:
                await informer.caught_up()
            while True:
                await self._work_off()
                self._woken.clear()
                if not self._is_idle():
                    continue
                async with self._progress:
                    self._progress.notify_all()
                await self._woken.wait()

    async def settled(self) -> None:
        """Return when everything is as it was decided to be, or is refused; raises what ended the loop, if it ended."""
        await settled(
            self._running,
            name="the controllers",
            informers=[*self._informers.values(), self._namespaces],
            is_idle=self._is_idle,
            progress=self._progress,
        )

    def _is_idle(self) -> bool:
        return not self._queue and not self._is_busy

    async def _work_off(self) -> None:
        self._is_busy = True
        try:
            while self._queue:
                uid = next(iter(self._queue))
                del self._queue[uid]
                await self._look_at(uid)
        finally:
            self._is_busy = False

    async def _look_at(self, uid: str) -> None:
        workload = next(
            (found for plural in _WORKLOADS.values() if (found := self._informers[plural].objects.get(uid))), None
        )
        try:
            if uid in self._gone_namespaces:
                await self._empty_namespace(uid)
            elif workload is None:
                await self._collect(uid)
            else:
                await self._carry_out(workload, self._decide(workload))
        except ApiStatusError as exc:
            # Somebody was faster; what they did is about to be seen, and looked at again.
            _logger.info("controllers: %s", exc)
            self._try_again(uid)
        except Exception as exc:
            _logger.exception("controllers: %s", uid)
            if workload is not None:
                why = f"a defect of the playground's controllers: {type(exc).__name__}: {exc}"
                self.refused[uid] = (f"{workload['metadata']['namespace']}/{_name(workload)}", why)
            self._try_again(uid)

    def _decide(self, workload: JsonObject) -> Plan:
        uid, now = workload["metadata"]["uid"], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        belonging = self._ownership.belonging
        pods = belonging(uid, kind="Pod")
        if workload["kind"] == "Deployment":
            replica_sets = belonging(uid, kind="ReplicaSet")
            theirs = [pod for rs in replica_sets for pod in belonging(rs["metadata"]["uid"], kind="Pod")]
            return deployments.decide(workload, replica_sets, theirs, now=now)
        if workload["kind"] == "ReplicaSet":
            _, refusal = self.refused.get(uid, ("", ""))
            return replicasets.decide(workload, pods, refusal=refusal, now=now)
        if workload["kind"] == "StatefulSet":
            return statefulsets.decide(workload, pods)
        return jobs.decide(workload, pods, now=now)

    async def _carry_out(self, workload: JsonObject, plan: Plan) -> None:
        kind, metadata = workload["kind"], workload["metadata"]
        recorder = self._recorders[kind]
        for change in plan.change:
            await self._patch(change.obj, change.patch)
            if change.reason:
                await recorder.tell(workload, reason=change.reason, message=change.message)
        if plan.annotations and not plan.annotations.items() <= metadata.get("annotations", {}).items():
            await self._patch(workload, {"metadata": {"annotations": dict(plan.annotations)}})
        for obj in plan.delete:
            await self._delete(_plural(obj), obj)
            if obj["kind"] == "Pod":
                await recorder.tell(workload, reason="SuccessfulDelete", message=wording.deleted(workload, _name(obj)))
        if plan.status is not None:
            await self._write_status(workload, dict(plan.status))
        await self._create_all(workload, plan.create)

    async def _create_all(self, workload: JsonObject, wanted: Sequence[JsonObject]) -> None:
        metadata, recorder = workload["metadata"], self._recorders[workload["kind"]]
        uid = metadata["uid"]
        if not wanted or uid in self._timers:  # refused lately: its pause is not over
            if not wanted:
                self._forget_refusal(uid)
            return
        for obj in wanted:
            try:
                created = await self._cluster.create(_plural(obj), obj)
            except ApiStatusError as exc:
                if obj["kind"] == "Pod":
                    message = wording.refused(workload, _name(obj), exc.message)
                    await recorder.tell(workload, reason="FailedCreate", message=message, kind="Warning")
                self.refused[uid] = (f"{metadata['namespace']}/{metadata['name']}", exc.message)
                self._try_again(uid)
                self._queue[uid] = None  # its status is to tell of it
                return
            name, plural = created["metadata"]["name"], _plural(created)
            if obj["kind"] == "Pod":
                await recorder.tell(workload, reason="SuccessfulCreate", message=wording.created(workload, name))
            else:
                message = f"Scaled up replica set {name} from 0 to {created['spec']['replicas']}"
                await recorder.tell(workload, reason="ScalingReplicaSet", message=message)
            await self._informers[plural].reached(int(created["metadata"]["resourceVersion"]))
        self._forget_refusal(uid)

    async def _write_status(self, workload: JsonObject, status: JsonObject) -> None:
        known = workload.get("status", {})
        if any(known.get(name) != value for name, value in status.items()):
            await self._patch(workload, {"status": status}, subresource="status")

    async def _patch(self, obj: JsonObject, patch: JsonObject, *, subresource: str = "") -> None:
        metadata = obj["metadata"]
        guarded = {**patch, "metadata": {**patch.get("metadata", {}), "uid": metadata["uid"]}}  # not a namesake
        plural = _plural(obj)
        patched = await self._cluster.patch(
            plural, metadata["name"], guarded, namespace=metadata["namespace"], subresource=subresource
        )
        await self._informers[plural].reached(int(patched["metadata"]["resourceVersion"]))

    async def _delete(self, plural: str, obj: JsonObject) -> None:
        metadata = obj["metadata"]
        try:
            await self._cluster.delete(
                plural, metadata["name"], namespace=metadata.get("namespace", ""), uid=metadata["uid"]
            )
        except ApiStatusError as exc:
            if exc.code not in (404, 409):  # it is gone, or another one has its name
                raise

    async def _collect(self, uid: str) -> None:
        """Delete what belongs to an owner that is gone."""
        self._forget_refusal(uid)
        for obj in self._ownership.belonging(uid):
            if not await self._is_alive(self._ownership.owner_of(obj), obj["metadata"].get("namespace", "")):
                await self._delete(_plural(obj), obj)

    async def _is_alive(self, reference: JsonObject, namespace: str) -> bool:
        plural = _WORKLOADS.get(reference["kind"])
        if plural is None:
            return True  # not one of ours
        try:
            found = await self._cluster.get(plural, reference["name"], namespace=namespace)
        except ApiStatusError:
            return False
        return bool(found["metadata"]["uid"] == reference.get("uid"))

    async def _empty_namespace(self, uid: str) -> None:
        namespace = self._gone_namespaces[uid]
        for plural, resource in RESOURCES.items():
            if not resource.namespaced:
                continue
            found, _ = await self._cluster.list(plural)
            for obj in found:
                if obj["metadata"]["namespace"] == namespace:
                    await self._delete(plural, obj)
        del self._gone_namespaces[uid]
        self._pauses.pop(uid, None)

    def _on_change(self, plural: str) -> Callable[[EventType, JsonObject], None]:
        def handle(event: EventType, obj: JsonObject) -> None:
            for owner in self._ownership.note(obj, is_gone=event == "DELETED"):
                self._queue[owner] = None
            if plural != "pods":
                self._queue[obj["metadata"]["uid"]] = None
            self._woken.set()

        return handle

    def _on_namespace(self, event: EventType, namespace: JsonObject) -> None:
        if event == "DELETED":
            uid = namespace["metadata"]["uid"]
            self._gone_namespaces[uid] = namespace["metadata"]["name"]
            self._queue[uid] = None
            self._woken.set()

    def _try_again(self, uid: str) -> None:
        pause = self._pauses.get(uid, _FIRST_PAUSE_SECONDS)
        self._pauses[uid] = min(2 * pause, _LAST_PAUSE_SECONDS)
        if uid not in self._timers:
            self._timers[uid] = asyncio.get_running_loop().call_later(pause, self._retry, uid)

    def _retry(self, uid: str) -> None:
        del self._timers[uid]
        self._queue[uid] = None
        self._woken.set()

    def _forget_refusal(self, uid: str) -> None:
        self._pauses.pop(uid, None)
        if self.refused.pop(uid, None) is not None:
            self._queue[uid] = None


def _plural(obj: JsonObject) -> str:
    return _WORKLOADS.get(obj["kind"], "pods")


def _name(obj: JsonObject) -> str:
    name: str = obj["metadata"].get("name", "")
    return name
