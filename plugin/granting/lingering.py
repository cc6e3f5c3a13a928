"""Tells users of memory that is still taken although its pod has ended: of processes that live on, most often.

Left out: that it stays taken, which is `book`'s part. Nothing waits for what is told here.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from fracgpu.gpunodes import GpuNodeSpec, Grant
from fracgpu.names import NodeName, PodUid
from fracgpu.wording import shares_in_words

KEPT: Final = "GpuMemoryKept"
KEPT_SECONDS: Final = 30.0
"""How long a pod may have ended until its user is told: as long as pods are given to end."""

_LOOK_SECONDS: Final = 5.0
_logger = logging.getLogger(__name__)


class Tell(Protocol):
    """See `fracgpu.kube.recording.EventRecorder.warn`."""

    def __call__(self, *, namespace: str, pod: str, uid: PodUid, reason: str, message: str) -> None:
        """Have a Warning written."""
        ...


class LingeringWatch:
    """Looks for what ended pods keep.

    Args:
        node: this node's name.
        ended: gives the grants of pods that have ended.
        spec: gives the GPUs as they are now.
        tell: has an event written.
        clock: seconds that only grow.
        interval_seconds: between two looks.
    """

    def __init__(
        self,
        *,
        node: NodeName,
        ended: Callable[[], Iterable[Grant]],
        spec: Callable[[], GpuNodeSpec],
        tell: Tell,
        clock: Callable[[], float] = time.monotonic,
        interval_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._node = node
        self._ended = ended
        self._spec = spec
        self._tell = tell
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._since: dict[PodUid, float] = {}  # pod UID -> when it was first seen to have ended and to hold something
        self._told: set[PodUid] = set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                self.look()
            except Exception:
                _logger.exception("defect")  # nothing depends on what is told here
            await asyncio.sleep(self._interval_seconds)

    def look(self) -> None:
        """Look once, and tell of each pod once."""
        now = self._clock()
        found = {grant.pod_uid: grant for grant in self._ended()}
        self._since = {uid: self._since.get(uid, now) for uid in found}
        self._told &= found.keys()
        for uid, grant in found.items():
            if uid not in self._told and now - self._since[uid] >= KEPT_SECONDS:
                self._told.add(uid)
                self._say(grant)

    def _say(self, grant: Grant) -> None:
        spec = self._spec()
        kept = shares_in_words(grant.containers, unit=spec.memory_unit, node=self._node, gpus=spec.gpus)
        _logger.warning(
            "a pod has ended, and keeps its share",
            extra={"pod": f"{grant.namespace}/{grant.name}", "uid": grant.pod_uid, "node": self._node, "kept": kept},
        )
        self._tell(
            namespace=grant.namespace,
            pod=grant.name,
            uid=grant.pod_uid,
            reason=KEPT,
            message=(
                "The pod has ended, but something of it is left on its node, most often a process: until that is gone, "
                f"{kept} stays taken."
            ),
        )
