"""Events on pods, as ``kubectl describe pod`` shows them: what to write, and under which name.

In the form of core/v1, which every reader knows. One object per pod and reason, written by server-side apply, so that
saying the same again is one write and counts up; the API server drops it an hour after the last.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from msgspec import Struct

from fracgpu.kube.client import KubeClient
from fracgpu.kube.resources import Resource
from fracgpu.names import NodeName, PodUid
from fracgpu.pods import ObjectMeta
from fracgpu.timestamps import timestamp

_MAX_NAME: Final = 253  # of any object
_MAX_MESSAGE: Final = 1024  # what the newer events API accepts


class Event(Struct, frozen=True):
    """The parts of a core/v1 Event that we read."""

    metadata: ObjectMeta
    reason: str = ""
    message: str = ""
    type: str = ""
    count: int = 0


EVENTS: Final = Resource("/api/v1", "events", namespaced=True, type=Event)


EventType = Literal["Normal", "Warning"]
"""Warning where somebody should look."""


@dataclass(frozen=True, slots=True)
class PodEvent:
    """Something that is said of a pod.

    Attributes:
        namespace: the pod's.
        pod: its name.
        uid: its UID.
        reason: one word in CamelCase.
        message: a sentence; cut at 1024 characters.
        count: how many times this was said, this time included.
        first: when it was said first, in UTC.
        last: now, in UTC.
        type: Warning where somebody should look.
    """

    namespace: str
    pod: str
    uid: PodUid
    reason: str
    message: str
    count: int
    first: datetime
    last: datetime
    type: EventType = "Warning"

    @property
    def name(self) -> str:
        """The Event's own name: always the same for this pod and reason, and no other's."""
        digest = hashlib.sha256(f"{self.uid} {self.reason}".encode()).hexdigest()[:16]
        return f"{self.pod[: _MAX_NAME - len(digest) - 1].rstrip('-.')}.{digest}"


async def write_event(
    client: KubeClient,
    event: PodEvent,
    *,
    component: str,
    instance: str,
    node: NodeName | None = None,
    timeout_seconds: float,
) -> None:
    """Create an event, or bring the one that is there up to date.

    Args:
        client: the API server.
        event: what to say.
        component: who says it.
        instance: which of several.
        node: the node on which it happened, where it is about one.
        timeout_seconds: for the whole request.

    Raises:
        KubeError: any trouble; writing the same event again is always safe.
    """
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": event.name, "namespace": event.namespace},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": event.namespace,
            "name": event.pod,
            "uid": event.uid,
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:_MAX_MESSAGE],
        "count": event.count,
        "firstTimestamp": timestamp(event.first),
        "lastTimestamp": timestamp(event.last),
        "source": {"component": component, "host": node} if node else {"component": component},
        "reportingComponent": component,
        "reportingInstance": instance,
    }
    await client.apply(
        EVENTS,
        event.name,
        body,
        field_manager=component,
        namespace=event.namespace,
        timeout_seconds=timeout_seconds,
    )
