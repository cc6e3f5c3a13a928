"""Events: what a part of the cluster tells about an object, for ``kubectl describe``.

Saying the same again counts up the event that is there. An event is no more than a courtesy: one that cannot be written
is left out.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Literal

from playground.cluster import ApiStatusError, ClusterApi, JsonObject

_REMEMBERED = 4096  # latest events that are counted up rather than told anew

_logger = logging.getLogger(__name__)


class EventRecorder:
    """Writes events in the name of one part of the cluster.

    Args:
        cluster: the API server.
        component: who tells it.
        host: the node it runs on; empty for a part of the control plane.
    """

    def __init__(self, cluster: ClusterApi, *, component: str, host: str = "") -> None:
        self._cluster = cluster
        self._component = component
        self._host = host
        self._told: OrderedDict[tuple[str, ...], tuple[str, int]] = OrderedDict()  # what -> event's name, count

    async def tell(
        self,
        obj: JsonObject,
        *,
        reason: str,
        message: str,
        kind: Literal["Normal", "Warning"] = "Normal",
        field_path: str = "",
    ) -> None:
        """Tell something about an object.

        Args:
            obj: what it is about.
            reason: one word in CamelCase.
            message: a sentence.
            kind: whether somebody should worry.
            field_path: the part of the object that is meant, such as ``spec.containers{main}``.
        """
        metadata = obj["metadata"]
        namespace = metadata.get("namespace") or "default"
        what = (metadata["uid"], kind, reason, message, field_path)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        name, count = self._told.pop(what, ("", 0))
        try:
            if name and await self._count_up(name, namespace=namespace, count=count + 1, now=now):
                self._remember(what, name, count + 1)
                return
            name = f"{metadata['name']}.{time.time_ns():x}"  # in the order of time where they are listed by name
            await self._cluster.create("events", self._event(obj, name, what, now=now))
            self._remember(what, name, 1)
        except ApiStatusError as exc:
            _logger.info("event %s about %s not written: %s", reason, metadata["name"], exc)

    async def _count_up(self, name: str, *, namespace: str, count: int, now: str) -> bool:
        try:
            await self._cluster.patch("events", name, {"count": count, "lastTimestamp": now}, namespace=namespace)
        except ApiStatusError as exc:
            if exc.code != 404:  # it made room for newer ones
                raise
            return False
        return True

    def _remember(self, what: tuple[str, ...], name: str, count: int) -> None:
        self._told[what] = (name, count)
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)

    def _event(self, obj: JsonObject, name: str, what: tuple[str, ...], *, now: str) -> JsonObject:
        uid, kind, reason, message, field_path = what
        metadata = obj["metadata"]
        about = {
            "kind": obj["kind"],
            "apiVersion": obj["apiVersion"],
            "name": metadata["name"],
            "uid": uid,
            "resourceVersion": metadata.get("resourceVersion", ""),
        }
        about |= {"namespace": metadata["namespace"]} if metadata.get("namespace") else {}
        about |= {"fieldPath": field_path} if field_path else {}
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": metadata.get("namespace") or "default"},
            "involvedObject": about,
            "reason": reason,
            "message": message,
            "type": kind,
            "source": {"component": self._component, **({"host": self._host} if self._host else {})},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }
