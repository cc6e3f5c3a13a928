"""HTTP to the API server on top of `kubernetes.aio`: where it is, who we are, TLS, one request, one stream of lines.

The one place that knows that package and aiohttp. From it come the reading of kubeconfig files and service accounts
and the HTTP session; its generated models are never loaded (1,700 us and 110 KiB a pod). Left out: what the requests
mean (`client`) and trying again (`reflector`, or the caller).
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import getproxies_environment

import aiohttp
import msgspec
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from fracgpu.errors import SettingError
from fracgpu.kube.errors import KubeError
from fracgpu.kube.messages import Lines, refusal

JSON: Final = "application/json"
APPLY_PATCH: Final = "application/apply-patch+yaml"

Query = Mapping[str, str | int]
"""The parameters of a URL; empty ones are left out."""

_CREDENTIALS_SECONDS: Final = 60.0  # how often a kubeconfig's credentials are looked at; as the in-cluster token
_ANSWER_SECONDS: Final = 10.0  # the API server answers a watch at once, long before its first event


class Connection:
    """A pool of authenticated connections to one API server; made by `open`, ended by `close`."""

    def __init__(self, configuration: Any) -> None:
        self._configuration = configuration
        # Else aiohttp looks for a proxy in the environment, and for a .netrc, in a thread at every request.
        configuration.client_session_kwargs = {"trust_env": bool(getproxies_environment())}
        self._rest = RESTClientObject(configuration)

    @classmethod
    async def open(cls, kubeconfig: Path | None) -> "Connection":
        """Read the credentials; nothing is sent yet.

        Bearer tokens are kept fresh (in-cluster, token files, exec plugins, OIDC); client certificates are read once.

        Args:
            kubeconfig: that file's current context; None for the service account of the pod that we run in.

        Raises:
            SettingError: neither can be used.
        """
        configuration = Configuration()
        if kubeconfig is None:
            try:
                load_incluster_config(client_configuration=configuration)
                return cls(configuration)
            except (ConfigException, OSError) as exc:
                raise SettingError(
                    f"no Kubernetes service account to use ({exc}): outside a pod, name a kubeconfig file with "
                    "--kubeconfig (FRACGPU_KUBECONFIG); inside one, keep automountServiceAccountToken on"
                ) from exc
        if not kubeconfig.is_file():  # noqa: ASYNC240 (once, at start)
            raise SettingError(f"the kubeconfig file {kubeconfig} does not exist")
        try:
            loader = await load_kube_config(
                config_file=str(kubeconfig), client_configuration=configuration, persist_config=False
            )
            configuration.refresh_api_key_hook = _refresher(loader)
            return cls(configuration)
        except Exception as exc:
            # The reader trips over a malformed file in any way that Python can: it indexes what it finds.
            raise SettingError(f"the kubeconfig file {kubeconfig} cannot be used: {exc}") from exc

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
            response.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._rest.close()

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
        credentials = (await self._configuration.auth_settings()).get("BearerToken")
        if credentials is not None:
            headers[credentials["key"]] = credentials["value"].strip()
        parameters = urlencode({key: value for key, value in (query or {}).items() if value != ""})
        answer = await self._rest.request(
            method,
            f"{self._configuration.host}{path}" + (f"?{parameters}" if parameters else ""),
            headers=headers,
            body=None if body is None else msgspec.to_builtins(body),
            _request_timeout=deadlines,
        )
        response: aiohttp.ClientResponse = answer.response
        return response


async def _next_chunk(response: aiohttp.ClientResponse, what: str) -> bytes:
    """Read what has come; empty at the end of the stream, and where the connection fell silent."""
    try:
        with _translated(what, is_write=False):
            return await response.content.readany()
    except KubeError as exc:
        if isinstance(exc.__cause__, aiohttp.SocketTimeoutError):
            return b""
        raise


def _refresher(loader: Any) -> Any:
    """Make the hook that keeps a kubeconfig's bearer token fresh: the loader renews what has expired."""
    looked = time.monotonic()

    async def refresh(configuration: Any) -> None:
        nonlocal looked
        if time.monotonic() - looked >= _CREDENTIALS_SECONDS:
            looked = time.monotonic()
            try:
                await loader.load_and_set(configuration)
            except Exception as exc:  # of any kind, as in `open`
                raise KubeError(f"the Kubernetes credentials cannot be renewed: {exc}") from exc

    return refresh


@contextmanager
def _translated(what: str, *, is_write: bool) -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
        raise KubeError(f"the API server cannot be reached ({what}): {exc}") from exc
    except ConfigException as exc:
        raise KubeError(f"the Kubernetes credentials cannot be renewed ({what}): {exc}") from exc
    except TimeoutError as exc:
        raise KubeError(f"the API server did not answer in time ({what})", outcome_unknown=is_write) from exc
    except (aiohttp.ClientError, OSError) as exc:
        detail = str(exc) or type(exc).__name__
        raise KubeError(f"the connection to the API server broke ({what}): {detail}", outcome_unknown=is_write) from exc
