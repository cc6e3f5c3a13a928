"""What the playground's parts see of the cluster: one small Protocol and the words it needs.

The scheduler loop and the kubelet stub are written against ``ClusterApi``, so that they run unchanged
beside the in-memory API server (no sockets) and against anything else that answers alike. Left out on
purpose: watch bookmarks (a reader of this Protocol never keeps a resourceVersion for later), paging and
label selectors, which only HTTP clients use.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

JsonObject = dict[str, Any]
"""One Kubernetes object (or patch) as decoded JSON."""

EventType = Literal["ADDED", "MODIFIED", "DELETED"]


class ApiStatusError(Exception):
    """The API server refused a request: a ``metav1.Status`` with its HTTP code, reason and message."""

    def __init__(self, code: int, reason: str, message: str, *, details: JsonObject | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}

    def __str__(self) -> str:
        return f"{self.code} {self.reason}: {self.message}"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change of one object; a DELETED event carries the last state of the object."""

    type: EventType
    object: JsonObject


class ClusterApi(Protocol):
    """The API server's verbs; ``resource`` is the plural name: "pods", "nodes", "gpunodes", "events".

    Returned objects belong to the caller. Every method raises ``ApiStatusError`` where the API server would
    answer with an error status.
    """

    async def create(self, resource: str, obj: JsonObject) -> JsonObject:
        """Create ``obj`` and return it as stored; without ``metadata.namespace`` it goes to "default"."""
        ...

    async def get(self, resource: str, name: str, *, namespace: str = "") -> JsonObject:
        """Return one object, or raise ``ApiStatusError`` with code 404."""
        ...

    async def list(self, resource: str, *, field_selector: str = "") -> tuple[list[JsonObject], str]:
        """Return the matching objects of all namespaces and the resourceVersion to watch from."""
        ...

    async def patch(
        self, resource: str, name: str, patch: JsonObject, *, namespace: str = "", subresource: str = ""
    ) -> JsonObject:
        """Apply a JSON merge patch (RFC 7386) to the object, or to its status, and return the result."""
        ...

    async def delete(
        self,
        resource: str,
        name: str,
        *,
        namespace: str = "",
        grace_seconds: int | None = None,
        uid: str = "",
    ) -> None:
        """Delete; a bound pod with grace above 0 is only marked, until somebody deletes it with grace 0.

        ``uid``, if given, is a precondition: another UID raises code 409.
        """
        ...

    def watch(self, resource: str, *, resource_version: str, field_selector: str = "") -> AsyncIterator[WatchEvent]:
        """Yield the changes after ``resource_version``, for ever.

        Raises ``ApiStatusError`` with code 410 when the events since then are no longer kept, and ends
        without an error when the server cuts the connection; in both cases the reader lists again.
        """
        ...
