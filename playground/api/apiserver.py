"""The playground's API server: an in-memory Kubernetes API on loopback, started and stopped by its user.

It joins the parts (store, registry, watches, HTTP) and offers the faults that tests need. It runs in the caller's
event loop; ``cluster`` is the same API for parts of that process, without HTTP.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence

import uvicorn
from fastapi import FastAPI, Request

from playground.api.admission import Admission, Webhook
from playground.api.faults import BindingFaults
from playground.api.http_api import HttpApi
from playground.api.kept_kinds import default_namespace
from playground.api.local import LocalCluster
from playground.api.registry import FIRST_NAMESPACES, Registry
from playground.api.resources import NAMESPACES, Key
from playground.api.rules import initial
from playground.api.store import LOG_LIMIT, Store
from playground.api.watching import Watches

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class ApiServer:
    """An API server of a cluster that has no nodes yet.

    Args:
        webhooks: webhooks for pods and workloads, in the order in which they are called.
        log_limit: changes kept for watches; one that resumes from before them gets 410.
        bookmark_seconds: the time between two bookmarks of a quiet watch.
        host, port: where it listens; port 0 takes a free one. Nobody is asked who they are, so think before you
            name another host than loopback.

    Attributes:
        cluster: the API for parts of this process, usable before ``start``.
        bindings: what goes wrong with the next binding requests over HTTP.
        url: where it listens, once started.
    """

    def __init__(
        self,
        *,
        webhooks: Sequence[Webhook] = (),
        log_limit: int = LOG_LIMIT,
        bookmark_seconds: float = 60.0,
        checks_namespaces: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.url = ""
        self._address = (host, port)
        self.bindings = BindingFaults()
        self._store = Store(log_limit=log_limit)
        for namespace in FIRST_NAMESPACES:
            obj = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace}}
            self._store.create(Key("namespaces", "", namespace), initial(NAMESPACES, default_namespace(obj)))
        self._admission = Admission(webhooks)
        registry = Registry(self._store, self._admission, checks_namespaces=checks_namespaces)
        self._watches = Watches(self._store, bookmark_seconds=bookmark_seconds)
        self.cluster = LocalCluster(registry, self._watches)
        self._http = HttpApi(
            self._store,
            registry=registry,
            watches=self._watches,
            faults=self.bindings,
            hang_up=self._hang_up,
        )
        app = FastAPI(openapi_url=None)
        app.add_api_route("/{path:path}", self._http.handle, methods=_METHODS, response_model=None)
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="critical",  # requests and hung-up connections are the playground's daily business
            access_log=False,
            http="httptools",  # its connections know their client, by which one of them is hung up on
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)

    async def start(self) -> None:
        """Listen."""
        listener = socket.create_server(self._address)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # Not `serve()`: that takes over the process's signal handlers, which belong to whoever runs the playground.
        self._server.config.load()
        self._server.lifespan = self._server.config.lifespan_class(self._server.config)
        await self._server.startup(sockets=[listener])

    async def stop(self) -> None:
        """Hang up on everybody and stop listening."""
        self._watches.cut()
        self.bindings.release()
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        await self._server.shutdown()
        await self._admission.stop()

    def set_webhooks(self, webhooks: Sequence[Webhook]) -> None:
        """Replace the webhooks, as when somebody applies another MutatingWebhookConfiguration."""
        self._admission.webhooks = tuple(webhooks)

    def cut_watches(self) -> None:
        """Break the connection of every open watch, in the middle of its stream; also ends those of ``cluster``."""
        self._http.hang_up_watches()
        self._watches.cut()

    def compact(self) -> None:
        """Forget the changes so far: a watch or a list that resumes from before gets 410."""
        self._store.compact()

    def kubeconfig(self, *, url: str = "") -> str:
        """The text of a kubeconfig for kubectl and the services; `url` is for those who reach it by another."""
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "playground",
                "clusters": [{"name": "playground", "cluster": {"server": url or self.url}}],
                "users": [{"name": "playground", "user": {}}],
                "contexts": [{"name": "playground", "context": {"cluster": "playground", "user": "playground"}}],
            }
        )

    def _hang_up(self, request: Request) -> None:
        for connection in list(self._server.server_state.connections):
            if request.client is not None and getattr(connection, "client", None) == tuple(request.client):
                connection.transport.abort()
