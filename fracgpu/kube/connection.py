"""HTTP to the API server: a session, one request, one stream of lines.

The one place that knows aiohttp. Left out: where the API server is and who we are (`credentials`), what the requests
mean (`client`), and trying again (`reflector`, or the caller).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlencode
from urllib.request import getproxies_environment

import aiohttp
import msgspec
from yarl import URL

from fracgpu.kube.credentials import SERVICE_ACCOUNT, Access, read_kubeconfig, read_service_account
from fracgpu.kube.errors import KubeError
from fracgpu.kube.messages import Lines, refusal

JSON: Final = "application/json"
APPLY_PATCH: Final = "application/apply-patch+yaml"

Query = Mapping[str, str | int]
"""The parameters of a URL; empty ones are left out."""

_READ_BYTES: Final = 2**21  # of a stream that may wait to be read; one event can have 1.5 MB
_ANSWER_SECONDS: Final = 10.0  # the API server answers a watch at once, long before its first event


class Connection:
    """A pool of authenticated connections to one API server; made by `open`, ended by `close`."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=access.tls or True),
            # Else aiohttp looks for a proxy in the environment, and for a .netrc, in a thread at every request.
            trust_env=bool(getproxies_environment()),
            read_bufsize=_READ_BYTES,
        )

    @classmethod
    async def open(cls, kubeconfig: Path | None) -> "Connection":
        """Read the credentials; nothing is sent yet.

        Args:
            kubeconfig: that file's current context; None for the service account of the pod that we run in.

        Raises:
            SettingError: neither can be used.
        """
        if kubeconfig is None:
            return cls(read_service_account(SERVICE_ACCOUNT))
        return cls(await read_kubeconfig(kubeconfig))

    async def request(
        self,
        method: str,
        path: str,
        *,
        timeout_seconds: float,
        query: Query | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> bytes:
        """Send one request and return the body of a 2xx answer.

        Args:
            method: the HTTP method.
            path: the URL path, quoted where needed.
            timeout_seconds: for everything, from the credentials to the last byte; connecting may take half of it, so
                that a server that cannot be reached is told apart from a write that may have arrived.
            query: the URL's parameters; empty ones are left out.
            body: anything that msgspec can encode.
            content_type: of `body`.

        Raises:
            KubeError: any other answer, or none.
        """
        what = f"{method} {path}"
        is_write = method != "GET"
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=timeout_seconds / 2)
        with _translated(what, is_write=is_write):
            async with asyncio.timeout(timeout_seconds):
                response = await self._send(method, path, query, timeout, body=body, content_type=content_type)
                async with response:
                    answer = await response.read()
        if not 200 <= response.status < 300:
            raise refusal(what, status=response.status, body=answer, is_write=is_write)
        return answer

    async def stream(
        self, path: str, *, query: Query, silence_seconds: float, on_open: Callable[[], None]
    ) -> AsyncGenerator[bytes, None]:
        """GET a stream and yield its lines, of any length, until the server ends it or nothing comes any more.

        Args:
            path: the URL path.
            query: the URL's parameters; empty ones are left out.
            silence_seconds: a connection without a byte for so long is taken for dead, and the stream ends.
            on_open: called when the server has accepted, before the first line.

        Raises:
            KubeError: an answer other than 2xx, none at all, or a connection that broke.
        """
        what = f"GET {path}?watch"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_ANSWER_SECONDS / 2, sock_read=silence_seconds)
        with _translated(what, is_write=False):
            async with asyncio.timeout(_ANSWER_SECONDS):
                response = await self._send("GET", path, query, timeout)
        try:
            if not 200 <= response.status < 300:
                with _translated(what, is_write=False):
                    answer = await response.read()
                raise refusal(what, status=response.status, body=answer, is_write=False)
            on_open()
            lines = Lines()
            while chunk := await _next_chunk(response, what):
                for line in lines.feed(chunk):
                    yield line
            if lines.is_mid_line:
                raise KubeError(f"the connection was cut in the middle of an event ({what})")
        finally:
            _cut(response)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _send(
        self,
        method: str,
        path: str,
        query: Query | None,
        deadlines: aiohttp.ClientTimeout,
        *,
        body: object = None,
        content_type: str = JSON,
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": JSON, "Content-Type": content_type, "User-Agent": "fracgpu"}
        if (authorization := await self._access.authorization()) is not None:
            headers["Authorization"] = authorization
        parameters = urlencode({key: value for key, value in (query or {}).items() if value != ""})
        url = f"{self._access.url}{path}" + (f"?{parameters}" if parameters else "")
        return await self._session.request(
            method,
            URL(url, encoded=True),
            headers=headers,
            data=None if body is None else msgspec.json.encode(body),
            timeout=deadlines,
            proxy=self._access.proxy,
            server_hostname=self._access.server_name,
        )


def _cut(response: aiohttp.ClientResponse) -> None:
    """End a stream at once: to say goodbye over TLS waits for the server's, longer than our event loop may last."""
    transport = response.connection.transport if response.connection is not None else None
    response.close()
    if transport is not None:
        transport.abort()


async def _next_chunk(response: aiohttp.ClientResponse, what: str) -> bytes:
    """Read what has come; empty at the end of the stream, and where the connection fell silent."""
    try:
        with _translated(what, is_write=False):
            return await response.content.readany()
    except KubeError as exc:
        if isinstance(exc.__cause__, aiohttp.SocketTimeoutError):
            return b""
        raise


@contextmanager
def _translated(what: str, *, is_write: bool) -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
        raise KubeError(f"the API server cannot be reached ({what}): {exc}") from exc
    except TimeoutError as exc:
        raise KubeError(f"the API server did not answer in time ({what})", outcome_unknown=is_write) from exc
    except (aiohttp.ClientError, OSError) as exc:
        detail = str(exc) or type(exc).__name__
        raise KubeError(f"the connection to the API server broke ({what}): {detail}", outcome_unknown=is_write) from exc
