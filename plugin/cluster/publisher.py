"""Publishes the node's GPUNode: its GPUs (spec), and who holds what (status), by server-side apply.

What a published status means: with every change of this node's pods up to `observedPods` seen, these are all grants.
It holds because a status reads the two in that order and in one step, because `observedPods` only grows, and because
the desk never grants to a pod that has been seen to end (see `plugin.granting.desk`). So the extender may release the
share of a pod that ended at resourceVersion v once a status with observedPods >= v has no grant of it; or, where it
does not know v, once a status that lists the pod in `endedPods` has none.

Changes are coalesced. One that somebody waits for goes out at once; that only `observedPods` moved goes out at most
every few seconds, for it moves with every change of any pod of the node. What pods use goes along with either; by
itself it goes out as seldom, and only where it moved far enough (see `plugin.usage.reporting`).

The GPUNode is followed too: what somebody else edited or deleted is put back, also on a quiet node. What is compared
is what the API server holds now with what it answered to our last write, so neither our own writes nor its defaults
are taken for an edit.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from fracgpu.gpunodes import GpuNode, GpuNodeSpec, GpuNodeStatus, written
from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.kube.reflector import Change, ChangeKind, Reflector
from fracgpu.kube.resources import GPUNODES, NODES
from fracgpu.names import GPUNODE_API_VERSION, GPUNODE_KIND, NodeName
from fracgpu.trouble import Backoff, TroubleLog
from plugin.usage.reporting import has_moved

_FIELD_MANAGER: Final = "fracgpu-device-plugin"
_NOT_FOUND: Final = 404
_URGENT_SECONDS: Final = 0.2  # between two writes that somebody waits for: a burst is one write
_REPAIR_SECONDS: Final = 1.0  # between two repairs: two plugins on one node, in a rollout, must not race each other

_logger = logging.getLogger(__name__)


class Publisher:
    """Keeps one GPUNode up to date.

    Args:
        client: how to reach the API server.
        node: the node's name.
        spec: its GPUs, read at the moment of writing.
        status: what is granted of them, likewise.
        observed_seconds: between two writes that only say how far the pods have been seen, or what they use.
        on_published: called when the GPUNode says all that there is to say, with how long somebody has waited for
            that in seconds; None where nobody has.
    """

    def __init__(
        self,
        client: KubeClient,
        node: NodeName,
        *,
        spec: Callable[[], GpuNodeSpec],
        status: Callable[[], GpuNodeStatus],
        observed_seconds: float = 30.0,
        on_published: Callable[[float | None], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._node = node
        self._spec = spec
        self._status = status
        self._observed_seconds = observed_seconds
        self._on_published = on_published
        self._touched_at: float | None = None  # since when somebody waits for what is not written yet
        self._reflector = Reflector(client, GPUNODES, on_change=self._changed, field_selector=f"metadata.name={node}")
        self._stored: GpuNode | None = None  # the whole object, as the API server answered to our last write
        self._stored_spec: GpuNodeSpec | None = None  # what it held after we wrote the spec; None: has to be written
        self._stored_status: GpuNodeStatus | None = None  # the same of the status
        self._written: GpuNodeSpec | None = None  # the spec that we wrote
        self._published: GpuNodeStatus | None = None  # the status that we wrote
        self._deleted = ""  # UID of the GPUNode that was deleted last
        self._edited = asyncio.Event()  # the GPUNode has changed, perhaps by our own hand
        self._writing = asyncio.Lock()  # held from a write to the use of its answer
        self._published_at = -observed_seconds  # by the loop's clock
        self._moved = asyncio.Event()  # there is something new
        self._urgent = asyncio.Event()  # and somebody waits for it
        self._backoff = Backoff(max_seconds=10.0)
        self._trouble = TroubleLog(_logger, subject="publishing the GPUNode", clock=time.monotonic)

    async def previous(self) -> GpuNode | None:
        """What was published before this process; None where nothing was.

        Tries until the API server answers: without it nobody knows what pods hold that have ended meanwhile.
        """
        while True:
            try:
                return await self._client.get(GPUNODES, self._node)
            except KubeError as exc:
                if exc.status == _NOT_FOUND:
                    return None
                self._trouble.failed(exc)
            await asyncio.sleep(self._backoff.next_seconds())

    def touch(self) -> None:
        """Publish at once: grants changed, or a pod ended."""
        if self._touched_at is None:
            self._touched_at = time.monotonic()
        self._urgent.set()
        self._moved.set()

    def progressed(self) -> None:
        """Publish soon: the watch of the pods has come further."""
        self._moved.set()

    def measured(self) -> None:
        """Publish soon what pods use, if that has moved far enough."""
        published = None if self._writing.locked() else self._published  # what is being written is not known here
        if published is None or has_moved(published.usage, self._status().usage):
            self._moved.set()

    async def run(self) -> None:
        """Publish until cancelled, beginning now."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reflector.run(), name="GPUNode watch")
            tasks.create_task(self._guard(), name="GPUNode guard")
            await self._write()

    async def _write(self) -> None:
        self.touch()
        while True:
            await self._due()
            waiting_since, self._touched_at = self._touched_at, None
            try:
                async with self._writing:
                    await self._publish()
            except KubeError as exc:
                self._trouble.failed(exc)
                if exc.status == _NOT_FOUND:
                    self._stored_spec = None  # somebody deleted it: make it again
                self._touched_at = waiting_since
                self.touch()
                await asyncio.sleep(self._backoff.next_seconds())
            else:
                self._trouble.succeeded()
                self._backoff.reset()
                self._on_published(None if waiting_since is None else time.monotonic() - waiting_since)

    async def _due(self) -> None:
        await self._moved.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._published_at + self._observed_seconds):
                await self._urgent.wait()
        pause = self._published_at + _URGENT_SECONDS - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, pause))
        self._urgent.clear()
        self._moved.clear()

    async def _publish(self) -> None:
        present = self._present()
        spec = self._spec()
        if present is None or spec != self._written or present.spec != self._stored_spec:
            present = await self._apply({"spec": written(spec)}, owner=await self._owner())
            self._stored_spec, self._written = present.spec, spec
        status = self._status()
        if self._is_news(status) or present.status != self._stored_status:
            present = await self._apply({"status": written(status)}, subresource="status")
            self._stored_status = present.status
            self._published = status
        self._published_at = asyncio.get_running_loop().time()

    def _is_news(self, status: GpuNodeStatus) -> bool:
        before = self._published
        if before is None or has_moved(before.usage, status.usage):
            return True
        return msgspec.structs.replace(status, usage=before.usage, usage_time=before.usage_time) != before

    async def _guard(self) -> None:
        """Have what others did to the GPUNode put back."""
        while True:
            await self._edited.wait()
            self._edited.clear()
            async with self._writing:
                is_edited = self._is_edited()
            if is_edited:
                _logger.warning("somebody else edited or deleted the GPUNode; putting it back")
                self.touch()
                await asyncio.sleep(_REPAIR_SECONDS)

    def _is_edited(self) -> bool:
        if self._stored_spec is None or self._stored_status is None:
            return False  # not written yet
        present = self._present()
        return present is None or (present.spec, present.status) != (self._stored_spec, self._stored_status)

    def _present(self) -> GpuNode | None:
        """The GPUNode as far as we know: of the watch and our last write, each may be behind the other."""
        known = [*self._reflector.objects.values()]
        if self._stored is not None and self._stored.metadata.uid != self._deleted:
            known.append(self._stored)
        return max(known, key=lambda node: int(node.metadata.resource_version), default=None)

    def _changed(self, change: Change[GpuNode]) -> None:
        if change.kind is ChangeKind.DELETED:
            self._deleted = change.object.metadata.uid
        self._edited.set()

    async def _owner(self) -> list[dict[str, str]]:
        """The Node, with which the GPUNode goes."""
        node = await self._client.get(NODES, self._node)
        return [{"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": node.metadata.uid}]

    async def _apply(
        self, body: dict[str, object], *, owner: list[dict[str, str]] | None = None, subresource: str = ""
    ) -> GpuNode:
        metadata: dict[str, object] = {"name": self._node}
        if owner is not None:
            metadata["ownerReferences"] = owner
        head: dict[str, object] = {"apiVersion": GPUNODE_API_VERSION, "kind": GPUNODE_KIND, "metadata": metadata}
        self._stored = await self._client.apply(
            GPUNODES, self._node, head | body, field_manager=_FIELD_MANAGER, subresource=subresource
        )
        return self._stored
