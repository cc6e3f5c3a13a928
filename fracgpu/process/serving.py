"""Serving HTTP from within a service's own event loop, and saying where.

uvicorn does the work; here is how we use it: a socket of our own (so that a taken port is an error and not an exit,
and port 0 tells what it became), no signal handlers, no log of accesses, and the names in a client's certificate for
the app (`client_names`). Running the process is `running`'s part.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fracgpu.errors import SettingError, UnavailableError

_KEEP_ALIVE_SECONDS: Final = 120  # above the 90 s that Go's clients keep an idle connection, so that they close first
_GRACE_SECONDS: Final = 5  # for requests under way when we stop; kube-scheduler gives up on them after 5 s
_BACKLOG: Final = 2048
_MAX_HEAD_BYTES: Final = 64 * 2**10  # of a request: its line and headers
_MAX_PIPELINED: Final = 16  # requests of one connection that wait for those before them
_FIRST_HEAD_SECONDS: Final = 10.0  # in which whoever connects has to ask something
_CLIENT_NAMES: Final = "client_names"
_ABORT: Final = "abort"
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (address to listen on -> to be reached at)

_logger = logging.getLogger(__name__)


def require_protection(*, host: str, flag: str, has_tls: bool, insecure: bool) -> None:
    """Refuse to listen in plain text beyond this machine, unless that was asked for.

    Args:
        host: the address to listen on.
        flag: that sets it, for the error.
        has_tls: whether there is a certificate.
        insecure: whether it was asked for.

    Raises:
        ValueError: it would be plain text, and was not asked for; for a settings' validator.
    """
    if not (has_tls or insecure or is_loopback(host)):
        raise ValueError(
            f"{flag} is {host}, which other machines reach, and there is no certificate; give --tls-cert and "
            "--tls-key, or listen on 127.0.0.1, or allow plain text with --insecure"
        )


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def client_names(scope: Mapping[str, Any]) -> frozenset[str] | None:
    """The common name, DNS names and URIs in the client's certificate, which TLS has verified; None without one."""
    found: frozenset[str] | None = scope.get("state", {}).get(_CLIENT_NAMES)
    return found


def hang_up(scope: Mapping[str, Any]) -> None:
    """End the connection of a request at once, for a client that does not read its answer."""
    abort = scope.get("state", {}).get(_ABORT)
    if abort is not None:  # else it is not served by us
        abort()


class HttpServer:
    """Serves an ASGI app between `start` and `stop`.

    Args:
        app: any ASGI app with lifespan events, such as FastAPI.
        host: the address to listen on.
        port: 0 takes a free one.
        tls: what to listen with (see `fracgpu.process.tls`); None for plain HTTP.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        *,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._app = app
        self._host = host
        self._port = port
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
        scheme = "https" if self._tls else "http"
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
        tls = self._tls
        config = uvicorn.Config(
            self._app,
            http=_Protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="error",  # its warnings tell of what strangers send, a line or two for each request
            access_log=False,
            server_header=False,
            proxy_headers=False,  # a client is who connects, whatever its headers say
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            backlog=_BACKLOG,
            ssl_context_factory=None if tls is None else (lambda _config, _default: tls),
        )
        config.load()
        return config

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            return socket.create_server((self._host, self._port), family=family, backlog=_BACKLOG)
        except (OSError, OverflowError) as exc:
            raise SettingError(f"cannot listen on {self._host} port {self._port}: {exc}") from exc


class _Protocol(HttpToolsProtocol):
    """One connection: bounds the head of each request, and tells the app who the client is."""

    _dry_bytes = 0  # read since anything was whole: a head, a piece of a body, a request
    _silence: asyncio.TimerHandle | None = None  # until the first head is whole

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._silence = self.loop.call_later(_FIRST_HEAD_SECONDS, transport.abort)
        tls = transport.get_extra_info("ssl_object")
        self.app_state = {**self.app_state, _ABORT: transport.abort}
        if tls is not None and (certificate := tls.getpeercert()):
            self.app_state[_CLIENT_NAMES] = _names_in(certificate)

    def data_received(self, data: bytes) -> None:
        # httptools keeps a header until it is whole, whatever its length, and likewise what follows a body in chunks:
        # one client could have us read for ever.
        self._dry_bytes += len(data)
        super().data_received(data)
        if self._dry_bytes > _MAX_HEAD_BYTES:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._listen_for_ever()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        self._listen_for_ever()
        self._dry_bytes = 0
        if len(self.pipeline) >= _MAX_PIPELINED:  # asked without waiting for answers, which nobody does who reads them
            self.transport.abort()
            return
        super().on_headers_complete()

    def _listen_for_ever(self) -> None:
        """From here on the time-out for idle connections goes."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def on_body(self, body: bytes) -> None:
        self._dry_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._dry_bytes = 0


def _names_in(certificate: Mapping[str, Any]) -> frozenset[str]:
    """The names in a certificate, in the form that `ssl` gives."""
    subject = (pair for part in certificate.get("subject", ()) for pair in part)
    names = {value for key, value in subject if key == "commonName"}
    return frozenset(names | {value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "URI")})


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
