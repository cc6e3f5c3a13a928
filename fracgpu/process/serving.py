"""Serving HTTP from within a service's own event loop, and saying where.

uvicorn does the work; here is how we use it: a socket of our own (so that a taken port is an error and not an exit,
and port 0 tells what it became), no signal handlers, no log of accesses. Running the process is `running`'s part.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import uvicorn

from fracgpu.errors import SettingError, UnavailableError

_KEEP_ALIVE_SECONDS: Final = 120  # above the 90 s that Go's clients keep an idle connection, so that they close first
_GRACE_SECONDS: Final = 5  # for requests under way when we stop; kube-scheduler gives up on them after 5 s
_BACKLOG: Final = 2048
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (address to listen on -> to be reached at)

_logger = logging.getLogger(__name__)


class HttpServer:
    """Serves an ASGI app between `start` and `stop`.

    Args:
        app: any ASGI app with lifespan events, such as FastAPI.
        host: the address to listen on.
        port: 0 takes a free one.
        tls_cert: PEM file with the certificate chain; None, and `tls_key` too, for plain HTTP.
        tls_key: PEM file with the certificate's key.
        tls: what to listen with instead of the two files, for a certificate that changes while we serve.
        bounds_headers: whether a request's headers are bounded, for who may be called by anybody; it costs some speed.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        *,
        host: str,
        port: int,
        tls_cert: Path | None,
        tls_key: Path | None,
        tls: ssl.SSLContext | None = None,
        bounds_headers: bool = False,
    ) -> None:
        # httptools takes headers of any length: one client could have us read for ever.
        self._protocol: Literal["h11", "httptools"] = "h11" if bounds_headers else "httptools"
        self._app = app
        self._host = host
        self._port = port
        self._tls_cert = tls_cert
        self._tls_key = tls_key
        self._tls = tls
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; before `start` the one asked for."""
        return self._port

    @property
    def url(self) -> str:
        """Where this machine reaches the server."""
        host = _WILDCARDS.get(self._host, self._host)
        scheme = "https" if self._tls_cert or self._tls else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._port}"

    async def start(self) -> None:
        """Begin to serve; returns when requests are answered.

        Raises:
            SettingError: the address cannot be listened on, or the TLS files cannot be used.
            UnavailableError: the app's own start failed; its reason has been logged.
        """
        server = _Server(self._config())
        listener = self._listen()
        self._port = listener.getsockname()[1]
        self._server = server
        self._task = asyncio.create_task(server.serve(sockets=[listener]), name=f"serving {self.url}")
        started = asyncio.create_task(server.serving.wait())
        try:
            await asyncio.wait((self._task, started), return_when=asyncio.FIRST_COMPLETED)
        finally:
            started.cancel()
        if not server.serving.is_set():
            listener.close()
            raise UnavailableError(f"the application at {self.url} failed to start") from self._task.exception()

    async def stop(self) -> None:
        """Answer what is under way, for some seconds, and end; harmless when not started."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task

    def _config(self) -> uvicorn.Config:
        if (self._tls_cert is None) != (self._tls_key is None):
            raise SettingError("for TLS both the certificate and its key are needed, and only one of them is set")
        tls = self._tls
        config = uvicorn.Config(
            self._app,
            http=self._protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            backlog=_BACKLOG,
            ssl_certfile=self._tls_cert,
            ssl_keyfile=self._tls_key,
            ssl_context_factory=None if tls is None else (lambda _config, _default: tls),
        )
        try:
            config.load()
        except OSError as exc:  # ssl.SSLError is one
            raise SettingError(
                f"the TLS certificate {self._tls_cert} and key {self._tls_key} cannot be used together: {exc}"
            ) from exc
        return config

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            return socket.create_server((self._host, self._port), family=family, backlog=_BACKLOG)
        except (OSError, OverflowError) as exc:
            raise SettingError(f"cannot listen on {self._host} port {self._port}: {exc}") from exc


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, and with an event for its start."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serving = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets=sockets)
        except SystemExit as exc:
            raise UnavailableError("the application's start-up failed") from exc
        if self.started:
            self.serving.set()
