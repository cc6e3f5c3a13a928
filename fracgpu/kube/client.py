"""The requests that fracgpu makes of the API server, typed: get, list, watch, bind, evict, apply.

Each is one attempt with a deadline; trying again is the caller's decision, who knows whether a repetition is safe
(`KubeError.outcome_unknown`). Following a whole collection is `reflector`'s part.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Final, Protocol

from fracgpu.kube.connection import APPLY_PATCH, Connection, Query
from fracgpu.kube.errors import KubeError
from fracgpu.kube.messages import EventKind, Listing, WatchEvent, decode_event, decode_object, decode_page
from fracgpu.kube.resources import PODS, Resource, T
from fracgpu.names import NodeName, PodUid

__all__ = ["EventKind", "KubeClient", "Listing", "Observer", "WatchEvent"]

_SILENCE_SECONDS: Final = 90.0  # the API server sends a bookmark every 60 s


class Observer(Protocol):
    """Who is told of each request, such as `fracgpu.process.metrics.KubeCalls`."""

    def __call__(self, verb: str, resource: str, *, code: str, seconds: float | None) -> None:
        """Note a request that has ended, or a watch that has opened or broken.

        Args:
            verb: get, list (a page of it), watch, bind, evict or apply.
            resource: the plural, with its subresource where there is one: ``gpunodes/status``.
            code: ok, the HTTP status of a refusal, or none where no answer came.
            seconds: from the request to its answer; None where a watch broke that had opened.
        """
        ...


def _unobserved(verb: str, resource: str, *, code: str, seconds: float | None) -> None:
    """Tell nobody."""


class KubeClient:
    """A client of one API server; made by `connect`, ended by `close`."""

    def __init__(self, connection: Connection, *, observer: Observer = _unobserved) -> None:
        self._connection = connection
        self._observer = observer

    @classmethod
    async def connect(cls, *, kubeconfig: Path | None, observer: Observer = _unobserved) -> "KubeClient":
        """Read the credentials; nothing is sent yet.

        Args:
            kubeconfig: that file's current context; None for the service account of the pod that we run in.
            observer: is told of each request.

        Raises:
            SettingError: neither can be used.
        """
        return cls(await Connection.open(kubeconfig), observer=observer)

    async def get(self, resource: Resource[T], name: str, *, namespace: str = "", timeout_seconds: float = 10.0) -> T:
        """Read one object as it is now.

        Raises:
            KubeError: it does not exist (404), or any other trouble.
        """
        path = resource.object_path(name, namespace=namespace)
        with self._observed("get", resource.plural):
            body = await self._connection.request("GET", path, timeout_seconds=timeout_seconds)
        return decode_object(resource, body, is_write=False)

    async def list(
        self,
        resource: Resource[T],
        *,
        field_selector: str = "",
        keep: Callable[[T], T | None] = lambda found: found,
        page_size: int = 500,
        timeout_seconds: float = 30.0,
    ) -> Listing[T]:
        """Read all objects of a kind, of all namespaces, as they are now (a consistent read).

        Args:
            resource: the kind.
            field_selector: reads only objects that match, for example ``spec.nodeName=node-1``.
            keep: what to keep of an object; None leaves it out.
            page_size: objects per request.
            timeout_seconds: for each request.

        Raises:
            KubeError: any trouble with any page; 410 where the pages took longer than the API server keeps them.
        """
        items: list[T] = []
        unreadable: dict[str, str] = {}
        resource_version = token = ""
        while True:
            query: Query = {"limit": page_size, "fieldSelector": field_selector, "continue": token}
            with self._observed("list", resource.plural):
                body = await self._connection.request(
                    "GET", resource.collection_path, query=query, timeout_seconds=timeout_seconds
                )
            page = decode_page(resource, body)
            items += (kept for item in page.listing.items if (kept := keep(item)) is not None)
            unreadable |= page.listing.unreadable
            resource_version = resource_version or page.listing.resource_version
            token = page.continue_token
            if not token:
                return Listing(items, resource_version, unreadable)

    async def watch(
        self,
        resource: Resource[T],
        *,
        resource_version: str,
        field_selector: str = "",
        timeout_seconds: int,
        silence_seconds: float = _SILENCE_SECONDS,
        on_open: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yield what changes after `resource_version`, bookmarks included; close the generator to stop early.

        It ends without an error when the API server ends it, or when nothing came for `silence_seconds`: watch again
        from the last resource version.

        Args:
            resource: the kind.
            resource_version: from a listing, or from the last event.
            field_selector: as in `list`.
            timeout_seconds: how long the API server is asked to keep the watch.
            silence_seconds: a connection without a byte for so long is taken for dead.
            on_open: called when the API server has accepted the watch, before the first event.

        Raises:
            KubeError: 410 when events since `resource_version` are no longer kept (list again), or any other trouble.
        """
        query: Query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "fieldSelector": field_selector,
            "timeoutSeconds": timeout_seconds,
        }
        began = time.monotonic()
        has_opened = False

        def opened() -> None:
            nonlocal has_opened
            has_opened = True
            self._observer("watch", resource.plural, code="ok", seconds=time.monotonic() - began)
            on_open()

        lines = self._connection.stream(
            resource.collection_path, query=query, silence_seconds=silence_seconds, on_open=opened
        )
        try:
            async with aclosing(lines):
                async for line in lines:
                    yield decode_event(resource, line)
        except KubeError as exc:
            seconds = None if has_opened else time.monotonic() - began
            self._observer("watch", resource.plural, code=_code(exc), seconds=seconds)
            raise

    async def bind(
        self,
        *,
        namespace: str,
        name: str,
        uid: PodUid,
        node: NodeName,
        annotations: dict[str, str],
        timeout_seconds: float,
    ) -> None:
        """Bind a pod to a node and annotate it, in one write.

        Args:
            namespace: the pod's.
            name: the pod's.
            uid: a precondition: another pod of the same name is refused with 409.
            node: where the pod shall run.
            annotations: copied onto the pod by the API server.
            timeout_seconds: for the whole request; the API server is told to give up after it too.

        Raises:
            KubeError: 404 (no such pod), 409 (another UID, or already bound), or any other trouble. With
                `outcome_unknown` the pod may be bound.
        """
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": uid, "annotations": annotations},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        path = PODS.object_path(name, namespace=namespace, subresource="binding")
        query: Query = {"timeout": f"{int(timeout_seconds * 1000)}ms"}
        with self._observed("bind", "pods/binding"):
            await self._connection.request("POST", path, query=query, body=body, timeout_seconds=timeout_seconds)

    async def evict(self, *, namespace: str, name: str, uid: PodUid, timeout_seconds: float) -> None:
        """Have a pod ended if its disruption budgets allow it.

        Args:
            namespace: the pod's.
            name: the pod's.
            uid: a precondition: another pod of the same name is refused with 409.
            timeout_seconds: for the whole request.

        Raises:
            KubeError: 429 (a disruption budget does not allow it now), 404 (no such pod), 409 (another UID), 500 (it
                has several budgets, which the API server does not support), or any other trouble.
        """
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        path = PODS.object_path(name, namespace=namespace, subresource="eviction")
        with self._observed("evict", "pods/eviction"):
            await self._connection.request("POST", path, body=body, timeout_seconds=timeout_seconds)

    async def apply(
        self,
        resource: Resource[T],
        name: str,
        body: object,
        *,
        field_manager: str,
        subresource: str = "",
        namespace: str = "",
        timeout_seconds: float = 10.0,
    ) -> T:
        """Create or update an object by server-side apply; what `body` leaves out is left alone, or given up.

        Args:
            resource: the kind.
            name: the object's.
            body: anything that msgspec can encode, with `apiVersion`, `kind` and `metadata.name`. A struct carries its
                empty fields too; a dict only what it holds.
            field_manager: who owns the fields; conflicts with others are forced.
            subresource: ``status``, or empty for the object itself.
            namespace: the object's, where it has one.
            timeout_seconds: for the whole request.

        Returns:
            The object as stored.

        Raises:
            KubeError: any trouble; applying the same body again is always safe.
        """
        with self._observed("apply", f"{resource.plural}/{subresource}" if subresource else resource.plural):
            answer = await self._connection.request(
                "PATCH",
                resource.object_path(name, namespace=namespace, subresource=subresource),
                query={"fieldManager": field_manager, "force": "true"},
                body=body,
                content_type=APPLY_PATCH,
                timeout_seconds=timeout_seconds,
            )
        return decode_object(resource, answer, is_write=True)

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    @contextmanager
    def _observed(self, verb: str, resource: str) -> Iterator[None]:
        """Tell the observer how the request ends; of one that is given up before, nothing."""
        began = time.monotonic()
        try:
            yield
        except KubeError as exc:
            self._observer(verb, resource, code=_code(exc), seconds=time.monotonic() - began)
            raise
        self._observer(verb, resource, code="ok", seconds=time.monotonic() - began)


def _code(error: KubeError) -> str:
    return str(error.status) if error.status else "none"
