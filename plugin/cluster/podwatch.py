"""The pods of this node, as the API server tells them: a watch, and at worst one read where the watch is behind.

Invariant: time never goes back. `alive` is the newest state known, never older than `observed`, so a pod once missing
from it is missing for ever.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.kube.reflector import Change, ChangeKind, Reflector
from fracgpu.kube.resources import PODS
from fracgpu.names import NodeName, PodUid
from fracgpu.pods import Pod
from plugin.granting.admission import wants_gpu

ENDED_KEPT: Final = 128
"""Pods that ended last whose UIDs are told: more than end on one node while an extender is away."""

READ_SECONDS: Final = 1.0
"""How long `refresh` may take: the kubelet admits nothing meanwhile."""

_logger = logging.getLogger(__name__)


class PodWatch:
    """Follows the pods of one node.

    Args:
        client: how to reach the API server.
        node: the node's name.
        on_end: called when a pod with a share of a GPU was deleted or became terminal.
        on_progress: called when `observed` may have changed.
    """

    def __init__(
        self, client: KubeClient, node: NodeName, *, on_end: Callable[[], None], on_progress: Callable[[], None]
    ) -> None:
        self._client = client
        self._selector = f"spec.nodeName={node}"
        self._on_end = on_end
        self._reflector = Reflector(
            client,
            PODS,
            on_change=self._changed,
            field_selector=self._selector,
            on_progress=lambda _: on_progress(),
        )
        self._ended: deque[PodUid] = deque(maxlen=ENDED_KEPT)  # the newest last
        self._read: tuple[str, tuple[Pod, ...]] = ("", ())  # resourceVersion, pods: what `refresh` last read

    @property
    def observed(self) -> str:
        """The resourceVersion that the watch has reached."""
        return self._reflector.resource_version

    @property
    def ended(self) -> tuple[PodUid, ...]:
        """The pods with a share of a GPU that were seen to end, by UID: the last `ENDED_KEPT`, the newest last."""
        return tuple(self._ended)

    def remember_ended(self, uids: Iterable[PodUid]) -> None:
        """Take over what an earlier process has seen; before `run`."""
        self._ended.extend(uids)

    def alive(self) -> dict[PodUid, Pod]:
        """UID -> pod: the pods of the node that have not ended: neither deleted nor terminal."""
        version, pods = self._read
        newest: Iterable[Pod] = pods if _number(version) > _number(self.observed) else self._reflector.objects.values()
        return {pod.uid: pod for pod in newest if not pod.is_terminal}

    async def refresh(self) -> bool:
        """Read the pods now, consistently, within `READ_SECONDS`; without an answer, `alive` stays what it was.

        Returns:
            Whether there was an answer.
        """
        try:
            async with asyncio.timeout(READ_SECONDS):
                listing = await self._client.list(PODS, field_selector=self._selector, timeout_seconds=READ_SECONDS)
        except (KubeError, TimeoutError) as exc:
            _logger.warning(
                "cannot read the node's pods", extra={"error": str(exc) or f"no answer in {READ_SECONDS} s"}
            )
            return False
        if _number(listing.resource_version) > _number(self._read[0]):
            self._read = (listing.resource_version, tuple(listing.items))
        return True

    async def synced(self) -> None:
        """Wait until the pods are known."""
        await self._reflector.synced.wait()

    async def run(self) -> None:
        """Follow the pods until cancelled."""
        await self._reflector.run()

    def _changed(self, change: Change[Pod]) -> None:
        if (change.kind is ChangeKind.DELETED or change.object.is_terminal) and wants_gpu(change.object):
            if change.object.uid not in self._ended:
                self._ended.append(change.object.uid)
            self._on_end()


def _number(resource_version: str) -> int:
    """A resourceVersion as a number; Kubernetes guarantees since 1.35 that they compare so, and etcd always did."""
    return int(resource_version or 0)
